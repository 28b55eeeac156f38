"""`section.field=value` on the command line."""

from collections.abc import Iterable
from typing import Any


def parsed(texts: Iterable[str]) -> dict[str, Any]:
    """Dotted names and their values, read as YAML reads them. Raises ConfigError for a text without a name or an equals sign."""
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
