"""Data sets as bytes, their splits, and the batches of an epoch."""

from rkdsearch.data.batches import Batch, Batches
from rkdsearch.data.config import DataConfig
from rkdsearch.data.datasets import load_test, load_training
from rkdsearch.data.images import FloatImages, Images, to_layout
from rkdsearch.data.splits import Splits

__all__ = [
    "Batch",
    "Batches",
    "DataConfig",
    "FloatImages",
    "Images",
    "Splits",
    "load_test",
    "load_training",
    "to_layout",
]
