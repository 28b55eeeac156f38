"""Speed of batches: ours, torchvision's transforms, and the lower bound of any loader.

CIFAR-shaped noise (N, 32, 32, 3), crop and flip, float32 batches out. Sides, measured in turns
within each repeat:

floor        gather the bytes of a batch and make floats of them: no crop, no flip
ours         `rkdsearch.data.Batches`, the whole epoch's generator, gather, crop, flip and floats
torchvision  v2 transforms image by image, in the process itself: uint8 tensors in
pillow       the same from Pillow images, as the published scripts have it

    python analysis/benchmarks/data.py [--quick] [--device cuda] [--threads 1]
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from rkdsearch.data import Batches, Images
from rkdsearch.data.images import to_floats


def floor(images: Images, batch_size: int, device: str) -> Iterator[Tensor]:
    """Shuffled floats, unchanged."""
    pixels = images.pixels.to(device)
    for rows in in_random_order(len(images), batch_size):
        yield to_floats(pixels.index_select(0, rows.to(device)), images.scale)


def ours(images: Images, batch_size: int, device: str) -> Iterator[Tensor]:
    """One epoch of the library."""
    for batch in Batches(
        images, batch_size=batch_size, seed=0, augment="crop_flip", device=device
    ).epoch(0):
        yield batch.x


def torchvision(items: Sequence[Any], size: int, batch_size: int, device: str) -> Iterator[Tensor]:
    """An epoch of per-image transforms of tensors or Pillow images, moved to `device`."""
    from torchvision.transforms import v2

    augment = [v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()]
    transform = v2.Compose([*augment, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    for rows in in_random_order(len(items), batch_size):
        yield torch.stack([transform(items[int(row)]) for row in rows]).to(device)


def in_random_order(count: int, batch_size: int) -> Sequence[Tensor]:
    """Rows of each batch of an epoch."""
    order = torch.randperm(count)
    return [order[first : first + batch_size] for first in range(0, count, batch_size)]


def images_per_second(epoch: Callable[[], Iterator[Tensor]], count: int, device: str) -> float:
    """Images a second over one epoch of `count` images."""
    begin = time.perf_counter()
    for _ in epoch():
        pass
    if device == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - begin)


def main() -> None:
    """Measure, and print ratios."""
    from PIL import Image

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    repeats, many, few = (3, 10_000, 1_000) if arguments.quick else (9, 50_000, 4_000)
    pixels = torch.randint(256, (many, 32, 32, 3), dtype=torch.uint8)
    images = Images(
        pixels, torch.zeros(many, dtype=torch.int64), 255.0, ("noise",), "noise", "train"
    )
    tensors = list(images.pixels[:few].permute(0, 3, 1, 2).contiguous())
    pictures = [Image.fromarray(picture.numpy()) for picture in images.pixels[:few]]
    size, device = arguments.batch_size, arguments.device
    sides: dict[str, tuple[Callable[[], Iterator[Tensor]], int]] = {
        "floor": (lambda: floor(images, size, device), many),
        "ours": (lambda: ours(images, size, device), many),
        "torchvision": (lambda: torchvision(tensors, images.task.height, size, device), few),
        "pillow": (lambda: torchvision(pictures, images.task.height, size, device), few),
    }
    for epoch, count in sides.values():
        images_per_second(epoch, count, device)
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, (epoch, count) in sides.items():
            measured[name].append(images_per_second(epoch, count, device))

    where = f"{device} ({platform.machine()}), {arguments.threads} threads"
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, torchvision"
        f" {version('torchvision')}, {where}"
    )
    print(
        f"batches of {size}, {repeats} repeats in turns, {many:,} images an epoch ({few:,} image by"
        " image); median [min, max]"
    )
    for name, speeds in measured.items():
        print(
            f"{name:12} {statistics.median(speeds):>12,.0f} [{min(speeds):,.0f},"
            f" {max(speeds):,.0f}] images/s"
        )
    for name in ("floor", "torchvision", "pillow"):
        ratios = [a / b for a, b in zip(measured["ours"], measured[name], strict=True)]
        print(
            f"ours / {name:12} x{statistics.median(ratios):.2f} [{min(ratios):.2f},"
            f" {max(ratios):.2f}]"
        )


if __name__ == "__main__":
    main()
