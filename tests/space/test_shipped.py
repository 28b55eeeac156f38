"""Search spaces by name: from a checkout, and from a package that carries them."""

import shutil
from pathlib import Path

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.space import shipped
from rkdsearch.space.space import SearchSpace

ROOT = Path(__file__).parents[2]


def test_a_shipped_space_is_found_by_its_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SearchSpace.load("rkdsearch:digits").name == "digits"
    assert shipped.located("rkdsearch:digits.yaml") == ROOT / "search_spaces" / "digits.yaml"
    assert shipped.located("mine.yaml", Path("there")) == Path("there/mine.yaml")


def test_a_space_of_ones_own_extends_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: rkdsearch:digits_all_methods\nfixed: {method.name: trades}\nfirst: []\n"
    )
    mine = SearchSpace.load(tmp_path / "mine.yaml")
    assert mine.method_names == ("trades",)
    assert mine.epochs == SearchSpace.load("rkdsearch:digits_all_methods").epochs


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rkdsearch:digit", "did you mean 'rkdsearch:digits'?"),
        ("rkdsearch:", "there are rkdsearch:cifar100_resnet18, "),
        ("rkdsearch:../README", "there are rkdsearch:cifar100_resnet18, "),
    ],
)
def test_an_unknown_name_is_one_sentence(name: str, hint: str) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.load(name)
    assert str(error.value).startswith(f"{name}: no such search space comes with rkdsearch; {hint}")


def test_a_package_that_carries_the_spaces_reads_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "search_spaces").mkdir()
    shutil.copy(ROOT / "search_spaces" / "digits.yaml", tmp_path / "search_spaces" / "own.yaml")
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path)
    assert list(shipped.files()) == ["rkdsearch:own"]
