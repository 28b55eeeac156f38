"""Config section `data`."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from rkdsearch.errors import did_you_mean

Augmentation = Literal["none", "crop", "crop_flip"]

STANDARD = ("cifar10", "cifar100", "svhn", "mnist", "fashion_mnist")
NAMES = ("digits", *STANDARD, "folder:PATH", "parquet:PATH")

# Fields of some data sets only. Elsewhere a value would be ignored silently, so it is refused.
_ONLY_FOR = {
    "root": STANDARD,
    "download": STANDARD,
    "test_fraction": ("digits",),
    "image_size": ("folder", "parquet"),
    "channels": ("folder", "parquet"),
    "memory_gib": ("folder", "parquet"),
    "cache": ("folder", "parquet"),
}

# Where the files lie and how they are read. These fields do not change the images.
PLACES = ("root", "download", "memory_gib", "cache")


class DataConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The data set, its splits, and the augmentation of training images."""

    name: Annotated[str, Field(description=f"one of {', '.join(NAMES)}")] = "digits"
    root: Annotated[
        str | None,
        Field(
            description=(
                "CIFAR, SVHN and MNIST sets: folder of their files, as torchvision or their authors"
                " lay them out"
            )
        ),
    ] = None
    download: Annotated[
        bool,
        Field(
            description=(
                "CIFAR, SVHN and MNIST sets: let torchvision fetch missing files into `root`"
            )
        ),
    ] = False
    validation_fraction: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description=(
                "share of the training images held out for validation, unless the set has"
                " validation images"
            ),
        ),
    ] = 0.1
    test_fraction: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description=(
                "digits, which has no official test images: the share of all images that is cut off"
            ),
        ),
    ] = 0.25
    split_seed: Annotated[
        int, Field(ge=0, description="which images are held out for validation")
    ] = 0
    augment: Annotated[
        Augmentation,
        Field(
            description=(
                "crop: shift by up to size // 8 pixels over black; crop_flip: and mirror half of"
                " the images"
            )
        ),
    ] = "none"
    extra: Annotated[
        str | None,
        Field(description="npz of generated images: `image` (N, H, W, C) uint8 and `label` (N,)"),
    ] = None
    extra_fraction: Annotated[
        float, Field(ge=0, lt=1, description="share of each batch that is drawn from `extra`")
    ] = 0.0
    train_images: Annotated[
        int | None,
        Field(
            ge=1, description="train on this many images, every class in proportion; null: on all"
        ),
    ] = None
    image_size: Annotated[
        int | None,
        Field(
            ge=1,
            description=(
                "folder, parquet: crop to a square and resize to so many pixels a side; null:"
                " images must agree"
            ),
        ),
    ] = None
    channels: Annotated[
        Literal[1, 3] | None,
        Field(
            description=(
                "folder, parquet: decode to grey (1) or colour (3); null: as the first image is"
            )
        ),
    ] = None
    memory_gib: Annotated[
        float,
        Field(
            gt=0,
            description=(
                "folder, parquet: a set that is larger than so many GiB when decoded becomes a"
                " memory-mapped file"
            ),
        ),
    ] = 4.0
    cache: Annotated[
        str | None,
        Field(description="folder, parquet: where that file goes; null: beside the data"),
    ] = None

    @property
    def kind(self) -> str:
        """`folder` of `folder:PATH`; otherwise the name."""
        return self.name.partition(":")[0]

    @property
    def path(self) -> str:
        """`PATH` of `folder:PATH`; otherwise empty."""
        return self.name.partition(":")[2]

    @model_validator(mode="after")
    def _laws(self) -> Self:
        known = self.path != "" if self.kind in ("folder", "parquet") else self.name in NAMES
        if not known:
            hint = did_you_mean(self.name, NAMES, f"known: {', '.join(NAMES)}")
            raise ValueError(f"unknown data set {self.name!r}; {hint}")
        for field, kinds in _ONLY_FOR.items():
            value = getattr(self, field)
            if self.kind not in kinds and value != type(self).model_fields[field].default:
                raise ValueError(
                    f"{field} has no meaning for {self.name}, got {value!r}; remove it, or choose"
                    f" one of {', '.join(kinds)}"
                )
        if (self.extra is None) != (self.extra_fraction == 0):
            raise ValueError(
                f"extra and extra_fraction go together, got {self.extra!r} and"
                f" {self.extra_fraction}; set both or neither"
            )
        return self
