"""docs/methods.md is what the code says."""

import importlib
from pathlib import Path

import pytest

from rkdsearch import methods, plugins
from rkdsearch.errors import ConfigError
from rkdsearch.methods.describe import describe, page

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_of_methods_is_in_step_with_their_files() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m rkdsearch.methods docs/methods.md"
    )


@pytest.mark.parametrize("name", methods.names())
def test_every_method_says_its_problem_its_defaults_origin_and_what_confirms_it(name: str) -> None:
    text = importlib.import_module(f"rkdsearch.methods.{name}").__doc__ or ""
    outer, inner = text.index("\nouter "), text.index("\ninner ")
    assert 0 < outer < inner
    assert "\nConfirmed: " in text
    assert "\nDefaults: " in text or name == "natural"  # it has none


@pytest.mark.parametrize("name", methods.names())
def test_every_field_says_what_it_means(name: str) -> None:
    fields = methods.load(name).model_fields
    assert [field for field, info in fields.items() if not info.description] == []


@pytest.mark.parametrize("name", ["crdnd", "ardir"])
def test_a_reconstruction_says_so_wherever_it_is_described(name: str) -> None:
    assert "RECONSTRUCTED" in describe(name)
    assert "only the abstract" in (methods.load(name).reconstructed or "")
    row = next(line for line in page().splitlines() if line.startswith(f"| [`{name}`]"))
    assert "**RECONSTRUCTED.**" in row


def test_a_description_gives_fields_defaults_and_laws() -> None:
    text = describe("iad")
    assert "trust_exponent: 0.1 where trust is soft\n      beta; >= 0" in text
    assert "warm_up: 0.3 where form is iad1; 0.2 where form is iad2" in text
    assert "Teachers: robust, natural (by setting). Attack: uniform, train." in text
    assert "adversarial_weight: 0.8333\n      alpha; >= 0, <= 1" in describe("rslad")


def test_a_description_of_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rslad'"):
        describe("rslda")


def test_a_strangers_method_is_described_as_ours_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_allowed", set())
    with pytest.raises(ConfigError, match="allow it with --allow-import tests"):
        describe("tests.strangers.soft_at")
    monkeypatch.setattr(plugins, "_allowed", {"tests.strangers"})
    text = describe("tests.strangers.soft_at")
    assert text.startswith("tests.strangers.soft_at: A third party's method")
    assert "Teachers: none. Attack: gaussian, eval." in text
    assert "smoothing: 0.1\n      s: the share" in text
    bare = describe("tests.strangers.required")
    assert "Teachers: as its fields say." in bare
    assert "weight: required\n" in bare
