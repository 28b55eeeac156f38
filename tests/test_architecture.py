"""Rules of the project that no linter knows.

Each checker yields what it found. A test shows that each of them can find anything.
"""

import ast
import fnmatch
import re
import socket
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import cast

import pytest

from tests.conftest import is_public

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rkdsearch"

TOP_LEVEL = {
    "pyproject.toml", "rkdsearch", "search_spaces", "analysis", "tests", "cluster.yaml", "docs",
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile", "requirements.lock",
    ".ci", ".gitignore", ".pre-commit-config.yaml",
}  # fmt: skip
MAY_READ_TEST_IMAGES = (
    "rkdsearch/data/",
    "rkdsearch/evaluation/other_images.py",
    "rkdsearch/cli/evaluate.py",
)
NOT_METHODS = {
    "__init__",
    "__main__",
    "inner",
    "describe",
    "natural",
    "cgard",
}  # natural training has no paper; CGARD's preprint has no public address
NAMELESS = {"common", "helper", "helpers", "manager", "misc", "tools", "util", "utils"}
SLOW_TO_IMPORT = {"pyautoattack", "sklearn", "timm", "torchvision"}
# Brackets in the middle, so that this file does not name what it forbids.
REGISTRY = re.compile(
    r"p[y]pi\.org|python[h]osted\.|registry\.npm[j]s|download\.py[t]orch\.org|index-url["
    r" =]+\S*:/[/]"
)
CLAUSE = re.compile(r"(What|Who|Whether|How|Where|When|Which|Why|By what)\b")
LONGEST = 300  # lines of code in a file, without docstrings, comments and blank lines
MACHINE = re.compile(r"(?<![\w.])/(?:work|farm|root)/\w")


@cache
def files() -> tuple[Path, ...]:
    """The files that git tracks or would track.

    In an unpacked archive: all that .gitignore does not name.
    """
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
        return tuple(sorted(ROOT / name for name in listed if name and (ROOT / name).is_file()))
    except (OSError, subprocess.CalledProcessError):
        ignored = [
            ".git",
            "PKG-INFO",  # of a source distribution
            *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line),
        ]
        found = (path for path in ROOT.rglob("*") if path.is_file())
        return tuple(
            sorted(
                p
                for p in found
                if not any(
                    fnmatch.fnmatch(part, i) for part in p.relative_to(ROOT).parts for i in ignored
                )
            )
        )


def sources(under: Path = PACKAGE) -> dict[str, str]:
    """Python text by path from the root."""
    return {
        p.relative_to(ROOT).as_posix(): p.read_text()
        for p in files()
        if p.suffix == ".py" and p.is_relative_to(under)
    }


def prints(path: str, text: str) -> Iterable[str]:
    if path.startswith("rkdsearch/cli/"):
        return
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ):
            yield f"{path}:{node.lineno} prints; only rkdsearch/cli does"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {
            "sys.stdout",
            "sys.stderr",
            "rich.print",
        }:
            yield f"{path}:{node.lineno} writes to {ast.unparse(node)}; only rkdsearch/cli prints"


def reads_test_images(path: str, text: str) -> Iterable[str]:
    if path.startswith(MAY_READ_TEST_IMAGES):
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case (
                ast.Name(id="load_test")
                | ast.Attribute(attr="load_test")
                | ast.alias(name="load_test")
            ):
                yield (
                    f"{path}:{getattr(node, 'lineno', '?')} uses load_test; only the test"
                    " evaluation reads test images"
                )


def imports_slowly(path: str, text: str) -> Iterable[str]:
    module_level = [
        node
        for node in ast.parse(text).body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    for node in (inner for outer in module_level for inner in ast.walk(outer)):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module)):
                names = [module]
            case _:
                continue
        for name in names:
            if name.split(".")[0] in SLOW_TO_IMPORT:
                yield (
                    f"{path}:{node.lineno} imports {name} at module level; import it in the"
                    " function that uses it"
                )


def names_no_paper(path: str, text: str) -> Iterable[str]:
    stem = Path(path).stem
    if Path(path).parent != Path("rkdsearch/methods"):
        return
    if stem in NOT_METHODS or stem.startswith("_"):
        return
    if "https://" not in (ast.get_docstring(ast.parse(text)) or ""):
        yield f"{path} is a method without a link to its paper in the module's docstring"


def has_no_name(path: str, text: str) -> Iterable[str]:
    for part in Path(path).with_suffix("").parts:
        if part in NAMELESS:
            yield f"{path}: '{part}' says nothing about what is in it"


def names_a_machine(path: str, text: str) -> Iterable[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for found in (*REGISTRY.finditer(line), *MACHINE.finditer(line)):
            yield (
                f"{path}:{number} names a registry's host or a path of one machine: {found.group()}"
            )


def docstrings(text: str) -> Iterable[ast.Expr]:
    """The docstrings of the module and of all its classes and functions."""
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            yield cast(ast.Expr, node.body[0])


def opens_with_a_clause(path: str, text: str) -> Iterable[str]:
    for expression in docstrings(text):
        if opening := CLAUSE.match(ast.literal_eval(expression.value).lstrip()):
            yield (
                f"{path}:{expression.lineno} has a docstring that opens with '{opening.group()}';"
                " begin with a noun or a verb"
            )


def is_too_long(path: str, text: str) -> Iterable[str]:
    prose = {
        number
        for expression in docstrings(text)
        for number in range(expression.lineno, (expression.end_lineno or 0) + 1)
    }
    count = sum(
        number not in prose and line.strip() != "" and not line.strip().startswith("#")
        for number, line in enumerate(text.splitlines(), start=1)
    )
    if count > LONGEST:
        yield f"{path} has {count} lines of code, at most {LONGEST} are readable; cut it by subject"


def is_too_wide(path: str, text: str) -> Iterable[str]:
    """Lines of prose or of the page that are wider than 100 columns.

    Tables, code blocks, headings, links and HTML of Markdown apart, which cannot be wrapped, and
    single words.
    """
    code = False
    for number, line in enumerate(text.splitlines(), start=1):
        code ^= path.endswith(".md") and line.startswith("```")
        unbreakable = path.endswith(".md") and line.startswith(("|", "<", "#", "!["))
        if len(line) > 100 and " " in line.strip() and not code and not unbreakable:
            yield f"{path}:{number} has {len(line)} columns, at most 100 are read at once"


def unexpected(names: Iterable[str]) -> Iterable[str]:
    return (
        f"{name} is not part of the top level; see docs/architecture.md for where things go"
        for name in sorted(set(names) - TOP_LEVEL)
    )


def unmirrored(modules: Iterable[str], tests: Iterable[str]) -> Iterable[str]:
    """Packages and tests that do not mirror each other.

    A package without tests in the folder of its name, a top-level module without its test file, a
    test folder of no package.
    """
    folders = {
        Path(t).parts[1]
        for t in tests
        if len(Path(t).parts) > 2 and Path(t).name.startswith("test_")
    }
    tested = {
        Path(t).stem.removeprefix("test_")
        for t in tests
        if len(Path(t).parts) == 2 and Path(t).name.startswith("test_")
    }
    packages = {Path(m).parts[1] for m in modules if len(Path(m).parts) > 2}
    # errors.py holds names alone, and the two dunder files only import the layers below them.
    singles = {Path(m).stem for m in modules if len(Path(m).parts) == 2} - {
        "__init__",
        "__main__",
        "errors",
    }
    yield from (
        f"rkdsearch/{name}/ has no tests/{name}/test_*.py" for name in sorted(packages - folders)
    )
    yield from (
        f"rkdsearch/{name}.py has no tests/test_{name}.py"
        for name in sorted(singles - tested - folders)
    )
    yield from (
        f"tests/{name}/ tests no package of that name"
        for name in sorted(folders - packages - singles - {"analysis"})
    )


def test_no_page_is_too_wide_and_the_check_can_fail() -> None:
    generated = {ROOT / "docs" / f"{name}.md" for name in ("methods", "results", "run")}
    written = [p for p in files() if p.suffix in {".md", ".j2", ".css", ".js", ".yaml", ".yml"}]
    found = [
        fault
        for path in set(written) - generated
        for fault in is_too_wide(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    assert found == []
    assert list(is_too_wide("docs/x.md", "word " * 21)) != []
    assert list(is_too_wide("docs/x.md", f"```\n{'word ' * 21}\n```\n| {'cell ' * 21} |")) == []
    assert list(is_too_wide("rkdsearch/reporting/page.css", "| word " * 21)) != []


EACH_FILE: dict[Callable[[str, str], Iterable[str]], tuple[str, str]] = {
    # checker: (a path, a text) in which it must find something
    prints: ("rkdsearch/training/x.py", "def f():\n    print('epoch')"),
    reads_test_images: ("rkdsearch/execution/search.py", "from rkdsearch.data import load_test"),
    imports_slowly: (
        "rkdsearch/data/x.py",
        "try:\n    from torchvision import datasets\nexcept ImportError: ...",
    ),
    names_no_paper: ("rkdsearch/methods/x.py", '"""A method."""'),
    has_no_name: ("rkdsearch/data/utils.py", ""),
}
ALSO_IN_ANALYSIS: dict[Callable[[str, str], Iterable[str]], tuple[str, str]] = {
    opens_with_a_clause: ("rkdsearch/x.py", 'def f():\n    """Whether x is y."""'),
    is_too_long: ("analysis/x.py", "x = 1\n" * (LONGEST + 1)),
}


@pytest.mark.parametrize("checker", EACH_FILE, ids=lambda c: c.__name__)
def test_no_source_file(checker: Callable[[str, str], Iterable[str]]) -> None:
    assert [finding for path, text in sources().items() for finding in checker(path, text)] == []


@pytest.mark.parametrize("checker", ALSO_IN_ANALYSIS, ids=lambda c: c.__name__)
def test_no_source_file_or_script(checker: Callable[[str, str], Iterable[str]]) -> None:
    texts = sources() | sources(ROOT / "analysis")
    assert [finding for path, text in texts.items() for finding in checker(path, text)] == []


@pytest.mark.parametrize(
    ("checker", "bad"),
    (EACH_FILE | ALSO_IN_ANALYSIS).items(),
    ids=lambda c: getattr(c, "__name__", ""),
)
def test_each_checker_can_fail(
    checker: Callable[[str, str], Iterable[str]], bad: tuple[str, str]
) -> None:
    assert len(list(checker(*bad))) == 1


def test_what_the_checkers_allow() -> None:
    assert list(prints("rkdsearch/cli/x.py", "print(1)")) == []
    assert list(reads_test_images("rkdsearch/cli/evaluate.py", "data.load_test(config)")) == []
    assert list(reads_test_images("rkdsearch/execution/trial.py", "data.load_test(config)")) != []
    assert list(imports_slowly("rkdsearch/data/x.py", "def f():\n    import torchvision")) == []
    long_prose = '"""Long.\n' + "\n" * LONGEST + '"""\n' + "# a comment\n" * LONGEST
    assert list(is_too_long("rkdsearch/x.py", long_prose + "x = 1\n" * LONGEST)) == []
    assert list(opens_with_a_clause("rkdsearch/x.py", '"""Wherever x is."""')) == []
    assert (
        list(names_no_paper("rkdsearch/methods/x.py", '"""Them (https://arxiv.org/abs/1)."""'))
        == []
    )


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    texts = {
        p.relative_to(ROOT).as_posix(): p.read_text(errors="replace")
        for p in files()
        if p.stat().st_size < 2_000_000
    }
    assert [
        finding for path, text in texts.items() for finding in names_a_machine(path, text)
    ] == []


def test_registries_and_machine_paths_are_recognised() -> None:
    for line in (
        "https://py" + "pi.org/simple",
        "see /wor" + "k/main",
        "extra-index" + "-url = https://mirror.example/simple",
    ):
        assert len(list(names_a_machine("x", line))) == 1
    assert list(names_a_machine("x", "https://arxiv.org/abs/2108.07969 and frame/work/flow")) == []


def test_the_top_level_is_the_documented_one() -> None:
    assert list(unexpected(p.relative_to(ROOT).parts[0] for p in files())) == []
    assert {p.relative_to(ROOT).parts[0] for p in files()} == TOP_LEVEL


def test_a_new_name_at_the_top_is_noticed() -> None:
    assert len(list(unexpected(["README.md", "scripts"]))) == 1


def test_the_tests_mirror_the_package() -> None:
    modules, tests = list(sources()), list(sources(ROOT / "tests"))
    assert list(unmirrored(modules, tests)) == []


def test_a_missing_mirror_is_noticed() -> None:
    modules = ["rkdsearch/errors.py", "rkdsearch/losses.py", "rkdsearch/data/splits.py"]
    assert list(unmirrored(modules, ["tests/test_losses.py", "tests/data/test_splits.py"])) == []
    assert (
        len(list(unmirrored(modules, ["tests/data/__init__.py", "tests/models/test_resnet.py"])))
        == 3
    )


def test_every_target_of_the_makefile_says_what_it_is_for() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    assert set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)) == phony
    assert not re.search(r"\|\| true|^\t-", makefile, re.MULTILINE)  # no target hides a failure


def test_a_test_that_uses_the_network_fails() -> None:
    with pytest.raises(OSError, match="tests use no network"), socket.socket() as outside:
        outside.connect(("8.8.8.8", 53))
    assert [is_public(a) for a in (("example.org", 443), ("1.1.1.1", 80))] == [True, True]
    assert [
        is_public(a) for a in (("127.0.0.1", 80), ("::1", 80), ("192.168.0.7", 80), "/run/socket")
    ] == [False] * 4
