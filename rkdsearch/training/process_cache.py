"""What a process keeps from one run to the next: Accelerate's state, the teachers, and their answers to images that come back unchanged."""

import os
from functools import lru_cache
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from rkdsearch import data, models
from rkdsearch.accuracy import allow_tf32, compute_in_parts
from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import ConfigError
from rkdsearch.pace import Pace
from rkdsearch.task import ImageTask
from rkdsearch.teacher import load as load_teacher

# Of the weights; half precision is autocast's, and TF32 a way to multiply.
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.float32,
    "fp64": torch.float64,
}
_SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")  # of ACCELERATE_USE_...
# Where Accelerate looks for how many processes there are.
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def accelerator_for(config: TrainConfig) -> Accelerator:
    """Processes and device, as the launcher's environment and `training.device` have it; all else is the config's alone to say.

    Raises ConfigError where the launcher asks to share out one network or promises processes that
    it has not started, or the config asks for what the device has not.
    """
    for variable in (f"ACCELERATE_USE_{name}" for name in _SHARDING):
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ConfigError(
                f"{variable} must not be set, got {os.environ[variable]!r}: each process holds the"
                " whole student here; choose plain data parallelism in the launcher (`accelerate"
                " launch --multi_gpu`, or torchrun)"
            )
    # What `accelerate launch --num_processes 2` leaves behind where it finds no GPUs: a place to
    # meet, and nobody else who comes.
    if (
        "MASTER_ADDR" in os.environ
        and "ACCELERATE_USE_CPU" in os.environ
        and not any(name in os.environ for name in _COUNTS)
    ):
        raise ConfigError(
            "`accelerate launch` must start the processes that it announces, got MASTER_ADDR"
            " without WORLD_SIZE: on CPUs it starts one, whatever --num_processes says; use"
            " `torchrun --nproc-per-node 2 -m rkdsearch ...`, or --num_processes 1 and no"
            " MASTER_ADDR"
        )
    on_cpu = config.training.device == "cpu"
    # Accelerate keeps the first run's device for the whole process, silently, and has no public way
    # to ask for it or to forget it.
    known = AcceleratorState._shared_state  # noqa: SLF001
    if known and known.get("num_processes", 1) == 1 and bool(known.get("_cpu")) != on_cpu:
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
    accelerator = Accelerator(
        cpu=on_cpu,
        # where the config asks for half precision, the objective's own forwards have it
        mixed_precision="no",
        # where the config asks to compile, the student is compiled and not the whole objective
        dynamo_backend="no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                broadcast_buffers=False, find_unused_parameters=config.method.may_skip_parameters
            )
        ],
    )
    if config.training.precision == "tf32" and accelerator.device.type != "cuda":
        raise ConfigError(
            "training.precision must be fp32, bf16 or fp64 on a CPU, got 'tf32': only GPUs"
            " multiply so"
        )
    allow_tf32(allowed=config.training.precision == "tf32")
    # a launcher's variable would divide the loss; microbatches are the config's business
    accelerator.gradient_accumulation_steps = 1
    return accelerator


@lru_cache(maxsize=4)
def frozen_teacher(
    config: TeacherConfig,
    version: tuple[int, int],  # noqa: ARG001 - part of the key: a file that was replaced is another teacher
    task: ImageTask,
    precision: str,
    device: str,
    channels_last: bool,
) -> nn.Module:
    """The teacher folded, to answer only: the same one for every run that asks for this file in this form."""
    network = loaded_teacher(config, task, precision, device)
    if channels_last:
        models.check_channels_last(config.network, network, task)
    network = models.fold(network)
    # A copy of its own for each layout: `to` works in place, and the next run may have asked for
    # the other one.
    return network.to(memory_format=torch.channels_last) if channels_last else network


def loaded_teacher(
    config: TeacherConfig, task: ImageTask, precision: str, device: str
) -> nn.Module:
    """The teacher as its file has it, with its BatchNorm, read anew."""
    assert config.path is not None
    network = load_teacher(
        Path(config.path),
        config.network,
        task,
        sha256=config.sha256,
    )
    return network.to(device, DTYPES[precision])


def version_of(path: Path) -> tuple[int, int]:
    """When the file was last written (nanoseconds) and its size (bytes); zeros where there is none, which the loader says better."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


# the network is kept, so that no other gets its id
_known_answers: dict[tuple[object, ...], tuple[nn.Module, Tensor]] = {}


def answers_of(
    network: nn.Module, key: tuple[object, ...], images: data.Images, channels_last: bool
) -> Tensor:
    """A teacher's logits (N, K) for all of these images, which `key` names; computed once, in parts that the device can hold.

    In the precision of its weights, also where training asks under autocast: half precision saves
    time once, and these stay. Raises OutOfMemoryError where one image is too many.
    """
    key = (id(network), *key)
    if key not in _known_answers:
        if len(_known_answers) >= 4:
            _known_answers.clear()
        weight = next(network.parameters())

        pace = Pace("a teacher's answers: {} images", len(images))

        def answered(part: slice) -> tuple[Tensor]:
            pace.at(part.start)
            x, _ = images.floats(part, device=weight.device)
            return (network(data.to_layout(x.to(weight.dtype), channels_last=channels_last)),)

        (answers,), _ = compute_in_parts(
            answered, len(images), 500, place="a teacher's answers to the training images"
        )
        _known_answers[key] = (network, answers)
    return _known_answers[key][1]
