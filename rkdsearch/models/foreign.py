"""Foreign networks: torchvision's and timm's by name, the user's by dotted path.

Their stems and parameter names stay unchanged.
"""

import copy
import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rkdsearch.errors import ConfigError, did_you_mean, is_out_of_memory, of_users_code
from rkdsearch.plugins import load_module
from rkdsearch.task import ImageTask

_PLACE = "network name"


def is_foreign(name: str) -> bool:
    """True for a network of a library: `torchvision:NAME` or `timm:NAME`."""
    return name.partition(":")[0] in _LIBRARIES and ":" in name


def build(name: str, task: ImageTask) -> nn.Module:
    """A network with fresh weights, tried on black images.

    Raises ConfigError where there is no such network, or it does not fit the task.
    """
    library, colon, inner = name.partition(":")
    network = (
        _LIBRARIES[library](inner, task.classes, task.channels) if colon else _users(name, task)
    )
    _try(network, name, task)
    return network


def _torchvision(name: str, classes: int, channels: int) -> nn.Module:
    from torchvision import models  # imported where used: the import takes seconds

    _check(name, models.list_models(module=models), "torchvision")
    if channels != 3:
        raise ConfigError(
            f"{_PLACE}: torchvision's networks see 3 channels, the images have {channels}; choose"
            f" a built-in network, {_timms(name)}or images in colour (data.channels: 3 of a folder"
            " or Parquet set)"
        )
    return cast(nn.Module, models.get_model(name, weights=None, num_classes=classes))


def _timms(name: str) -> str:
    """`timm:NAME, ` where timm is installed and has a network of this name."""
    try:
        import timm
    except ModuleNotFoundError:
        return ""
    return f"timm:{name}, " if name in timm.list_models() else ""


def _timm(name: str, classes: int, channels: int) -> nn.Module:
    try:
        import timm  # an optional extra
    except ModuleNotFoundError:
        raise ConfigError(
            f"{_PLACE}: timm:{name} needs the package timm; install rkdsearch[models]"
        ) from None
    # The name must be in the list: timm also takes names whose weights it would download.
    _check(name, timm.list_models(), "timm")
    return cast(
        nn.Module, timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
    )


_LIBRARIES: Mapping[str, Callable[[str, int, int], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
}


def _check(name: str, known: Iterable[str], library: str) -> None:
    known = list(known)
    if name not in known:
        hint = did_you_mean(
            name,
            known,
            f"its {len(known)} names begin with {', '.join(known[:3])}",
            prefix=f"{library}:",
        )
        raise ConfigError(f"{_PLACE}: {library} has no network '{name}'; {hint}")


def _users(name: str, task: ImageTask) -> nn.Module:
    """Call the user's class or function with what it names of the task.

    `classes`, `channels`, `height` and `width`; `size`, where images are square, is both. Arguments
    in `**kwargs` are given as classes, channels, and size or height and width.
    """
    sides = {"height": task.height, "width": task.width}
    square = {"size": task.height} if task.height == task.width else {}
    known = {"classes": task.classes, "channels": task.channels, **sides, **square}
    module_name, _, attribute = name.rpartition(".")
    maker = vars(load_module(module_name, place=_PLACE)).get(attribute)
    if not callable(maker):
        raise ConfigError(f"{_PLACE}: {module_name} has no class or function '{attribute}'")
    parameters = inspect.signature(maker).parameters.values()
    required = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in known
    ]
    wanted = {p.name for p in parameters}
    if "size" in wanted and not square:
        raise ConfigError(
            f"{_PLACE}: {name} asks for size, and the images are not square, but {task.height} x"
            f" {task.width}; ask for height and width in its place, or make the images square"
        )
    if required:
        raise ConfigError(
            f"{_PLACE}: {name} asks for {', '.join(required)}; only classes, channels, height,"
            " width and size are known: give the others defaults"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        wanted |= {"classes", "channels", *(square or sides)}
    with of_users_code(f"{_PLACE}: {name}", ConfigError):
        network = maker(**{key: value for key, value in known.items() if key in wanted})
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{_PLACE}: {name} made {type(network).__name__}, not a torch.nn.Module")
    return network


def check_channels_last(network: nn.Module, name: str, task: ImageTask) -> None:
    """Raise ConfigError where the network fails on channels-last images.

    `build` has tried contiguous images before.
    """
    weight = next(network.parameters(), torch.empty(0))
    try:
        _forward_backward(
            network,
            torch.zeros(2, *task.shape, device=weight.device, dtype=weight.dtype),
            memory_format=torch.channels_last,
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"{_PLACE}: {name} takes contiguous images only, and fails on images laid out channels"
            f" last: {_reason(error)}; use flatten or reshape in place of view, or set"
            " training.channels_last: false"
        ) from error


def _try(network: nn.Module, name: str, task: ImageTask) -> None:
    """Pass two black images forward and backward, to report faults before training starts."""
    shape = f"images of {'x'.join(map(str, task.shape))} pixels"
    tensors = (*network.named_parameters(), *network.named_buffers())
    waiting = next((key for key, tensor in tensors if is_lazy(tensor)), None)
    if waiting is not None:
        raise ConfigError(
            f"{_PLACE}: {name} has no shape for {waiting} before it sees images; give its lazy"
            " layers their sizes: classes, channels, height and width are known to its constructor"
        )
    try:
        logits, gradient = _forward_backward(network, torch.zeros(2, *task.shape))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if "in-place operation" in str(error):
            raise ConfigError(
                f"{_PLACE}: {name} writes into the images that it is given{_where(error)}, which"
                " are not its own; compute a new tensor: x = x - 0.5 in place of x.sub_(0.5), and"
                " no inplace=True before its first layer"
            ) from error
        raise ConfigError(
            f"{_PLACE}: {name} fails on {shape}: {_reason(error)}; {_input_of(network)}choose"
            " another network, or, of a folder or Parquet set, another data.image_size or"
            " data.channels"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, task.classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(
            f"{_PLACE}: {name} must give logits (N, {task.classes}) for {shape}, got {found} for"
            " two images"
        )
    if gradient is None:
        raise ConfigError(
            f"{_PLACE}: {name} must give logits with a gradient to the image, got none: attacks"
            " follow it; remove detach(), no_grad() or whatever else cuts it off in forward"
        )


def _input_of(network: nn.Module) -> str:
    """`it was made for images of 3x224x224; ` where a network of timm says so."""
    described = getattr(network, "default_cfg", None)
    found = described.get("input_size") if isinstance(described, dict) else None
    if not found:
        return ""
    return f"it was made for images of {'x'.join(map(str, found))} pixels; "


def _forward_backward(
    network: nn.Module,
    x: torch.Tensor,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> tuple[object, torch.Tensor | None]:
    """Output and input gradient (None without one) of a copy of the network in training mode.

    A copy, because statistics would change. Training mode, because some networks return something
    else there. The global generator keeps its state.
    """
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    with torch.enable_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        tried = copy.deepcopy(network).train()
        if memory_format is torch.channels_last:
            tried.to(memory_format=memory_format)
        logits = tried(x)
        if not isinstance(logits, torch.Tensor) or not logits.requires_grad:
            return logits, None
        return logits, torch.autograd.grad(logits.sum(), x, allow_unused=True)[0]


def _reason(error: Exception) -> str:
    """First line of the message, after the error's type unless that is a plain RuntimeError."""
    message = next(iter(str(error).splitlines()), "")
    named = (
        message
        if isinstance(error, RuntimeError) and message
        else f"{type(error).__name__}: {message}".removesuffix(": ")
    )
    return named + _where(error)


def _where(error: Exception) -> str:
    """` (nets.py, line 12)`: the innermost line outside torch and this module.

    Empty where there is none.
    """
    torchs = Path(torch.__file__).parent
    frames = [
        (Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
    ]
    theirs = [
        f" ({file.name}, line {line})"
        for file, line in frames
        if file != Path(__file__) and torchs not in file.parents
    ]
    return theirs[-1] if theirs else ""
