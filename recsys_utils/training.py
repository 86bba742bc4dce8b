"""Seeding, settings, and the one PyTorch loop of the book."""

from __future__ import annotations

import copy
import importlib.util
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

if TYPE_CHECKING:
    import torch


class MissingPackageError(ImportError):
    """A package that a chapter needs is not installed; a notebook shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def require(*packages: str) -> None:
    """Raise MissingPackageError with one sentence and the command that helps, unless all `packages` are installed.

    Call it before the imports. It imports none of them, and keeps two notes off the page: TensorFlow's about its start,
    and tqdm's that its bars, which the chapters do not show, could be widgets.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    warnings.filterwarnings("ignore", "IProgress not found")
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPackageError(
            f"This chapter needs {' and '.join(missing)}: run `{sys.executable} -m pip install {' '.join(missing)}`, "
            f"then restart the kernel."
        )


def seed_everything(seed: int = 0) -> None:
    """Seed Python, NumPy's legacy generator and whichever of torch, TensorFlow and Keras is already imported.

    Frameworks that are not imported are left alone, so this stays free of their import time. Code of the book passes
    an explicit numpy Generator wherever it draws; this catches the rest.
    """
    os.environ["PYTHONHASHSEED"] = str(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the legacy generator is what libraries fall back to
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
        sys.modules["torch"].set_flush_denormal(True)  # denormal Adam moments slow embeddings down many times over
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)


COUNTS = ("interactions", "embedding_dim", "n_negatives", "batch_size", "epochs", "threads")


def check_settings(**settings: float) -> None:
    """Raise ValueError unless each setting can be used: COUNTS are whole and at least 1, others finite, 0 or more."""
    for name, value in settings.items():
        least = int(name in COUNTS)
        if not (least <= value < np.inf) or (least and value != int(value)):
            expected = "a whole number of at least 1" if least else "a finite number, 0 or more"
            raise ValueError(f"{name}={value}; expected {expected}")


def fit(
    model: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    examples: Callable[[np.random.Generator], tuple[np.ndarray, ...]],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    validate: Callable[[], float] | None = None,
    patience: int | None = None,
) -> pd.DataFrame:
    """Train a torch model; one row an epoch comes back: epoch, loss (mean over examples), seconds, validation.

    loss: called as loss(model, *batch), a scalar, the mean over the batch. examples: called once an epoch with a
    generator, so that it may draw new negatives; arrays that share their first axis. They go to the model's device,
    are shuffled there and cut into batches. validate: a number after each epoch, higher is better; the model ends with
    the weights of its best epoch, and training stops after `patience` epochs without a better one (None: never).
    Raises ValueError when the loss is not finite, a validation value is nan, or an array is shorter than another.
    """
    import torch

    check_settings(epochs=epochs, batch_size=batch_size)
    if patience is not None and (patience < 1 or validate is None):
        raise ValueError(f"patience={patience}; expected at least 1, together with a validate function")
    torch.set_flush_denormal(True)
    rng, device = np.random.default_rng(seed), next(model.parameters()).device
    rows, best, weights = [], -np.inf, None
    progress = tqdm(range(1, epochs + 1), unit="epoch", disable=None, leave=False)  # silent unless in a terminal
    for epoch in progress:
        started = time.perf_counter()
        arrays = examples(rng)
        n = len(arrays[0])
        if any(len(array) != n for array in arrays) or not n:
            raise ValueError(f"examples returned arrays of lengths {[len(a) for a in arrays]}; expected one length > 0")
        order = torch.from_numpy(rng.permutation(n)).to(device)
        tensors = [torch.tensor(array, device=device)[order] for array in arrays]  # a copy: they may be read-only
        total = torch.zeros((), device=device)
        model.train()
        for batch in zip(*(tensor.split(batch_size) for tensor in tensors), strict=True):
            optimizer.zero_grad()
            value = loss(model, *batch)
            value.backward()
            optimizer.step()
            total += value.detach() * len(batch[0])
        model.eval()
        row = {"epoch": epoch, "loss": float(total) / n, "seconds": time.perf_counter() - started}
        if not np.isfinite(row["loss"]):
            raise ValueError(f"the loss is {row['loss']} in epoch {epoch}; a smaller learning rate is the usual cure")
        if validate is not None:
            row["validation"] = float(validate())
            if np.isnan(row["validation"]):
                raise ValueError(f"validate returned nan in epoch {epoch}; expected a number, higher is better")
            if row["validation"] > best:
                best, best_epoch, weights = row["validation"], epoch, copy.deepcopy(model.state_dict())
            progress.set_postfix(validation=row["validation"])
        rows.append(row)
        if patience is not None and epoch - best_epoch >= patience:
            break
    if weights is not None:
        model.load_state_dict(weights)
    return pd.DataFrame(rows)
