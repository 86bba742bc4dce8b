# Exported from notebooks/07_bpr.ipynb; edit there.
"""Written in chapter 07, where it is explained line by line."""

import torch
from torch.nn import functional as F


def bce_loss(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Pointwise: logistic loss of every score, positives against 1, negatives against 0.

    positive: scores, shape (B,); negative: scores, shape (B, n). A scalar, the mean over all
    B (n + 1) scores (He et al. 2017, eq. 7, with sampled negatives).
    """
    total = F.softplus(-positive).sum() + F.softplus(negative).sum()
    return total / (positive.numel() + negative.numel())


def bpr_loss(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Pairwise: minus the log-probability that the positive beats the negative.

    positive: scores, shape (B,); negative: scores, shape (B, n). A scalar, the mean over the
    B n pairs (Rendle et al. 2009, BPR-Opt without the penalty).
    """
    return -F.logsigmoid(positive[:, None] - negative).mean()


def softmax_loss(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Listwise: cross-entropy of picking the positive out of itself and its n negatives.

    positive: scores, shape (B,); negative: scores, shape (B, n). A scalar, the mean over the
    B lists (sampled softmax without correction, Jean et al. 2015, eq. 9).
    """
    scores = torch.cat([positive[:, None], negative], dim=1)  # (B, 1 + n), the positive first
    return (scores.logsumexp(dim=1) - positive).mean()
