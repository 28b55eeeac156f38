"""Two studies' pages: an honest one, and one whose every text is an attack."""

from pathlib import Path

import pytest

from rkdsearch.reporting import page
from tests.results.factory import make_study

EVIL = "</script><img src=x onerror=document.title='owned'>{{ 7 * 7 }}\u2028'\"&<b>"


@pytest.fixture(scope="session")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evil")
    make_study(folder, trials=24, running=2, evil=EVIL)
    return page.build(folder)


@pytest.fixture(scope="session")
def good_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_study(folder)
    return folder


@pytest.fixture(scope="session")
def good(good_study: Path) -> str:
    return page.build(good_study).read_text(encoding="utf-8")
