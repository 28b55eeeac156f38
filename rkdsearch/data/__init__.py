"""Data sets as bytes, their splits, and the batches of an epoch."""

from rkdsearch.data.batches import Batch, Batches
from rkdsearch.data.config import DataConfig
from rkdsearch.data.datasets import check_test, load_test, load_training, splits_of
from rkdsearch.data.images import FloatImages, Images, to_layout
from rkdsearch.data.splits import Splits
from rkdsearch.data.writing import write_images

__all__ = [
    "Batch",
    "Batches",
    "DataConfig",
    "FloatImages",
    "Images",
    "Splits",
    "check_test",
    "load_test",
    "load_training",
    "splits_of",
    "to_layout",
    "write_images",
]
