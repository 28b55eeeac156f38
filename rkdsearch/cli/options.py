"""Options that several commands share, and the parser of overrides."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from cyclopts import Parameter, Token

from rkdsearch.errors import FileError
from rkdsearch.local_path import local_path, refused_url


def _path(_kind: type, tokens: Sequence[Token]) -> Path:
    """The path as it was typed: cyclopts' own would have lost a slash of `s3://`."""
    return local_path(tokens[0].value)


def no_url(_kind: object, text: str) -> None:
    """Raise FileError where a path on other machines is a URL."""
    if (refusal := refused_url(text)) is not None:
        raise FileError(refusal)


LocalPath = Annotated[Path, Parameter(converter=_path)]  # every path of every command
AllowImport = Annotated[
    tuple[str, ...],
    Parameter(
        negative=(),
        show_default=False,
        help=("Packages of yours from which methods, networks and images may be imported."),
    ),
]
Address = Annotated[
    str | None, Parameter(help="Address of a Ray cluster, or `auto`; default: this machine.")
]


def _is_package(word: str) -> bool:
    """True where a module of this name can be imported: the name of a method or a folder is none.

    A folder without code counts for Python as a package, and has no origin. A module of Python's
    own, such as `test`, is no package of the user's.
    """
    standard = word in sys.stdlib_module_names or word == "test"  # which is not listed there
    found = find_spec(word) if word.isidentifier() and not standard else None
    return found is not None and found.origin is not None


# Options that take several values, and what one more value looks like: any other word is the next
# argument. An attack may be misspelt, a folder of that name is the study.
_LISTS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "--attacks": lambda word: word.isidentifier() and not Path(word).exists(),
        "--eps": lambda word: re.fullmatch(r"[\d.]+(e-?\d+)?(/[\d.]+)?", word) is not None,
        "--severity": str.isdigit,
        "--allow-import": _is_package,
    }
)


def repeated(words: Iterable[str]) -> Iterator[str]:
    """The command line with an option before each value of a list.

    `--attacks clean pgd20` becomes `--attacks clean --attacks pgd20`.
    """
    option, first = "", False
    for word in words:
        if word.startswith("--"):
            name, sign, _ = word.partition("=")
            option, first = (name if name in _LISTS else ""), not sign
        elif option and not first:
            if not _LISTS[option](word):
                option = ""
            else:
                yield option
        else:
            first = False
        yield word


def parsed(texts: Iterable[str]) -> dict[str, Any]:
    """Texts such as `section.field=value` as names and values, which are read as YAML.

    Raises ConfigError for a text without a name, without an equals sign, or whose value is no YAML.
    """
    import yaml

    from rkdsearch.errors import ConfigError

    values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(
                f"{text}: an override is section.field=value, such as optimizer.lr=0.05"
            )
        if name in values:
            raise ConfigError(f"{text}: {name} is given twice on the command line; leave one out")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"{text}: the value is not YAML: {' '.join(str(error).split())}"
            ) from None
        if isinstance(values[name], dict) and not value.lstrip().startswith("{"):
            raise ConfigError(
                f"{name}: a colon at the end or before a space makes '{value}' a section; write the"
                " value directly after the colon, such as data.name=folder:PATH, or put a section"
                " in {...}"
            )
    return values
