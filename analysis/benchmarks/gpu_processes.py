"""Parts of `gpu_check.py` that take several processes: trials on one device, and one run in two."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import gpu_measures as measures
import torch
from gpu_measures import SMALL, Place, Row
from sides import Ours, Workload

from rkdsearch.training.accelerator import SHARED_DEVICE

SCRIPT = Path(__file__).with_name("gpu_parts.py")


def sharing(place: Place) -> Iterator[Row]:
    """Small trials side by side on one device, as the search places them: images/s in all."""
    alone = None
    for count in (1, 2) if place.tiny else (1, 2, 4, 8):
        if place.left < 0:
            yield {"outcome": "the rest was not reached"}
            return
        here = place.folder / f"sharing-{count}"
        here.mkdir()
        seconds = 0.2 if place.tiny else 4.0
        trials = [
            _child("trial", place, here / f"{rank}.json", seconds, {"OMP_NUM_THREADS": "1"})
            for rank in range(count)
        ]
        ready = [here / f"{rank}.json.ready" for rank in range(count)]
        while not all(path.exists() for path in ready):
            if any(trial.poll() for trial in trials):
                break
            time.sleep(0.02)
        (here / "go").touch()
        codes = [trial.wait() for trial in trials]
        if any(codes):
            raise ChildProcessError(f"{count} trials: exit codes {codes}")
        total = sum(
            json.loads((here / f"{rank}.json").read_text())[0]["images_per_second"]
            for rank in range(count)
        )
        alone = alone or total
        yield {"trials": count, "images_per_second": total, "of_one": total / alone}


def trial(place: Place, result: Path) -> Iterator[Row]:
    """One of the small trials of `sharing`: RSLAD on a small CNN, batch 128, 8x8 or 32x32."""
    size = 8 if place.tiny else 32
    work = Workload("rslad", SMALL, SMALL, device=place.device, size=size)
    side = Ours(work)
    for _ in range(1 if place.tiny else 10):
        side.step()
    measures.synchronise(place.device)
    Path(f"{result}.ready").touch()
    while not (result.parent / "go").exists():
        time.sleep(0.005)
    steps_done, started = 0, time.perf_counter()
    while time.perf_counter() - started < place.seconds:
        side.step()
        steps_done += 1
    measures.synchronise(place.device)
    yield {"images_per_second": steps_done * work.batch / (time.perf_counter() - started)}


def gang(place: Place) -> Iterator[Row]:
    """Two processes against one: the same batches in float64, so the same losses and weights."""
    measures.image_folder(place.folder / "images", per_class=6)
    alone = place.folder / "alone.json"
    if _child("member", place, alone, place.left).wait():
        raise ChildProcessError("the process alone failed")
    ways = [("gloo, one device", "1")]
    if place.device != "cpu" and torch.cuda.device_count() > 1:
        ways.append(("nccl, two devices", "0"))
    for name, shared in ways:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        files = [place.folder / f"{shared}-{rank}.json" for rank in range(2)]
        members = [
            _child(
                "member",
                place,
                file,
                place.left,
                {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": "2",
                    "LOCAL_WORLD_SIZE": "2",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    SHARED_DEVICE: shared,
                },
            )
            for rank, file in enumerate(files)
        ]
        codes = [member.wait() for member in members]
        if any(codes):
            raise ChildProcessError(f"{name}: exit codes {codes}")
        yield {
            "processes": name,
            "devices": [json.loads(file.read_text())[0]["device"] for file in files],
            **measures.difference(alone, files[0]),
        }


def member(place: Place, result: Path) -> Iterator[Row]:
    """One process of a run, or the run alone: its losses, and its weights beside the result."""
    from safetensors.torch import save_file

    from rkdsearch.training.all_gather import reset_group
    from rkdsearch.training.trainer import Trainer

    device = "cpu" if place.device == "cpu" else "auto"
    trainer = Trainer(
        measures.described(
            result.parent,
            "rslad",
            f"folder:{result.parent / 'images'}",
            student=SMALL,
            teacher=SMALL,
            training={"precision": "fp64", "batch_size": 8, "device": device},
        )
    )
    losses = [epoch.loss for epoch in trainer.epochs()]
    weights = {k: v.detach().cpu().contiguous() for k, v in trainer.student.state_dict().items()}
    save_file(weights, f"{result}.safetensors")
    yield {"losses": losses, "device": str(trainer.device), "processes": trainer.processes}
    reset_group()


def _child(
    part: str,
    place: Place,
    result: Path,
    seconds: float,
    variables: Mapping[str, str] = {},
) -> subprocess.Popen[bytes]:
    """A part of ours in another process. Its errors go where ours do."""
    command = [
        sys.executable,
        str(SCRIPT),
        part,
        "--result",
        str(result),
        "--seconds",
        str(seconds),
    ]
    command += ["--folder", str(result.parent), *(["--tiny"] if place.tiny else [])]
    return subprocess.Popen(command, env={**os.environ, **variables})  # noqa: S603 - this script


CHILDREN: Mapping[str, Callable[[Place, Path], Iterator[Row]]] = {"trial": trial, "member": member}
