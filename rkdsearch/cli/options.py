"""Options that several commands share, and the parser of overrides."""

from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

# One value per option: a word after it is the next argument, never one more value.
AllowImport = Annotated[
    tuple[str, ...],
    Parameter(
        negative=(),
        show_default=False,
        help=(
            "A package of yours from which methods, networks and images may be imported; repeat"
            " the option for several."
        ),
    ),
]
Address = Annotated[
    str | None, Parameter(help="Address of a Ray cluster, or `auto`; default: this machine.")
]


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
