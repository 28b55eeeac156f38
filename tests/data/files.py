"""Tiny data sets in the formats of the real ones, so that every reader runs on real files."""

import gzip
import hashlib
import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

Bytes = NDArray[np.uint8]


def pictures(count: int, size: int | tuple[int, int], channels: int, seed: int = 0) -> Bytes:
    """(count, height, width, channels) of noise; `size` is both, or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed).integers(
        256, size=(count, height, width, channels), dtype=np.uint8
    )


def png(pixels: Bytes) -> bytes:
    """An image (H, W, C) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()


def write_parquet(
    path: Path,
    images: list[bytes | None],
    labels: list[int | None] | list[str],
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    **more: list[int],
) -> None:
    rows = pa.table(
        {
            columns[0]: pa.array(
                [{"bytes": image, "path": None} for image in images],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            columns[1]: pa.array(labels, None if isinstance((*labels, 0)[0], str) else pa.int64()),
            **more,
        }
    )
    if names is not None:
        features = {
            columns[0]: {"_type": "Image"},
            columns[1]: {"names": names, "_type": "ClassLabel"},
        }
        rows = rows.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(rows, path, row_group_size=3)


def write_folder(
    root: Path, counts: dict[str, int], size: int | tuple[int, int] = 8, channels: int = 3
) -> None:
    """Folders of PNG files; `counts`: {"train/cat": 5, ...}."""
    for seed, (place, count) in enumerate(counts.items()):
        (root / place).mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(pictures(count, size, channels, seed)):
            (root / place / f"{i:03}.png").write_bytes(png(pixels))


def write_cifar_binary(root: Path, name: str, per_file: int = 20) -> Bytes:
    """CIFAR's binary version, both parts; returns the training images (N, 32, 32, 3).

    Image i has label i % classes, and coarse label 0.
    """
    folder, train, test, names = {
        "cifar10": (
            "cifar-10-batches-bin",
            [f"data_batch_{i}.bin" for i in range(1, 6)],
            "test_batch.bin",
            "batches.meta.txt",
        ),
        "cifar100": ("cifar-100-binary", ["train.bin"], "test.bin", "fine_label_names.txt"),
    }[name]
    classes = 10 if name == "cifar10" else 100
    (root / folder).mkdir(parents=True)
    (root / folder / names).write_text("\n".join(f"class{k}" for k in range(classes)) + "\n\n")
    written = []
    for seed, file in enumerate([*train, test]):
        images = pictures(per_file, 32, 3, seed)
        records = b""
        for i, image in enumerate(images):
            label = bytes([i % classes]) if name == "cifar10" else bytes([0, i % classes])
            records += label + image.transpose(2, 0, 1).tobytes()
        (root / folder / file).write_bytes(records)
        written.append(images)
    return np.concatenate(written[:-1])


def write_cifar_pickles(root: Path, patch: Any) -> Bytes:
    """torchvision's form of CIFAR-10, with its md5 sums replaced by ours.

    Returns the training images.
    """
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: Any) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    images = pictures(40, 32, 3)
    flat = images.transpose(0, 3, 1, 2).reshape(40, -1)
    batch = {"data": flat, "labels": [i % 10 for i in range(40)]}
    patch.setattr(CIFAR10, "train_list", [["data_batch_1", write("data_batch_1", batch)]])
    patch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batch)]])
    names = {"label_names": [f"class{k}" for k in range(10)]}
    patch.setattr(
        CIFAR10,
        "meta",
        {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", names)},
    )
    return images


def write_mnist(root: Path, folder: str) -> Bytes:
    """The four IDX files of MNIST or FashionMNIST, beside gzip copies as torchvision leaves them.

    Returns the training images.
    """
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for seed, (part, count) in enumerate({"train": 40, "t10k": 20}.items()):
        images = pictures(count, 28, 1, seed)
        labels = bytes(i % 10 for i in range(count))
        for name, content in {
            f"{part}-images-idx3-ubyte": (
                struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
            ),
            f"{part}-labels-idx1-ubyte": struct.pack(">II", 0x801, count) + labels,
        }.items():
            (raw / name).write_bytes(content)
            (raw / f"{name}.gz").write_bytes(gzip.compress(content))
    return pictures(40, 28, 1, 0)


def write_svhn(root: Path, patch: Any) -> Bytes:
    """SVHN's two matrices, where digit 0 is class 10; returns the training images."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    root.mkdir(parents=True, exist_ok=True)
    sums = {}
    for split in ("train", "test"):
        file = root / f"{split}_32x32.mat"
        labels = np.array([[k or 10] for k in range(10)] * 4, dtype=np.uint8)
        savemat(file, {"X": pictures(40, 32, 3).transpose(1, 2, 3, 0), "y": labels})
        sums[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    patch.setattr(SVHN, "split_list", sums)
    return pictures(40, 32, 3)
