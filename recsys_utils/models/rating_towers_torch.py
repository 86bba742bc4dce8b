# Exported from notebooks/09_two_tower_keras.ipynb; edit there.
"""Written in chapter 09, where it is explained line by line."""

import torch
from torch import nn
from torch.nn import functional as F


class Tower(nn.Module):
    """Raw features (B, d) to unit vectors (B, 32), as the Keras tower does. mean, scale: (d,)."""

    def __init__(self, mean, scale):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(scale))
        self.layers = nn.ModuleList(
            [nn.Linear(len(mean), 256), nn.Linear(256, 128), nn.Linear(128, 32)])

    def forward(self, x):
        first, second, last = self.layers
        hidden = F.relu(first((x - self.mean) / self.scale))
        return F.normalize(last(F.relu(second(hidden))), dim=-1)


class RatingTowers(nn.Module):
    """Cosines of two towers: features (B, d) and (B, e) to (B, 1), the twin of rating_towers."""

    def __init__(self, user_tower: Tower, item_tower: Tower):
        super().__init__()
        self.user_tower, self.item_tower = user_tower, item_tower

    def forward(self, users, items):
        return (self.user_tower(users) * self.item_tower(items)).sum(dim=-1, keepdim=True)
