# Exported from notebooks/07_bpr.ipynb; edit there.
"""Written in chapter 07, where it is explained line by line."""

from keras import ops


def bce_loss(positive, negative):
    """Pointwise; the twin of the torch loss: scores of shapes (B,) and (B, n) to a scalar."""
    scores = ops.concatenate([-positive[:, None], negative], axis=1)
    return ops.mean(ops.softplus(scores))


def bpr_loss(positive, negative):
    """Pairwise; the twin of the torch loss: scores of shapes (B,) and (B, n) to a scalar."""
    return -ops.mean(ops.log_sigmoid(positive[:, None] - negative))


def softmax_loss(positive, negative):
    """Listwise; the twin of the torch loss: scores of shapes (B,) and (B, n) to a scalar."""
    scores = ops.concatenate([positive[:, None], negative], axis=1)
    return ops.mean(ops.logsumexp(scores, axis=1) - positive)
