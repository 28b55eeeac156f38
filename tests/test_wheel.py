"""The wheel and the source distribution, as somebody without a checkout has them."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="builds the wheel and the sdist")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel (`site`) and source distribution (`source`)."""
    home = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(home)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(home.glob("*.whl"))) as wheel:
        wheel.extractall(home / "site")
    with tarfile.open(next(home.glob("*.tar.gz"))) as source:
        source.extractall(home, filter="data")
    next(p for p in home.iterdir() if p.is_dir() and p.name != "site").rename(home / "source")
    return home


def run(package: Path, folder: Path, *arguments: str) -> str:
    """Output of Python with this package on its path, in a folder that is no checkout."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=110,
        env={**os.environ, "PYTHONPATH": str(package), "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_wheel_has_the_package_and_the_spaces_and_nothing_else(built: Path) -> None:
    assert {p.name for p in (built / "site").iterdir()} == {
        "rkdsearch",
        "rkdsearch-0.1.0.dist-info",
    }
    package = built / "site" / "rkdsearch"
    assert {p.name for p in (package / "search_spaces").iterdir()} == {
        p.name for p in (ROOT / "search_spaces").iterdir()
    }
    assert (package / "py.typed").exists()
    assert (package / "reporting" / "page.html.j2").exists()


def test_the_wheel_reads_its_own_spaces(built: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: rkdsearch:digits_all_methods\n")
    code = """
import rkdsearch
from rkdsearch.space import shipped

print(rkdsearch.SearchSpace.load("mine.yaml").epochs)
print(shipped.located("rkdsearch:digits"))
"""
    epochs, place = run(built / "site", tmp_path, "-c", code).split()
    assert epochs == "54"
    assert Path(place) == built / "site" / "rkdsearch" / "search_spaces" / "digits.yaml"


@pytest.mark.long
def test_the_examples_of_the_front_page_work_from_the_wheel(built: Path, tmp_path: Path) -> None:
    space, single = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_space.yaml").write_text(space)
    (tmp_path / "run.yaml").write_text(single)
    site = built / "site"
    checked = run(site, tmp_path, "-m", "rkdsearch", "space", "check", "my_space.yaml")
    assert re.fullmatch(r"my_space.yaml: \d+ configurations checked, all legal; .*\n", checked)
    short = ("training.epochs=1", "teachers.robust.recipe.training.epochs=1")
    trained = run(site, tmp_path, "-m", "rkdsearch", "train", "run.yaml", *short)
    assert "best epoch 1: clean " in trained
    dry = ("tune", "rkdsearch:digits", "--trials", "24", "--study", "s", "--dry-run")
    assert "rkdsearch:digits: " in run(site, tmp_path, "-m", "rkdsearch", *dry)


@pytest.mark.long
def test_the_source_distribution_holds_what_its_tests_need(built: Path) -> None:
    cheap = ("tests/test_architecture.py", "tests/test_cluster_yaml.py", "tests/test_spaces.py")
    more = ("tests/test_public_names.py", "tests/space", "tests/analysis/test_record.py")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not long", *cheap, *more)
    source = built / "source"
    assert re.search(r"\d+ passed", run(source, source, *words))
