"""Options that several commands share, and what reads them."""

from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

AllowImport = Annotated[
    tuple[str, ...], Parameter(consume_multiple=True, help="Packages of your own from which methods and networks may be imported.")
]
Address = Annotated[str | None, Parameter(help="A Ray cluster's address, or `auto`; none given: this machine.")]


def parsed(texts: Iterable[str]) -> dict[str, Any]:
    """`section.field=value` as names and values, read as YAML reads them. Raises ConfigError for a text without a name or an equals sign."""
    import yaml

    from rkdsearch.errors import ConfigError

    values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"{text}: an override is section.field=value, such as optimizer.lr=0.05")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{text}: the value is not YAML: {' '.join(str(error).split())}") from None
    return values
