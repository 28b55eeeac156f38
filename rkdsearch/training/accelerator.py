"""Processes and device of a run, through Accelerate."""

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState

from rkdsearch.accuracy import allow_tf32
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError

_SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")  # of ACCELERATE_USE_...
# Variables in which Accelerate looks for the number of processes.
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

# Set by launchers that show each process one device only: it cannot know then whether others share
# it. `1`: shared, which NCCL refuses; `0`: its own.
SHARED_DEVICE = "RKDSEARCH_SHARED_DEVICE"


def accelerator_for(config: TrainConfig) -> Accelerator:
    """Processes and device, from the launcher's environment and `training.device`.

    All other settings come from the config alone.

    Raises ConfigError where the launcher shards one network or promises processes that it has not
    started, or where the config asks for a precision that the device lacks.
    """
    for variable in (f"ACCELERATE_USE_{name}" for name in _SHARDING):
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ConfigError(
                f"{variable} must not be set, got {os.environ[variable]!r}: each process holds the"
                " whole student here; choose plain data parallelism in the launcher (`accelerate"
                " launch --multi_gpu`, or torchrun)"
            )
    # `accelerate launch --num_processes 2` sets these variables where it finds no GPUs: the
    # address of a group, but no second process.
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
    distributed: list[DistributedDataParallelKwargs | InitProcessGroupKwargs] = [
        DistributedDataParallelKwargs(
            broadcast_buffers=False, find_unused_parameters=config.method.may_skip_parameters
        )
    ]
    if not on_cpu and _share_a_device():
        distributed.append(InitProcessGroupKwargs(backend="gloo"))
    accelerator = Accelerator(
        cpu=on_cpu,
        # the objective's own forward passes apply half precision where the config asks for it
        mixed_precision="no",
        # where the config asks to compile, the student is compiled and not the whole objective
        dynamo_backend="no",
        kwargs_handlers=distributed,
    )
    if config.training.precision == "tf32" and accelerator.device.type != "cuda":
        raise ConfigError(
            "training.precision must be fp32, bf16 or fp64 on a CPU, got 'tf32': only GPUs"
            " multiply so"
        )
    allow_tf32(allowed=config.training.precision == "tf32")
    # A launcher's variable would divide the loss; parts of a batch are the config's to set.
    accelerator.gradient_accumulation_steps = 1
    return accelerator


def _share_a_device() -> bool:
    """True where several processes of this run use one GPU."""
    told = os.environ.get(SHARED_DEVICE)
    if told is not None:
        return told == "1"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return torch.cuda.is_available() and here > torch.cuda.device_count()
