"""The names of `import rkdsearch`: for readers, for people who mistype, and for mypy."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rkdsearch
from rkdsearch.errors import ConfigError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_public_name_is_there_and_dir_lists_it() -> None:
    assert {"tune", "evaluate", "report", "export", "read_study", "draw_front"} <= set(
        rkdsearch.__all__
    )
    for name in rkdsearch.__all__:
        assert getattr(rkdsearch, name) is not None
    assert {*rkdsearch.__all__, "__version__"} <= set(dir(rkdsearch))
    assert re.fullmatch(r"\d+\.\d+\.\d+", rkdsearch.__version__)


def test_what_a_type_checker_reads_is_what_is_found() -> None:
    tree = ast.parse(Path(rkdsearch.__file__).read_text(encoding="utf-8"))
    typed, lazy = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(typed.test) == "TYPE_CHECKING"
    names = {
        alias.asname or alias.name
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } - {"build", "load"}
    assert {*names, "build_config", "load_config"} == set(rkdsearch.__all__)
    # a `__getattr__` that mypy sees would make every misspelt name legal
    assert ast.unparse(lazy.test) == "not TYPE_CHECKING"
    assert "__getattr__" not in {getattr(node, "name", "") for node in tree.body}


def test_importing_a_package_below_does_not_hide_a_function() -> None:
    import rkdsearch.exporting.trial
    import rkdsearch.reporting.page

    assert callable(rkdsearch.report)
    assert callable(rkdsearch.export)


def test_a_misspelt_name_is_told_the_nearest_one() -> None:
    with pytest.raises(
        AttributeError, match=r"^rkdsearch has no 'Triner'; did you mean 'Trainer'\?$"
    ):
        rkdsearch.Triner  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"^rkdsearch has no 'xyz'; there are Companion, "):
        rkdsearch.xyz  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Triner'"):
        from rkdsearch import Triner  # type: ignore[attr-defined]  # noqa: F401
    assert not hasattr(rkdsearch, "__wrapped__")


def test_python_adds_no_second_suggestion() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import rkdsearch; rkdsearch.Triner"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert run.stderr.lower().count("did you mean") == 1


@pytest.mark.long
def test_a_misspelt_name_is_an_error_for_mypy() -> None:
    code = "from rkdsearch import Triner\nimport rkdsearch\nrkdsearch.tune('s', 'f', trails=2)"
    run = subprocess.run(
        # without our settings, whose list of files excludes a program on the command line
        [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", "-c", code],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert 'Module "rkdsearch" has no attribute "Triner"' in run.stdout
    assert 'Unexpected keyword argument "trails" for "tune"; did you mean "trials"?' in run.stdout


def test_the_front_page_needs_the_top_level_alone() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    for node in (node for text in blocks for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.ImportFrom) and node.module != "pathlib":
            assert node.module == "rkdsearch"
            assert {alias.name for alias in node.names} <= set(rkdsearch.__all__)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "rkdsearch":
            assert node.attr in rkdsearch.__all__


def test_allow_import_is_the_command_lines() -> None:
    with pytest.raises(ConfigError, match="must name a package"):
        rkdsearch.allow_import("my lab")
