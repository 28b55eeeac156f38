"""Fields that only some settings of a method use.

    natural_weight: Annotated[Factor, When("form", iad2=0.25), Field(description="a2")] = UNUSED

is 0.25 where `form` is `iad2`. Elsewhere the field is None and a value for it is an error, because
nothing would read it. A search space has the same condition as `when: {method.form: [iad2]}`. A
written config is read back unchanged: None is written as null.
"""

from typing import Any, cast

from pydantic import GetCoreSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from rkdsearch.methods.base.method import Method

UNUSED: Any = None  # the default of a conditional field: no value, of any type


class When:
    """Mark of a field that is used only for some values of the field `of`.

    `defaults` maps these values to the field's default.
    """

    def __init__(self, of: str, **defaults: float | str) -> None:
        self.of, self.defaults = of, defaults

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """None is legal beside the field's own values.

        The static type leaves None out, because code that reads the field is conditional too.
        """
        return core_schema.nullable_schema(handler(source))


def condition(info: FieldInfo) -> When | None:
    """The condition on a field, or None."""
    return next((m for m in info.metadata if isinstance(m, When)), None)


class ConditionalMethod(Method):
    """Abstract: a method with fields marked by `When`."""

    @model_validator(mode="before")
    @classmethod
    def _settle_conditional_fields(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        settled = cast("dict[str, Any]", dict(data))
        for name, info in cls.model_fields.items():
            when = condition(info)
            if when is None:
                continue
            choice = settled.get(when.of, cls.model_fields[when.of].default)
            if not isinstance(choice, str):
                continue  # pydantic reports it
            if choice in when.defaults and settled.get(name) is None:
                settled[name] = when.defaults[choice]
            elif choice not in when.defaults and settled.get(name) is not None:
                homes, got = " or ".join(when.defaults), settled[name]
                raise ValueError(
                    f"{name} is used where {when.of} is {homes}, and {when.of} is {choice}; leave"
                    f" {name} out (got {got})"
                )
        return settled
