"""Config section `data`."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rkdsearch.errors import did_you_mean
from rkdsearch.local_path import path_text, refused_url
from rkdsearch.plugins import is_dotted
from rkdsearch.section import Section

Augmentation = Literal["none", "crop", "crop_flip"]
Sampling = Literal["shuffled", "balanced"]

STANDARD = ("cifar10", "cifar100", "svhn", "mnist", "fashion_mnist")
ARRAYS = "arrays"  # images that the caller of `Trainer` holds in memory
DOTTED = "your.module.images"  # stands for a function or class of the user's
NAMES = ("digits", *STANDARD, "folder:PATH", "parquet:PATH", DOTTED, ARRAYS)

_FILES = ("folder", "parquet")
# Fields of some data sets only. Elsewhere a value would be ignored silently, so it is refused.
_ONLY_FOR = {
    "root": (*STANDARD, DOTTED),
    "download": STANDARD,
    "test_fraction": ("digits",),
    "image_size": _FILES,
    "resize": _FILES,
    "channels": _FILES,
    "memory_gib": _FILES,
    "cache": _FILES,
    "image_column": ("parquet",),
    "label_column": ("parquet",),
    "test_split": _FILES,
}

# Fields that describe the files of one data set: of no use to another one.
_OF_ONE_SET = frozenset({"test_split", "extra", "extra_fraction", "image_column", "label_column"})

# A single image of more would not fit into the memory of many machines.
LARGEST_SIDE = 8192

# Where the files lie and how they are read. These fields do not change the images.
PLACES = ("root", "download", "memory_gib", "cache")


def _kind_of(name: str) -> str:
    return DOTTED if is_dotted(name) else name.partition(":")[0]


def kept_for(name: str, field: str) -> bool:
    """True where a field of this section keeps its value when the data set becomes `name`.

    How images are split, augmented and counted does not depend on the set.
    """
    return field not in _OF_ONE_SET and _kind_of(name) in _ONLY_FOR.get(field, (_kind_of(name),))


def _image_size(value: Any) -> Any:
    """N for a square, (H, W) for other images. Raises ValueError for anything else."""
    if value is None:
        return None
    sides = list(value) if isinstance(value, list | tuple) else [value]
    if len(sides) not in (1, 2) or any(
        type(side) is not int or not 1 <= side <= LARGEST_SIDE for side in sides
    ):
        raise ValueError(
            f"must be N or [H, W] (height, then width), whole numbers of 1 to {LARGEST_SIDE}, got"
            f" {value!r}"
        )
    return sides[0] if len(set(sides)) == 1 else tuple(sides)


class DataConfig(Section):
    """The data set, its splits, and the augmentation of training images."""

    name: Annotated[str, Field(description=f"one of {', '.join(NAMES)}")] = "digits"
    root: Annotated[
        str | None,
        Field(
            description=(
                "CIFAR, SVHN and MNIST sets: folder of their files, as torchvision or their authors"
                " lay them out; a function of yours: its argument `root`"
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
    test_split: Annotated[
        Literal["test", "validation"],
        Field(
            description=(
                "folder, parquet: which of the set's images `evaluate` measures; validation: a set"
                " like ImageNet has no other labelled ones, and validation images are held out of"
                " the training images"
            )
        ),
    ] = "test"
    split_seed: Annotated[
        int, Field(ge=0, description="which images are held out for validation")
    ] = 0
    augment: Annotated[
        Augmentation,
        Field(
            description=(
                "crop: shift by up to an eighth of height and width over black; crop_flip: and"
                " mirror half of the images"
            )
        ),
    ] = "none"
    sampling: Annotated[
        Sampling,
        Field(
            description=(
                "images of an epoch. shuffled: each once; balanced: as many, and as many of every"
                " class, for data sets whose classes differ in size"
            )
        ),
    ] = "shuffled"
    extra: Annotated[
        Annotated[str, AfterValidator(path_text)] | None,
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
        int | tuple[int, int] | None,
        BeforeValidator(_image_size),
        Field(
            description=(
                "folder, parquet: N or [H, W] in pixels; images are cropped at the centre to that"
                " shape and resized; null: all must agree"
            ),
        ),
    ] = None
    resize: Annotated[
        Literal["bicubic", "bilinear", "lanczos", "box", "nearest"],
        Field(
            description=(
                "folder, parquet: the filter of `image_size`, as Pillow defines it, antialiased"
            )
        ),
    ] = "bicubic"
    channels: Annotated[
        Literal[1, 3] | None,
        Field(
            description=(
                "folder, parquet: decode to grey (1) or colour (3); null: as the first training"
                " image is"
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
        Annotated[str, AfterValidator(path_text)] | None,
        Field(description="folder, parquet: where that file goes; null: beside the data"),
    ] = None
    image_column: Annotated[
        str | None,
        Field(description="parquet: column of the images; null: found by name and type"),
    ] = None
    label_column: Annotated[
        str | None,
        Field(description="parquet: column of the labels; null: found by name and type"),
    ] = None

    @property
    def kind(self) -> str:
        """`folder` of `folder:PATH`; `DOTTED` for a dotted path; otherwise the name."""
        return _kind_of(self.name)

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """`image_size` as two numbers."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def path(self) -> str:
        """`PATH` of `folder:PATH`; otherwise empty."""
        return self.name.partition(":")[2]

    @model_validator(mode="after")
    def _laws(self) -> Self:
        # what `root` means to a function of the user's is the function's affair
        paths = {
            "name": self.path if self.kind in _FILES else self.name,
            "root": "" if self.kind == DOTTED else self.root or "",
        }
        for field, text in paths.items():
            if (refusal := refused_url(text)) is not None:
                raise ValueError(f"{field}: {refusal}")
        known = (
            self.path != "" if self.kind in _FILES else is_dotted(self.name) or self.name in NAMES
        )
        if not known:
            # imagefolder:PATH, Parquet:PATH
            meant = [f"{kind}:{self.path}" for kind in _FILES if kind in self.kind.lower()]
            hint = (
                f"did you mean '{meant[0]}'?"
                if meant and self.path
                else did_you_mean(self.name, NAMES, f"known: {', '.join(NAMES)}")
            )
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
