"""Networks that others wrote: torchvision's and timm's by name, the user's by dotted path. Their stems and parameter names stay."""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import nn

from rkdsearch.errors import ConfigError, did_you_mean
from rkdsearch.plugins import load_module

_PLACE = "network name"


def is_foreign(name: str) -> bool:
    """Whether `name` asks a library for a network: `torchvision:NAME` or `timm:NAME`."""
    return name.partition(":")[0] in _LIBRARIES and ":" in name


def build(name: str, *, classes: int, channels: int, size: int) -> nn.Module:
    """A network with fresh weights, tried on black images. Raises ConfigError where none is or fits the images."""
    library, colon, inner = name.partition(":")
    network = _LIBRARIES[library](inner, classes, channels) if colon else _users(name, classes=classes, channels=channels, size=size)
    _try(network, name, classes, channels, size)
    return network


def _torchvision(name: str, classes: int, channels: int) -> nn.Module:
    from torchvision import models  # imported where used: it costs seconds

    _check(name, models.list_models(module=models), "torchvision")
    if channels != 3:
        raise ConfigError(
            f"{_PLACE}: torchvision's networks see 3 channels, the images have {channels}; choose timm:{name} or a built-in network"
        )
    return cast(nn.Module, models.get_model(name, weights=None, num_classes=classes))


def _timm(name: str, classes: int, channels: int) -> nn.Module:
    try:
        import timm  # an optional extra
    except ModuleNotFoundError:
        raise ConfigError(f"{_PLACE}: timm:{name} needs the package timm; install rkdsearch[models]") from None
    # Checked against the list because timm takes names that would be fetched from the network, too.
    _check(name, timm.list_models(), "timm")
    return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels))


_LIBRARIES: Mapping[str, Callable[[str, int, int], nn.Module]] = {"torchvision": _torchvision, "timm": _timm}


def _check(name: str, known: Iterable[str], library: str) -> None:
    known = list(known)
    if name not in known:
        hint = did_you_mean(name, known, f"its {len(known)} names begin with {', '.join(known[:3])}", prefix=f"{library}:")
        raise ConfigError(f"{_PLACE}: {library} has no network '{name}'; {hint}")


def _users(name: str, **shape: int) -> nn.Module:
    """Call the user's class or function with those of `classes`, `channels` and `size` that it names."""
    module_name, _, attribute = name.rpartition(".")
    maker = vars(load_module(module_name, place=_PLACE)).get(attribute)
    if not callable(maker):
        raise ConfigError(f"{_PLACE}: {module_name} has no class or function '{attribute}'")
    parameters = inspect.signature(maker).parameters.values()
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in shape
    ]
    if required:
        raise ConfigError(
            f"{_PLACE}: {name} asks for {', '.join(required)}; only classes, channels and size are known: give the others defaults"
        )
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    wanted = {p.name for p in parameters}
    network = maker(**{key: value for key, value in shape.items() if takes_all or key in wanted})
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{_PLACE}: {name} made {type(network).__name__}, not a torch.nn.Module")
    return network


def _try(network: nn.Module, name: str, classes: int, channels: int, size: int) -> None:
    """Two black images through a copy, in the mode of training: some networks answer otherwise there, and statistics would move."""
    shape = f"images of {channels}x{size}x{size} pixels"
    try:
        with torch.no_grad():
            logits = copy.deepcopy(network).train()(torch.zeros(2, channels, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{_PLACE}: {name} fails on {shape}: {reason}; choose another network or image size") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        answer = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"{_PLACE}: {name} must give logits (N, {classes}) for {shape}, got {answer} for two images")
