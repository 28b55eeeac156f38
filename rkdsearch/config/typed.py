"""Values as the fields of a run keep them: `1e-1` and `8/255` as text become their numbers.

YAML 1.1 reads `1e-1` as text, and a ratio is text everywhere. A run's own checks type each value,
but a search compares and ranks values before there is a run.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from rkdsearch import methods
from rkdsearch.config.run import TrainConfig
from rkdsearch.config.sentences import section_of
from rkdsearch.errors import ConfigError
from rkdsearch.section import holds_numbers, no_truth_value


def typed(name: str, value: Any, method_names: Iterable[str] = ()) -> Any:
    """The value of the field `name` as a run keeps it, in plain Python types.

    Fields `method.*` are those of the first of the named methods that has the field. What the field
    refuses, and what no field has, is returned unchanged: building the run names it.
    """
    adapter = _adapter(name, tuple(method_names))
    if value is None or adapter is None:
        return value
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json", warnings=False)
    except ValidationError:
        return value


def typed_leaves(values: Mapping[str, Any], method_names: Iterable[str] = ()) -> dict[str, Any]:
    """Values by dotted name, each as a run keeps it."""
    names = tuple(method_names)
    return {name: typed(name, value, names) for name, value in values.items()}


def default(name: str) -> Any:
    """The value of the field `name` where none is given; None where it must be given."""
    field = _field(name, ())
    return None if field is None or field.is_required() else field.default


@cache
def _adapter(name: str, method_names: tuple[str, ...]) -> TypeAdapter[Any] | None:
    field = _field(name, method_names)
    if field is None or section_of(field.annotation)[1] is not None:
        return None
    # the name is a mark without meaning: `Annotated` needs one
    mark = BeforeValidator(no_truth_value) if holds_numbers(field.annotation) else name
    kind: Any = Annotated[(field.annotation, *field.metadata, mark)]
    return TypeAdapter(kind)


def _field(name: str, method_names: tuple[str, ...]) -> FieldInfo | None:
    kind: Any = TrainConfig
    *sections, last = name.split(".")
    for section in sections:
        field = kind.model_fields.get(section)
        kind = None if field is None else section_of(field.annotation)[1]
        if kind is None:
            return None
        if kind is methods.Method:
            return _method_field(last, method_names) if section == sections[-1] else None
    found: FieldInfo | None = kind.model_fields.get(last)
    return found


def _method_field(name: str, method_names: tuple[str, ...]) -> FieldInfo | None:
    for method in method_names:
        try:
            fields = methods.load(method).model_fields
        except ConfigError:
            continue  # building the run says why
        if name in fields:
            return fields[name]
    return None
