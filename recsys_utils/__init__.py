"""Shared code of the book *From Embeddings to Endpoints*. Importing it loads neither torch nor TensorFlow."""

from recsys_utils.interactions import Interactions

__version__ = "0.1.0"
__all__ = ["Interactions", "__version__"]
