"""Flags that are raised on sound networks, by the number of images that are looked at.

Sound networks of six forms on digits, natural and adversarially trained, each from several seeds:
trained on 600 images, checked on 1,000 others under the validation attack (margin, 10 steps). Each
check is made image by image, so that the 1,000 images are cut into sets of 20, 40, 150, 200 and
1,000: a rate is of so many sets. Networks that give nearly all images one class are left out: that
flag is the truth about them.

    python analysis/benchmarks/false_alarms.py [--seeds 10] [--rows FILE]

With `--rows` the finished networks are kept in a file, and the same command goes on behind them.
Cost: about three seconds of one CPU core a network.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import masked_networks as networks
import sound_networks
import torch
import turns
from torch import Tensor, nn

from rkdsearch import config as run
from rkdsearch import data, models
from rkdsearch.attacks import Ball, Linf, MarginAttack
from rkdsearch.flags import ImageChecks, check
from rkdsearch.models import ModelConfig
from rkdsearch.results.flags import COUNTS, Flag, raised

SIZES = (20, 40, 150, 200, 1000)
TRAINING, CHECKED, AT_ONCE = 600, 1000, 250
FORMS = ("linear", "mlp 8", "mlp 64", "small_cnn 2", "small_cnn 8", "BatchNorm")
BALLS: Mapping[str, Ball | None] = {"natural": None, "robust": Linf(0.1)}


def images(seed: int) -> tuple[networks.Digits, Tensor, Tensor]:
    """Training images, and the images to check, in an order of this seed."""
    settings = {"name": "digits", "validation_fraction": 0.01, "test_fraction": 0.01}
    splits = data.load_training(run.build({"method": {"name": "natural"}, "data": settings}).data)
    x, y = splits.train.floats()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    x, y = x[order].contiguous(), y[order]
    rest = slice(TRAINING, TRAINING + CHECKED)
    assert len(y) >= TRAINING + CHECKED
    digits = networks.Digits(x[:TRAINING], y[:TRAINING], x[rest], y[rest], splits.train.task)
    return digits, x[rest], y[rest]


def build(form: str, digits: networks.Digits) -> nn.Module:
    """An untrained network of this form."""
    name, _, width = form.partition(" ")
    if form == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    if form == "BatchNorm":
        return sound_networks.Normalised()
    return models.build(ModelConfig(name=name, width=int(width)), digits.task)


def results(form: str, training: str, seed: int) -> dict[str, Any]:
    """The checks of one network, image by image, as lists; None for a missing column."""
    torch.manual_seed(seed)
    digits, x, y = images(seed)
    network = networks.trained(build(form, digits), digits, epochs=12, ball=BALLS[training])
    attack = MarginAttack(Linf(0.1), 10)
    parts = [
        check(network, x[first : first + AT_ONCE], y[first : first + AT_ONCE], attack, seed=seed)
        for first in range(0, CHECKED, AT_ONCE)
    ]
    whole = ImageChecks.joined(parts)
    return {f.name: getattr(whole, f.name).tolist() for f in fields(whole)}


def read(found: Mapping[str, Any]) -> ImageChecks:
    """The checks from their lists."""
    return ImageChecks(**{name: torch.tensor(values) for name, values in found.items()})


def sets(whole: ImageChecks, size: int) -> Iterator[ImageChecks]:
    """The images in sets of this size."""
    for first in range(0, CHECKED - size + 1, size):
        part = slice(first, first + size)
        yield replace(whole, **{f.name: getattr(whole, f.name)[part] for f in fields(whole)})


def networks_of(file: Path | None, seeds: int) -> Iterator[tuple[str, ImageChecks]]:
    """Each network's name and checks, from the file where it has them."""
    lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
    known = {row["name"]: row["checks"] for row in map(json.loads, lines)}
    for seed, form, training in product(range(seeds), FORMS, BALLS):
        name = f"{form}, {training}, {seed}"
        if name not in known:
            known[name] = results(form, training, seed)
            if file is not None:
                with file.open("a", encoding="utf-8") as rows:
                    rows.write(json.dumps({"name": name, "checks": known[name]}) + "\n")
        yield name, read(known[name])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=Path, help="file of finished networks, JSON lines")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(turns.head())
    alarms = {size: Counter[Flag]() for size in SIZES}
    any_flag, looked, largest = Counter[int](), Counter[int](), dict.fromkeys(COUNTS, 0.0)
    left_out = []
    for name, whole in networks_of(arguments.rows, arguments.seeds):
        counts = whole.counts
        if Flag.ONE_CLASS in raised(counts):
            left_out.append(name)
            continue
        for flag, column in COUNTS.items():
            share = (getattr(counts, column) or 0) / counts.images
            largest[flag] = max(largest[flag], share)
        for size in SIZES:
            for part in sets(whole, size):
                found = raised(part.counts)
                looked[size] += 1
                any_flag[size] += bool(found)
                alarms[size].update(found)
    print(f"networks left out, which give one class: {', '.join(left_out) or 'none'}\n")
    print(f"| flag | largest share | {' | '.join(f'n = {size}' for size in SIZES)} |")
    print(f"|---|---|{'---|' * len(SIZES)}")
    for flag in COUNTS:
        cells = " | ".join(str(alarms[size][flag]) for size in SIZES)
        print(f"| {flag} | {largest[flag]:.3f} | {cells} |")
    print(f"| any | | {' | '.join(f'{any_flag[s]} of {looked[s]}' for s in SIZES)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
