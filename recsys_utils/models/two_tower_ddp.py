# Exported from notebooks/16_scaling_out.ipynb; edit there.
"""Written in chapter 16, where it is explained line by line."""

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from recsys_utils.models.two_tower_torch import in_batch_loss


def others(codes: torch.Tensor) -> torch.Tensor:
    """The codes (n,) of the other ranks, one after the other; all bring equally many. ((R - 1) n,)."""
    everyone = [torch.empty_like(codes) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, codes)
    return torch.cat([codes[:0], *(part for rank, part in enumerate(everyone) if rank != dist.get_rank())])


class JoinedBatch(nn.Module):
    """Loss of this rank's rows among the items of all ranks; its mean over ranks is the joined batch's.

    model: two towers of chapter 10; log_q, seen: as in in_batch_loss. Called with codes of users and of
    items, (b,), and of further negatives, (b, n).
    """

    def __init__(self, model, log_q, seen):
        super().__init__()
        self.model, self.log_q, self.seen = model, log_q, seen

    def forward(self, users, items, more):
        negatives = torch.cat([others(items), more.ravel(), others(more.ravel())])
        return in_batch_loss(self.model, users, items, self.log_q, self.seen, negatives)


def share(rows: np.ndarray, rank: int, ranks: int) -> np.ndarray:
    """A rank's consecutive part of a batch, equally many for all; the last len(rows) % ranks are left."""
    size = len(rows) // ranks
    return rows[rank * size:(rank + 1) * size]
