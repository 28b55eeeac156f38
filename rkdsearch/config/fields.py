"""Field types that the sections of a run share."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SerializeAsAny

from rkdsearch import methods
from rkdsearch.methods import Method


def ratio(value: object) -> object:
    """The number of a ratio in text, such as `8/255`; any other value as it is."""
    if (
        isinstance(value, str)
        and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*", value))
        and float(found[2]) > 0
    ):
        return float(found[1]) / float(found[2])
    return value


def _sha256(text: str) -> str:
    """The digits in lower case, as `sha256sum` prints them; Windows prints capitals."""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text) is None:
        raise ValueError(
            f"must be 64 hexadecimal digits, got {text!r}; `sha256sum FILE` prints them"
        )
    return text.lower()


Pixels = Annotated[float, BeforeValidator(ratio), Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
SHA256 = Annotated[str, AfterValidator(_sha256)]


def describe_method(method: Method) -> dict[str, Any]:
    """Name and fields of a method: `{"name": "rslad", "temperature": 1.0, ...}`."""
    return {"name": methods.name_of(method), **method.model_dump(mode="json")}


MethodField = Annotated[SerializeAsAny[Method], PlainSerializer(describe_method)]
