"""Runs keep to their device: nothing on the default one by accident, no wait inside a step."""

import json
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from sklearn.datasets import load_digits
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from rkdsearch import config as configs
from rkdsearch import flags, methods
from rkdsearch.data import Batch, Batches, write_images
from rkdsearch.training.accelerator import SHARED_DEVICE, accelerator_for
from rkdsearch.training.all_gather import reset_group
from rkdsearch.training.teacher import measure
from rkdsearch.training.trainer import Trainer
from tests.training import pretended
from tests.training.runs import TINY, described, server, train

PLAIN: dict[str, Any] = {
    "data": {"train_images": 50, "augment": "crop_flip"},
    "optimizer": {"gradient_clip": 1.0},
    "validation": {"images": 10},
    **TINY,
}
# Each on one method: every operation costs the pretended device ten times what it costs a CPU.
ALSO: dict[str, Any] = {
    "natural": {"averaging": {"name": "ema"}},
    "kd": {
        "averaging": {"name": "swa"},
        "optimizer": {"name": "adamw"},
        "data": {"augment": "none"},
    },
    "trades": {"training": {"microbatches": 2}},
}


# One of each kind: plain, a second network, a peer's memory, a projector, a schedule of its own.
FEW = ("rslad", "ciard", "bmtard", "ardir", "natural")


def runs_on_the_first_of_two_pretended_devices(
    folder: Path, teachers: Path, chosen: Sequence[str]
) -> None:
    """These methods there and on the CPU, into `found.json`; the second device is the default."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    devices = pretended.begin()
    plain_epoch = Batches.epoch

    def watched(batches: Batches, epoch: int) -> Iterator[Batch]:
        running = plain_epoch(batches, epoch)
        yield next(running)  # what an epoch draws is sent to the device with it, all at once
        with devices.watched():
            yield from running

    Batches.epoch = watched  # type: ignore[method-assign]
    flags.QUERIES = 4  # of the short Square behind flags: each costs the pretended device a lot
    found: dict[str, Any] = {}
    for method in chosen:
        training = {"training": {"precision": "fp64", "epochs": 1}}
        config = configs.merge(configs.merge(PLAIN, training), ALSO.get(method, {}))
        there: list[float] | str
        here = train(described(teachers, method, **config))
        devices.waits.clear()
        try:
            with devices:
                on_device = configs.merge(config, {"training": {"device": "auto"}})
                run = train(described(teachers, method, **on_device))
            there = [run.history[0].loss, run.history[0].robust_accuracy or 0.0]
        except Exception:  # noqa: BLE001 - the parent tells it
            there = traceback.format_exc(limit=-4)
        found[method] = {
            "there": there,
            "here": [here.history[0].loss, here.history[0].robust_accuracy],
            "waits": sorted(set(devices.waits)),
        }
    # What no run may do: the law can be broken.
    found["broken"] = []
    with devices:
        mine = torch.zeros(2, device="pretended:0")
        for wrong in (
            lambda: mine + torch.zeros(2, device="pretended"),
            lambda: mine + torch.zeros(2),
            lambda: torch.stack([mine, torch.zeros(2)]),
            lambda: torch.rand(2, generator=torch.Generator(), device="pretended:0"),
        ):
            try:
                wrong()
            except AssertionError as error:
                found["broken"].append(str(error))
        devices.waits.clear()
        with devices.watched():
            mine.sum().item()
            mine[mine > 0]
            mine[torch.tensor([1])]
            mine.cpu()
            torch.zeros(2).to("pretended:0")
            torch.tensor(0.5).to("pretended:0")
            torch.zeros(2).to("pretended:0", non_blocking=True)
            mine.sum().sqrt()
    found["waits of what no step may do"] = devices.waits
    (folder / "found.json").write_text(json.dumps(found))


def in_a_process(folder: Path, teachers: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """What these methods did on a pretended device."""
    child = server().Process(
        target=runs_on_the_first_of_two_pretended_devices, args=(folder, teachers, chosen)
    )
    child.start()
    child.join(250)
    assert child.exitcode == 0
    answer: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return answer


@pytest.fixture(scope="module")
def found(teachers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_a_process(tmp_path_factory.mktemp("few"), teachers, FEW)


@pytest.fixture(scope="module")
def rest(teachers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    chosen = [method for method in methods.names() if method not in FEW]
    return in_a_process(tmp_path_factory.mktemp("rest"), teachers, chosen)


@pytest.mark.timeout(300)  # the first waits for all of them, on a machine that may be busy
@pytest.mark.parametrize("method", FEW)
def test_a_run_keeps_to_its_device_and_no_step_waits_for_it(
    found: dict[str, Any], method: str
) -> None:
    keeps_to_its_device(found[method])


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", [name for name in methods.names() if name not in FEW])
def test_so_does_every_other_method(rest: dict[str, Any], method: str) -> None:
    keeps_to_its_device(rest[method])


def keeps_to_its_device(run: dict[str, Any]) -> None:
    assert run["there"] == pytest.approx(run["here"], abs=1e-9), run["there"]
    assert run["waits"] == []


def test_the_pretended_device_tells_what_a_gpu_would(found: dict[str, Any]) -> None:
    assert [error.split(" meets ")[1] for error in found["broken"]] == [
        "tensors of ['pretended:0', 'pretended:1']",
        "tensors of ['cpu', 'pretended:0']",
        "tensors of ['cpu', 'pretended:0']",
        "a generator of cpu on pretended:0",
    ]
    assert found["waits of what no step may do"] == [
        "aten._local_scalar_dense.default: a number",
        "aten.index.Tensor: a shape",
        "aten.index.Tensor: from the host",
        "aten._to_copy.default: to the host",
        "aten._to_copy.default: from the host",
        "aten._to_copy.default: from the host",
    ]


@pytest.mark.parametrize(
    ("rank", "devices", "expected"),
    [(0, 2, "cuda:0"), (1, 2, "cuda:1"), (3, 2, "cuda:1"), (1, 1, "cuda:0")],
    # the last: Ray shows each process one device, or two processes share it
)
def test_a_process_takes_the_device_of_its_local_rank(
    teachers: Path, monkeypatch: pytest.MonkeyPatch, rank: int, devices: int, expected: str
) -> None:
    chosen: list[str] = []
    pretend_gpus(monkeypatch, devices, rank, 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    distributed.init_process_group("fake", rank=rank, world_size=4, store=FakeStore())
    try:
        run = described(teachers, training={"device": "auto"})
        assert str(accelerator_for(run).device) == expected
        assert chosen == [expected]
    finally:
        reset_group()


@pytest.mark.parametrize(
    ("processes", "devices", "told", "backend"),
    [
        (2, 2, None, "nccl"),
        (2, 1, None, "gloo"),  # torchrun with more processes than GPUs
        (2, 1, "0", "nccl"),  # Ray: each process sees its own GPU as the only one
        (2, 1, "1", "gloo"),  # Ray: half a GPU each
    ],
)
def test_processes_that_share_a_gpu_talk_by_gloo_because_nccl_refuses(
    teachers: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    devices: int,
    told: str | None,
    backend: str,
) -> None:
    asked: list[str] = []

    def form(backend: str, **_: Any) -> None:
        asked.append(backend)
        begin("fake", rank=0, world_size=processes, store=FakeStore())

    begin = distributed.init_process_group
    pretend_gpus(monkeypatch, devices, 0, processes)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(distributed, "init_process_group", form)
    if told is not None:
        monkeypatch.setenv(SHARED_DEVICE, told)
    try:
        accelerator_for(described(teachers, training={"device": "auto"}))
        assert asked == [backend]
    finally:
        reset_group()


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, devices: int, rank: int, processes: int) -> None:
    """A launcher's process on a machine that says it has GPUs."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr("accelerate.state.check_cuda_p2p_ib_support", lambda: True)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, str(rank))
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, str(processes))


def mapped_images_on_a_pretended_device(folder: Path) -> None:
    """A run and the measurement of its network as a teacher, on images that are a mapped file."""
    torch.set_num_threads(1)
    flags.QUERIES = 2
    pixels, labels = load_digits(return_X_y=True)
    images = (15 * pixels[:150]).astype(np.uint8).reshape(-1, 8, 8)
    name = write_images(folder / "images", (images, labels[:150]))
    mapped = {"name": name, "memory_gib": 1e-9, "cache": str(folder)}
    values = {
        "method": {"name": "natural"},
        "student": {"name": "mlp", "width": 8},
        "validation": {"attack": {"steps": 1}},
        "training": {"epochs": 1, "device": "auto", "precision": "fp64"},
    }
    import_module("torch.distributed.tensor")  # it cannot be imported while a device is pretended
    devices, found = pretended.begin(), dict[str, Any]()
    for case, own in {"mapped": mapped, "in memory": {"name": name}}.items():
        teacher = {"network": values["student"], "path": str(folder / case / "best.safetensors")}
        config = configs.build({**values, "data": own, "teachers": {"robust": teacher}})
        with devices:
            trainer = Trainer(config, folder / case)
            (epoch,) = trainer.epochs()
            assert trainer.splits.validation.mapped == (case == "mapped")
            measured = measure(config.teachers.of("robust"), config)
        found[case] = [epoch.clean_accuracy, asdict(epoch.checks), measured.clean_accuracy]
        found[case] += [measured.checks is not None]
    (folder / "found.json").write_text(json.dumps(found))


def test_a_mapped_file_of_images_is_read_on_the_cpu_and_used_on_the_device(tmp_path: Path) -> None:
    """The check of the last epoch, and every measurement of a teacher, ended with an error."""
    child = server().Process(target=mapped_images_on_a_pretended_device, args=(tmp_path,))
    child.start()
    child.join(250)
    assert child.exitcode == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["mapped"] == found["in memory"]
