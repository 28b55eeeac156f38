"""The search spaces that come with the package, by name: `rkdsearch:digits`.

A wheel carries them inside the package; in a checkout they lie beside it.
"""

from pathlib import Path

from rkdsearch.errors import SpaceError, did_you_mean
from rkdsearch.local_path import home_path, refused_url

PREFIX = "rkdsearch:"
_PACKAGE = Path(__file__).parents[1]


def files() -> dict[str, Path]:
    """The shipped search spaces by name, with their prefix."""
    inside = _PACKAGE / "search_spaces"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "search_spaces"
    return {f"{PREFIX}{file.stem}": file for file in sorted(folder.glob("*.yaml"))}


def located(name: str | Path, base: Path = Path()) -> Path:
    """The file of a search space: a shipped one by its name, any other by its path from `base`.

    Raises SpaceError for a name that no shipped space has, and for a URL; FileError for the home
    folder of an unknown user.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        if (refusal := refused_url(name)) is not None:
            raise SpaceError(refusal)
        return base / home_path(name)
    known, stem = files(), text.removeprefix(PREFIX).removesuffix(".yaml")
    if (file := known.get(f"{PREFIX}{stem}")) is None:
        names = [name.removeprefix(PREFIX) for name in known]
        hint = did_you_mean(stem, names, f"there are {', '.join(known)}", prefix=PREFIX)
        raise SpaceError(f"{text}: no such search space comes with rkdsearch; {hint}")
    return file
