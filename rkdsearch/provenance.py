"""Provenance of a number: code, packages and command line."""

import hashlib
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

# Distributions that touch a number on its way into a row.
_PACKAGES = (
    "rkdsearch",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "pyautoattack",
    "accelerate",
    "optuna",
    "cmaes",
    "moocore",
    "ray",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
)


@dataclass(frozen=True)
class Provenance:
    """Code and command of this process."""

    version: str  # of rkdsearch
    versions: dict[str, str]  # of Python and of the packages that touch a number
    git_commit: str | None
    git_diff_sha256: str | None
    command: str  # the whole command line


def provenance() -> Provenance:
    """The provenance of what this process computes."""
    return Provenance(version("rkdsearch"), versions(), git_commit(), git_diff_sha256(), command())


@lru_cache(maxsize=1)
def began() -> datetime:
    """Time of the first call in this process."""
    return datetime.now(UTC)


def command() -> str:
    """The command line of this process, as a shell reads it."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(["rkdsearch" if words[0] == "__main__.py" else words[0], *words[1:]])


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that touch a number, by name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """Commit of the code, with `-dirty` where its files were changed.

    None outside a checkout of rkdsearch: inside another project's repository, a virtual
    environment of it or a copy, the commit would be that project's.
    """
    # The repository is ours where this package stands at its top and its files are tracked.
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != _PACKAGE.parent:
        return None
    if not _git("ls-files", "--error-unmatch", "__init__.py") or not _ours(Path(top)):
        return None
    # git is looked up in PATH, as everywhere
    return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


@lru_cache(maxsize=1)
def git_diff_sha256() -> str | None:
    """sha256 of the changes since the commit, new files of the package included; None without."""
    commit = git_commit()
    if commit is None:
        return None
    # -z: other letters than ASCII are quoted else
    listed = _git("ls-files", "-z", "--others", "--exclude-standard", "--", str(_PACKAGE)) or ""
    # a link that leads nowhere is an editor's lock
    new = sorted(name for name in listed.split("\0") if name and (_PACKAGE / name).is_file())
    changed = _git("diff", "HEAD", "--binary") or ""
    if not changed and not new:
        return None
    digest = hashlib.sha256(changed.encode(errors="surrogateescape"))
    for name in new:
        digest.update(f"\n{name}\n".encode(errors="surrogateescape"))
        digest.update((_PACKAGE / name).read_bytes())
    return digest.hexdigest()


def _ours(top: Path) -> bool:
    """True where the repository's project is this one."""
    try:
        return 'name = "rkdsearch"' in (top / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return False


def _git(*words: str) -> str | None:
    return git(_PACKAGE, *words)


def python_files(folder: Path) -> list[Path]:
    """Python files in a folder and its sub-folders, sorted by their paths relative to it."""
    files = (file for file in folder.rglob("*.py") if file.is_file())
    return sorted(files, key=lambda file: file.relative_to(folder))


def git(folder: Path, *words: str) -> str | None:
    """Output of a git command in a folder; None where it fails or git is missing."""
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours
            ["git", *words],  # noqa: S607 - git is looked up in PATH, as everywhere
            cwd=folder,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
