"""Names on disk: splits as people call them, files that are nobody's data, one Unicode form."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from rkdsearch.data.encoded import Split
from rkdsearch.errors import DataError

_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
# What operating systems, archives and file servers leave beside data. Hidden files are left out
# too: `._cat.png` is no picture, but a Mac's note about one.
_FOREIGN = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
    }
)


def plain(name: str) -> str:
    """The name in Unicode's composed form (NFC): a Mac's file system takes `é` apart."""
    return unicodedata.normalize("NFC", name)


def is_foreign(name: str) -> bool:
    """True for a hidden file or folder, and for those of an operating system."""
    return name.startswith(".") or name.lower() in _FOREIGN


def word_of(name: str) -> tuple[Split, str] | None:
    """The split that a file's name begins with, and its word: `Valid-0-of-2` is validation, valid.

    None for any other name. `trainset` and `test1` are read too, `valued` is not.
    """
    found = re.match(r"[a-z]*", plain(name).lower())
    assert found is not None, "the pattern matches the empty text"
    for split, words in _WORDS.items():
        for word in words:
            if found[0] == word or (split != "validation" and found[0].startswith(word)):
                return split, found[0]
    return None


def numbered_otherwise(classes: Sequence[str]) -> bool:
    """True where classes are named by numbers that are not their places.

    Folders 0 to 11 are in the order 0, 1, 10, 11, 2: an integer label is the class of that name.
    """
    decimal = all(name.isdecimal() for name in classes)
    return decimal and [int(name) for name in classes] != [*range(len(classes))]


def called(split: Split) -> str:
    """The names of a split, for a sentence: `validation, valid, val or dev`."""
    *most, last = _WORDS[split]
    return f"{', '.join(most)} or {last}"


def folders(parent: Path) -> dict[str, Path]:
    """Folders inside `parent` by their plain names, in order; none where it is no folder.

    Raises DataError where two of them have one name in two Unicode forms.
    """
    found: dict[str, Path] = {}
    for path in sorted(parent.glob("*"), key=lambda path: plain(path.name)):
        if is_foreign(path.name) or not path.is_dir():
            continue
        name = plain(path.name)
        if name in found:
            raise DataError(
                f"{parent}: has two folders named '{name}', written in two Unicode forms; merge"
                " them"
            )
        found[name] = path
    return found


def one_of(split: Split, places: Iterable[Path], root: Path) -> Path | None:
    """The only folder of a split among `places`; None where there is none.

    Raises DataError where several have its names: which one is meant cannot be known.
    """
    found = [path for path in places if plain(path.name).lower() in _WORDS[split]]
    if len(found) > 1:
        raise DataError(
            f"{root}: has {len(found)} folders for {split} images,"
            f" {' and '.join(path.name for path in found)}; keep one of them"
        )
    return found[0] if found else None
