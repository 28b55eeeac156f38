from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from rkdsearch.section import Section, holds_numbers


class Inner(Section):
    depth: int = 1


class Outer(Section):
    count: int = 1
    share: float | None = None
    steps: tuple[int, ...] = ()
    pairs: dict[str, float] = Field(default_factory=dict)
    inner: Inner = Inner()
    on: bool = False
    either: float | bool = 0.0
    anything: Any = None
    rate: float | Literal["auto"] = 0.1
    channels: Literal[1, 3] | None = None


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"count": True}, ("count",)),
        ({"share": False}, ("share",)),
        ({"steps": [1, True]}, ("steps",)),
        ({"pairs": {"a": True}}, ("pairs",)),
        ({"inner": {"depth": True}}, ("inner", "depth")),
        ({"rate": True}, ("rate",)),
        ({"channels": True}, ("channels",)),
    ],
)
def test_true_is_no_number_and_the_error_names_its_field(
    values: dict[str, Any], place: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer(**values)
    (error,) = caught.value.errors()
    assert error["loc"] == place
    assert error["msg"] == "must be a number; YAML reads true, yes and on as a truth value"


def test_true_stays_what_it_is_where_a_truth_value_may_stand() -> None:
    found = Outer(on=True, either=True, anything=[True], count=1)
    assert (found.on, found.either, found.anything, found.count) == (True, True, [True], 1)


def test_a_description_never_changes_and_has_no_other_names() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().count = 2
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Outer(counts=2)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="finite"):
        Outer(share=float("inf"))


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (int, True),
        (tuple[float, float] | None, True),
        (bool | int, False),
        (list[Any], False),
        (str, False),
    ],
)
def test_a_field_of_numbers_is_known_by_its_type(kind: object, numbers: bool) -> None:
    assert holds_numbers(kind) is numbers
