"""CIFAR, SVHN, MNIST and Fashion-MNIST, from the files that their authors publish.

CIFAR's binary version is read here: its records of bytes run no code. torchvision reads everything
else. It checks the md5 of CIFAR's pickles and of SVHN's matrices before it opens them, and
downloads where `data.download` allows it.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rkdsearch.data.config import DataConfig
from rkdsearch.data.images import Images
from rkdsearch.errors import DataError
from rkdsearch.file_lock import one_at_a_time
from rkdsearch.local_path import home_path

# name -> (folder, files to train on, files to test on, label bytes of a record, file of class
# names)
_CIFAR = {
    "cifar10": (
        "cifar-10-batches-bin",
        [f"data_batch_{i}.bin" for i in range(1, 6)],
        ["test_batch.bin"],
        1,
        "batches.meta.txt",
    ),
    "cifar100": ("cifar-100-binary", ["train.bin"], ["test.bin"], 2, "fine_label_names.txt"),
}
_CIFAR_SIZE = 32
_CLASSES = {"svhn": tuple("0123456789")}  # the file calls digit 0 class 10; torchvision calls it 0


def read_standard(config: DataConfig, split: Literal["train", "test"]) -> Images:
    """Official training or test images. Raises DataError where files are missing or damaged."""
    if config.root is None:
        raise DataError(
            f"data.root must name the folder of {config.name}'s files, got none; set it, with"
            " data.download: true if they are not there"
        )
    root = home_path(config.root)
    if config.name in _CIFAR:
        folder = root / _CIFAR[config.name][0]
        if folder.is_dir():
            return _read_cifar(folder, config.name, split)
    return _read_torchvision(root, config, split)


def _read_cifar(folder: Path, name: str, split: Literal["train", "test"]) -> Images:
    _, train, test, label_bytes, names = _CIFAR[name]
    record = label_bytes + 3 * _CIFAR_SIZE**2
    parts = []
    for path in (folder / file for file in (train if split == "train" else test)):
        if not path.is_file():
            raise DataError(
                f"{path}: the file is missing; unpack the binary version of {name} again"
            )
        content = np.fromfile(path, dtype=np.uint8)
        if not len(content) or len(content) % record:
            raise DataError(
                f"{path}: must hold whole records of {record} bytes, got {len(content)} bytes;"
                " unpack it again"
            )
        parts.append(content.reshape(-1, record))
    if not (folder / names).is_file():
        raise DataError(
            f"{folder / names}: the file of class names is missing; unpack the binary version of"
            f" {name} again"
        )
    records = np.concatenate(parts)
    pixels = records[:, label_bytes:].reshape(-1, 3, _CIFAR_SIZE, _CIFAR_SIZE).transpose(0, 2, 3, 1)
    # CIFAR-100: coarse label first, fine label second
    labels = records[:, label_bytes - 1].astype(np.int64)
    classes = tuple((folder / names).read_text().split())
    return Images(
        torch.from_numpy(np.ascontiguousarray(pixels)),
        torch.from_numpy(labels),
        255.0,
        classes,
        name,
        split,
    )


def _read_torchvision(root: Path, config: DataConfig, split: Literal["train", "test"]) -> Images:
    from torchvision import datasets

    training = split == "train"
    builders: dict[str, tuple[Any, dict[str, Any]]] = {
        "cifar10": (datasets.CIFAR10, {"train": training}),
        "cifar100": (datasets.CIFAR100, {"train": training}),
        "svhn": (datasets.SVHN, {"split": split}),
        "mnist": (datasets.MNIST, {"train": training}),
        "fashion_mnist": (datasets.FashionMNIST, {"train": training}),
    }
    build, which = builders[config.name]
    try:
        # torchvision reports everything from a missing file to a dead network as one of these.
        if config.download:
            root.mkdir(parents=True, exist_ok=True)
            # torchvision writes under the final names: another process could read a partial file.
            with one_at_a_time(root):
                found = build(root, download=True, **which)
        else:
            found = build(root, download=False, **which)
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError) as error:
        looked_for = (
            f"{root / _CIFAR[config.name][0]} (binary) and for " if config.name in _CIFAR else ""
        )
        # the sentence below names our own option
        reason = str(error).replace(" You can use download=True to download it", "")
        raise DataError(
            f"{root}: no sound copy of {config.name}; looked for {looked_for}torchvision's files:"
            f" {reason} (set data.root to the folder that holds them, or data.download: true)"
        ) from error
    pixels = torch.as_tensor(found.data)
    if config.name == "svhn":
        pixels = pixels.permute(0, 2, 3, 1).contiguous()
    labels = torch.as_tensor(
        found.labels if config.name == "svhn" else found.targets, dtype=torch.int64
    )
    classes = tuple(_CLASSES.get(config.name) or found.classes)
    return Images(
        pixels if pixels.ndim == 4 else pixels[..., None],
        labels,
        255.0,
        classes,
        config.name,
        split,
    )
