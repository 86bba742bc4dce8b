"""Seeding, shared by every chapter."""

from __future__ import annotations

import os
import random
import sys

import numpy as np


def seed_everything(seed: int = 0) -> None:
    """Seed Python, NumPy's legacy generator and whichever of torch and Keras is already imported.

    Frameworks that are not imported are left alone, so this stays free of their import time. Code of the book passes
    an explicit numpy Generator wherever it draws; this catches the rest.
    """
    os.environ["PYTHONHASHSEED"] = str(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the legacy generator is what libraries fall back to
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
        sys.modules["torch"].set_flush_denormal(True)  # denormal Adam moments slow embeddings down many times over
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)
