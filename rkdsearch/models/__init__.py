"""Networks, built by name: pixels of [0, 1] outside, normalisation inside.

Networks with a CIFAR stem carry the parameter names of the robust literature, so that its
checkpoints load. `torchvision:NAME`, `timm:NAME` and the user's own by dotted path
(`my_lab.nets.Net`, with `--allow-import my_lab`) are built unchanged.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import nn

from rkdsearch.errors import ConfigError, did_you_mean
from rkdsearch.models import foreign
from rkdsearch.models.base import Classifier, Features, features, normalisation, normalise_inside
from rkdsearch.models.closed_form import Gradient, Slope, closed_form_gradient
from rkdsearch.models.folding import fold, inference_copy
from rkdsearch.models.mlp import MLP
from rkdsearch.models.mobilenet_v2 import MobileNetV2
from rkdsearch.models.preact_resnet import PreActResNet18
from rkdsearch.models.resnet import ResNet18
from rkdsearch.models.size import Size, count
from rkdsearch.models.small_cnn import SmallCNN
from rkdsearch.models.wide_resnet import WideResNet
from rkdsearch.plugins import is_dotted
from rkdsearch.section import Section
from rkdsearch.task import ImageTask

__all__ = [
    "Classifier",
    "Features",
    "Gradient",
    "ImageTask",
    "ModelConfig",
    "Size",
    "Slope",
    "build",
    "check_channels_last",
    "closed_form_gradient",
    "defaults",
    "features",
    "fold",
    "inference_copy",
    "names",
    "normalisation",
    "normalise_inside",
    "size_of",
]

_WIDTHS = {"small_cnn": 16, "mlp": 128, "wide_resnet": 10}
_WIDE_RESNET_DEPTH = 34


class ModelConfig(Section):
    """The network and its normalisation of pixels."""

    name: str = Field(
        "small_cnn",
        description=(
            "a built-in network, torchvision:NAME, timm:NAME, or the dotted path of your own"
        ),
    )
    width: int | None = Field(
        None,
        ge=1,
        description=(
            "small_cnn: channels of its first convolution (16); mlp: hidden units (128);"
            " wide_resnet: widening factor (10)"
        ),
    )
    depth: int | None = Field(None, ge=10, description="wide_resnet: its layers (34), 6 n + 4")
    mean: tuple[float, ...] | None = Field(
        None,
        description="one number a channel, subtracted from pixels of [0, 1] inside the network",
    )
    std: tuple[float, ...] | None = Field(
        None, description="one number a channel, divided by after `mean`"
    )

    @model_validator(mode="after")
    def _lawful(self) -> Self:
        if (
            self.name not in _BUILDERS
            and not foreign.is_foreign(self.name)
            and not is_dotted(self.name)
        ):
            hint = did_you_mean(
                self.name,
                names(),
                f"choose one of {', '.join(names())}, torchvision:NAME, timm:NAME or"
                " your.module.Net",
            )
            raise ValueError(f"unknown network '{self.name}'; {hint}")
        if self.width is not None and self.name not in _WIDTHS:
            raise ValueError(
                f"width is for {', '.join(_WIDTHS)} only, got {self.width} for {self.name}; leave"
                " it out"
            )
        if self.depth is not None and self.name != "wide_resnet":
            raise ValueError(
                f"depth is for wide_resnet only, got {self.depth} for {self.name}; leave it out"
            )
        if self.depth is not None and (self.depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 (10, 16, 22, 28, 34, ...), got {self.depth}")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError(
                f"mean and std go together, one number a channel each, got mean {self.mean} and std"
                f" {self.std}"
            )
        if self.std is not None and (not self.std or min(self.std) <= 0):
            raise ValueError(f"std must be > 0 in every channel, got {self.std}")
        return self

    @property
    def sized(self) -> dict[str, int | None]:
        """Width and depth, the defaults of this network where they are left out."""
        depth = _WIDE_RESNET_DEPTH if self.name == "wide_resnet" else None
        return {"width": self.width or _WIDTHS.get(self.name), "depth": self.depth or depth}


def names() -> tuple[str, ...]:
    """Names of the built-in networks."""
    return tuple(_BUILDERS)


def build(config: ModelConfig, task: ImageTask) -> nn.Module:
    """A network with fresh weights from the global generator.

    Raises ConfigError where it does not fit the images.
    """
    make = _BUILDERS.get(config.name)
    try:
        network = foreign.build(config.name, task) if make is None else make(config, task)
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        size = ", ".join(f"{name} {value}" for name, value in config.sized.items() if value)
        raise ConfigError(
            f"the weights of {config.name} ({size}) do not fit into memory; take a smaller one"
        ) from None
    if config.mean is not None and config.std is not None:
        if len(config.mean) != task.channels:
            raise ConfigError(
                f"mean of {config.name} has {len(config.mean)} numbers, the images have"
                f" {task.channels} channels: give one number a channel"
            )
        normalise_inside(network, config.mean, config.std)
    return network


def check_channels_last(config: ModelConfig, network: nn.Module, task: ImageTask) -> None:
    """Raise ConfigError where the network of this config fails on channels-last images.

    Only foreign networks are tried: the built-in ones accept them.
    """
    if config.name not in _BUILDERS:
        foreign.check_channels_last(network, config.name, task)


@lru_cache(maxsize=1024)
def size_of(config: ModelConfig, task: ImageTask) -> Size:
    """The costs of such a network; the global generator is left as it was.

    Raises ConfigError where the network does not fit the images.
    """
    with torch.random.fork_rng(devices=[]):
        return count(build(config, task), task)


def _width(config: ModelConfig) -> int:
    return config.width or _WIDTHS[config.name]


_BUILDERS: Mapping[str, Callable[[ModelConfig, ImageTask], nn.Module]] = {
    "small_cnn": lambda c, task: SmallCNN(task, width=_width(c)),
    "mlp": lambda c, task: MLP(task, width=_width(c)),
    "resnet18": lambda _, task: ResNet18(classes=task.classes, channels=task.channels),
    "preact_resnet18": lambda _, task: PreActResNet18(classes=task.classes, channels=task.channels),
    "wide_resnet": lambda c, task: WideResNet(
        classes=task.classes,
        channels=task.channels,
        depth=c.depth or _WIDE_RESNET_DEPTH,
        width=_width(c),
    ),
    "mobilenet_v2": lambda _, task: MobileNetV2(classes=task.classes, channels=task.channels),
}
