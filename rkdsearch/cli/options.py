"""Options that several commands share, and what reads them."""

from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

# One value an option: what stands behind it is the next argument, never silently one more value.
AllowImport = Annotated[
    tuple[str, ...],
    Parameter(
        negative=(),
        show_default=False,
        help=(
            "A package of your own from which methods and networks may be imported; repeat it for"
            " several."
        ),
    ),
]
Address = Annotated[
    str | None, Parameter(help="A Ray cluster's address, or `auto`; none given: this machine.")
]


def parsed(texts: Iterable[str]) -> dict[str, Any]:
    """`section.field=value` as names and values, read as YAML reads them. Raises ConfigError for a text without a name or an equals sign."""
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
                f"{name}: a colon at the end or before a space makes '{value}' a section; write its"
                " value right behind the colon, such as data.name=folder:PATH, or {...} around"
                " what is a section"
            )
    return values
