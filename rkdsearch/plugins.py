"""User code, imported only where the user allowed its prefix.

A config file from elsewhere may name `their_lab.net`. Nothing is imported until `allow_import` (the
command line's `--allow-import their_lab`) or an installed entry point of the groups
`rkdsearch.methods` and `rkdsearch.models` names that prefix.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from rkdsearch.errors import ConfigError
from rkdsearch.provenance import git, python_files

GROUPS = ("rkdsearch.methods", "rkdsearch.models")

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_allowed: set[str] = set()


@dataclass(frozen=True)
class Package:
    """The state of a package of the user's, read once by each process that imported from it.

    `sha256` is of its Python files, `git_commit` of the checkout that tracks it, where there is
    one.
    """

    sha256: str
    git_commit: str | None


def allow_import(*prefixes: str) -> None:
    """Permit modules whose dotted name equals one of these prefixes or lies below it.

    Raises ConfigError where a prefix is no module's name.
    """
    for prefix in prefixes:
        # a notebook may give a list
        if not isinstance(prefix, str) or not _MODULE.fullmatch(prefix):  # type: ignore[redundant-expr]
            raise ConfigError(
                f"--allow-import must name a package, such as my_lab or my_lab.nets, got {prefix!r}"
            )
    _allowed.update(prefixes)


def allowed_imports() -> tuple[str, ...]:
    """Prefixes that `allow_import` and installed entry points permit.

    A search hands them to its workers.
    """
    return tuple(sorted(_allowed | _installed(tuple(sys.path))))


@lru_cache(maxsize=1)  # every run of a space check asks, and packages are many files
def _installed(_path: tuple[str, ...]) -> frozenset[str]:
    """Prefixes of the entry points that are installed on this path."""
    return frozenset(
        point.value.partition(":")[0] for group in GROUPS for point in entry_points(group=group)
    )


def is_dotted(name: str) -> bool:
    """True for a dotted path of two identifiers or more, such as `my_lab.nets`."""
    return "." in name and _MODULE.fullmatch(name) is not None


def load_module(name: str, *, place: str) -> ModuleType:
    """The user's module.

    Raises ConfigError, which begins with `place`, where `name` is no module's name, is not allowed,
    or does not exist.
    """
    if not _MODULE.fullmatch(name):
        raise ConfigError(f"{place} must be a dotted path of Python names, got '{name}'")
    if not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed_imports()):
        raise ConfigError(
            f"{place}: '{name}' would import code; allow it with --allow-import"
            f" {name.partition('.')[0]}"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module exists and one of its imports is missing: the user needs that traceback.
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        module, _, inside = name.rpartition(".")
        if inside in vars(sys.modules.get(module, object)):
            raise ConfigError(
                f"{place} must be the name of a module: write {module}, without '.{inside}'"
            ) from None
        raise ConfigError(
            f"{place}: no module '{name}' (looked for '{error.name}'); is its folder on PYTHONPATH?"
        ) from None


def imported_packages() -> dict[str, dict[str, str | None]]:
    """sha256 and git_commit of every allowed package that this process has imported, by name."""
    names = sorted({prefix.partition(".")[0] for prefix in allowed_imports()})
    return {name: asdict(_state_of(name)) for name in names if name in sys.modules}


def changed_packages(was: object) -> list[str]:
    """A sentence for each package that is not what it was; `was` as `imported_packages` gave it."""
    known = was if isinstance(was, dict) else {}
    return [
        f"the package {name} has changed: its sha256 was {_shown(known[name])}, is {_shown(state)};"
        " what is trained from here on is trained by other code than what was trained before"
        for name, state in imported_packages().items()
        if name in known and known[name].get("sha256") != state["sha256"]
    ]


def _shown(state: Mapping[str, str | None]) -> str:
    commit = f" (commit {state['git_commit']})" if state.get("git_commit") else ""
    return f"{str(state.get('sha256'))[:12]}{commit}"


@lru_cache(maxsize=64)
def _state_of(package: str) -> Package:
    """Hash of all Python files of a top-level package or module, by their relative paths."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, "it has just been imported"
    roots = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [(file.relative_to(root), file) for root in roots for file in python_files(root)]
    places = roots
    if not roots and spec.origin is not None:
        places = [Path(spec.origin)]
        files = [(Path(places[0].name), places[0])]
    digest = hashlib.sha256()
    for name, file in sorted(files):
        digest.update(f"{name.as_posix()}\n".encode() + file.read_bytes() + b"\n")
    return Package(digest.hexdigest(), commit_of(places[0]) if places else None)


@lru_cache(maxsize=64)
def commit_of(place: Path) -> str | None:
    """Commit of the checkout that tracks this file, or Python files of this folder.

    It ends in `-dirty` where files were changed there. None where no checkout tracks it: a package
    installed inside another project's folder is not that project's.
    """
    folder, name = (place, "*.py") if place.is_dir() else (place.parent, place.name)
    if not git(folder, "ls-files", "--", name):
        return None
    return git(folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
