"""Data set `parquet:PATH`: train*.parquet and test*.parquet in the image layout of Hugging Face.

Validation files (`validation*`, `valid*`, `val*`, `dev*`) are optional. Files lie in PATH, in
PATH/data, or in a folder of their split. The image column is a `struct<bytes, path>` or binary,
the label column holds integers or class names. Both are found by their usual names, or where the
file has one such column only; `data.image_column` and `data.label_column` name them.

Names of integer classes come from the schema's metadata; without it, classes are called by their
numbers. A file that numbers the same names otherwise is read by the names.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rkdsearch.data import names
from rkdsearch.data.config import DataConfig
from rkdsearch.data.encoded import Encoded, Split, UnlabelledError, key_of
from rkdsearch.errors import DataError
from rkdsearch.local_path import home_path

_ROWS = 1024  # rows read at a time
_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})")
# As published sets name them: CIFAR-10 has img and label, CIFAR-100 img, fine_label and
# coarse_label.
_IMAGE, _LABEL = ("image", "img"), ("label", "fine_label")


def files(config: DataConfig, split: Split) -> Encoded | None:
    """The image files of a split, undecoded; None where it has no Parquet file.

    Raises DataError where there are no training files, or a file is not as described above;
    UnlabelledError where images have no label.
    """
    root = home_path(config.path)
    training = paths_of(root, "train")
    if root.is_file():
        raise DataError(
            f"{root}: is a file, and data.name needs its folder, parquet:{root.parent}, with files"
            " train*.parquet and test*.parquet"
        )
    if not training:
        raise DataError(
            f"{root / 'train*.parquet'}: no such file; expected Parquet files with an image and a"
            f" label column, there, in {root / 'data'} or in {root / 'train'}"
        )
    paths = paths_of(root, split)
    if not paths:
        return None
    first = LabelledFile.of(training[0], config)
    # All files have the columns of the first training file.
    config = config.model_copy(update={"image_column": first.image, "label_column": first.label})
    if split != "train" and _are_unlabelled(paths, config):
        raise UnlabelledError(
            f"{paths[0]}: holds images without labels: no label column, or nothing but nulls and"
            " -1 in it"
        )
    classes, by_text = _classes(training, config)
    labels = np.concatenate(
        [LabelledFile.of(path, config).labels(classes, by_text=by_text) for path in paths]
    )
    if not len(labels):
        raise DataError(f"{root}: the {split} files have no rows; write them again")
    return Encoded(
        items=lambda: (item for path in paths for item in LabelledFile.of(path, config).images()),
        labels=labels,
        classes=classes,
        key=lambda: f"{key_of(root, paths)} {first.image}",
    )


def paths_of(root: Path, split: Split, besides: Collection[Path] = ()) -> list[Path]:
    """Files of a split, in the first place that has some, ordered by name; some left out.

    Raises DataError where files of one place go by several words, such as val and valid, and where
    one of several parts is missing.
    """
    own = names.one_of(split, names.folders(root).values(), root)
    for place in (root, root / "data", *([own] if own else [])):
        every = [
            path
            for path in place.glob("*.parquet")
            if not names.is_foreign(path.name) and path not in besides
        ]
        if place == own:
            return _whole(sorted(every))
        known = {path: names.word_of(path.name) for path in every}
        found = {path: word[1] for path, word in known.items() if word and word[0] == split}
        words = sorted(set(found.values()))
        if len(words) > 1 and split != "train":
            raise DataError(
                f"{place}: has Parquet files named {' and '.join(words)}, each for {split}; keep"
                " those of one name"
            )
        if found:
            return _whole(sorted(found))
    return []


def every_file(folder: Path) -> list[Path]:
    """Parquet files of a folder to measure on: those for tests, or else all, ordered by name.

    Raises DataError where there are none, a part is missing, or files are named for training or
    validation.
    """
    if found := paths_of(folder, "test"):
        return found
    found = sorted(path for path in folder.glob("*.parquet") if not names.is_foreign(path.name))
    if not found:
        raise DataError(f"{folder}: holds no Parquet file; name a file, or a folder of them")
    for path in found:
        if word := names.word_of(path.name):
            raise DataError(
                f"{folder}: holds no file for tests, and {path.name} is named for {word[0]}; name"
                " the file itself if you mean it"
            )
    return _whole(found)


def _whole(paths: list[Path]) -> list[Path]:
    """The files. Raises DataError where their names, such as train-00000-of-00002, miss a part."""
    parts: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if part := _PART.fullmatch(path.stem):
            parts.setdefault((part["name"], int(part["of"])), set()).add(int(part["number"]))
    for (name, of), numbers in parts.items():
        missing = sorted({*range(of)} - numbers)
        if missing:
            raise DataError(
                f"{paths[0].parent}: must have {of} files {name}-*-of-{of:05}.parquet, as their"
                f" names say, and {len(missing)} are missing, such as number {missing[0]:05}; fetch"
                " them, or give the others names without -of-"
            )
    return paths


@dataclass(frozen=True)
class LabelledFile:
    """A Parquet file, and the names of its image and label columns."""

    path: Path
    image: str
    label: str
    names: tuple[str, ...] | None  # of integer labels, by the file's own metadata

    @classmethod
    def of(cls, path: Path, config: DataConfig) -> "LabelledFile":
        """Raises DataError where the columns are missing, not known, or of other types."""
        types, metadata = _schema(path)
        image = _chosen(path, "image", config.image_column, _IMAGE, types)
        if not _holds_images(types[image]):
            raise DataError(
                f"{path}: column {image} must be a struct<bytes, path> or binary, got"
                f" {types[image]}; convert it, or name another by data.image_column"
            )
        label = _chosen(path, "label", config.label_column, _LABEL, types)
        if not _holds_labels(types[label]):
            raise DataError(
                f"{path}: column {label} must hold integers or class names, got {types[label]};"
                " convert it, or name another by data.label_column"
            )
        return cls(path, image, label, _named_by(metadata, label))

    def labels(self, classes: Sequence[str], *, by_text: bool = False) -> NDArray[np.int64]:
        """(n,) labels in the order of `classes`. Raises DataError where one is not a class.

        With `by_text` the training labels are texts, and their order numbers nothing: an integer
        is the class of that name.
        """
        number = {name: k for k, name in enumerate(classes)}
        found = np.empty(len(values := self.values()), dtype=np.int64)
        for row, value in enumerate(values):
            name = self._name(value)
            if name is None and by_text:
                name = str(value)
            k = number.get(name) if name is not None else value
            if k is None and isinstance(value, int) and _are_numbers(classes):
                k = value  # the training files have no names to compare with
            if k is None or not 0 <= k < len(classes):
                law = (
                    f"0 to {len(classes) - 1}"
                    if name is None
                    else f"a class of the training images, {', '.join([*classes][:10])}"
                )
                raise DataError(
                    f"{self.path}, row {row}: label must be {law}, got {name or value}; correct the"
                    " label, or remove the row"
                )
            found[row] = k
        return found

    def _name(self, value: object) -> str | None:
        """The class name that a label stands for; None for a number without one.

        Every file numbers its own names: the training files may number them otherwise.
        """
        if isinstance(value, str):
            return names.plain(value)
        if isinstance(value, int) and self.names is not None and 0 <= value < len(self.names):
            return self.names[value]
        return None

    def values(self) -> list[Any]:
        """The label column as it is."""
        return [value for part in _column(self.path, self.label) for value in part.to_pylist()]

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Place and bytes of every image."""
        import pyarrow as pa

        row = 0
        for part in _column(self.path, self.image):
            inside = part.field("bytes") if pa.types.is_struct(part.type) else part
            for value in inside.to_pylist():
                if value is None:
                    raise DataError(
                        f"{self.path}, row {row}: {self.image}.bytes must hold the image itself,"
                        " got null; embed the files, or use folder:PATH"
                    )
                yield f"{self.path}, row {row}", value
                row += 1


def _schema(path: Path) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """Types by column (of a dictionary: of its values), and metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: must be a Parquet file: {str(error).rstrip('.')}; write or fetch it again"
        ) from error
    types = {
        field.name: field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        for field in schema
    }
    return types, schema.metadata or {}


def _chosen(
    path: Path,
    role: Literal["image", "label"],
    asked: str | None,
    usual: tuple[str, ...],
    types: dict[str, Any],
) -> str:
    """The column of a role: as asked, by its usual name, or the only one of a fitting type."""
    holds = _holds_images if role == "image" else _holds_labels
    fitting = [name for name, kind in types.items() if holds(kind)]
    for found in (
        [asked] if asked is not None else [],
        [name for name in usual if name in types],
        fitting,
    ):
        if len(found) == 1 and found[0] in types:
            return found[0]
        if found:
            break
    what = f"no column '{asked}'" if asked is not None else f"columns {', '.join(types)}"
    raise DataError(
        f"{path}: must have one column of {role}s, such as {' or '.join(usual)}, got {what}; name"
        f" it by data.{role}_column"
    )


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_labels(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    )


def _named_by(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Class names by the metadata that Hugging Face writes; None without."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        found = tuple(names.plain(str(name)) for name in features[label]["names"])
    except (ValueError, KeyError, TypeError):
        return None  # the metadata may describe a plain integer label
    return found if len(set(found)) == len(found) else None


def _are_unlabelled(paths: list[Path], config: DataConfig) -> bool:
    """True where published files withhold labels: without a label column, or with -1 or null."""
    for path in paths:
        types, _ = _schema(path)
        if config.label_column not in types:
            continue
        values = LabelledFile.of(path, config).values()
        if any(value not in (None, -1) for value in values) or not values:
            return False
    return True


def _classes(training: list[Path], config: DataConfig) -> tuple[tuple[str, ...], bool]:
    """Class names in the order of the labels: the first file's, or the labels that are used.

    And True where these are texts.
    """
    first = LabelledFile.of(training[0], config)
    if first.names is not None:
        return first.names, False
    used = {path: LabelledFile.of(path, config).values() for path in training}
    texts = {value for values in used.values() for value in values if isinstance(value, str)}
    if texts:
        return tuple(sorted({names.plain(text) for text in texts})), True
    return _numbered(used), False


def _numbered(labels: dict[Path, list[Any]]) -> tuple[str, ...]:
    """Classes without names: 0 to the highest label.

    Raises DataError where a label is none, or a number has no image.
    """
    for file, values in labels.items():
        for row, value in enumerate(values):
            if value is None or value < 0:
                raise DataError(
                    f"{file}, row {row}: label must be 0 or more, got {value}; correct the label,"
                    " or remove the row"
                )
    used = sorted({value for values in labels.values() for value in values})
    missing = next((k for k, value in enumerate(used) if k != value), None)
    if missing is not None:
        highest = used[-1]
        file, row = next(
            (file, values.index(highest)) for file, values in labels.items() if highest in values
        )
        raise DataError(
            f"{file}, row {row}: label {highest} is the highest, so that class {missing} should"
            " have a training image and has none; correct the label, or number the classes from 0"
            " without a gap"
        )
    return tuple(str(k) for k in used)


def _are_numbers(classes: Sequence[str]) -> bool:
    return list(classes) == [str(k) for k in range(len(classes))]


def _column(file: Path, name: str) -> Iterator[Any]:
    """A column, some rows at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=_ROWS, columns=[name]):
                yield batch.column(0)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file}: column {name} is damaged: {error}; write or fetch the file again"
        ) from error
