"""Import weight: no command and no layer imports a heavy library that it does not need.

Reading a study does not wait for torch, a worker not for torchvision, and training needs no Ray.
Each case runs in a fresh interpreter, because this one's imports would hide the answer.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.results.factory import make_study

ROOT = Path(__file__).parents[1]
HEAVY = {"accelerate", "optuna", "pandas", "ray", "sklearn", "timm", "torch", "torchvision"}
PROBE = """
import json, sys
watched = set(sys.argv[1].split())
try:
    exec(sys.stdin.read())
except SystemExit as exit:
    assert not exit.code, f"exit code {exit.code}"
print("\\n" + json.dumps(sorted(watched & set(sys.modules))))
"""


def imported(code: str, *, path: Path = ROOT, watched: set[str] = HEAVY) -> set[str]:
    """Those of the watched top-level modules that a fresh interpreter imports to run `code`."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, " ".join(sorted(watched))],
        input=code, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def command(*arguments: str) -> str:
    return (
        f"import sys; sys.argv = {['rkdsearch', *arguments]!r}\nfrom rkdsearch.__main__ import"
        " main\nmain()"
    )


@pytest.mark.parametrize("arguments", [("--help",), ("tune", "--help")], ids=" ".join)
def test_asking_for_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(command(*arguments)) == set()


@pytest.mark.parametrize("name", ["report", "status"])
def test_reading_a_study_imports_neither_torch_nor_ray(name: str, tmp_path: Path) -> None:
    make_study(tmp_path, trials=3)
    assert imported(command(name, str(tmp_path))) == {"pandas"}


def test_the_package_itself_imports_nothing_heavy() -> None:
    assert imported("import rkdsearch, rkdsearch.errors") == set()


def test_every_method_and_the_layers_up_to_evaluation_import_torch_alone() -> None:
    code = (
        "from rkdsearch import evaluation, methods\nfor name in methods.names(): methods.load(name)"
    )
    assert imported(code) <= {"torch", "pandas"}


def test_training_imports_neither_ray_nor_torchvision() -> None:
    assert imported("import rkdsearch.training.trainer") <= {"torch", "pandas", "accelerate"}


def test_a_run_does_not_import_scipy() -> None:
    assert imported("import rkdsearch.training.run", watched={"scipy"}) == set()


def test_a_trial_imports_tune_and_nothing_else_of_the_search() -> None:
    found = imported(
        "import rkdsearch.execution.trial, rkdsearch.execution.trainable",
        watched=HEAVY | {"ray.tune"},
    )
    assert found == {"torch", "pandas", "accelerate", "ray", "ray.tune"}


def test_a_process_of_a_gang_does_not_import_tune() -> None:
    assert imported("import rkdsearch.execution.gang", watched={"ray.tune"}) == set()


def test_this_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "deep.py").write_text("import torch")
    (tmp_path / "shallow.py").write_text("import deep")
    assert imported("import shallow", path=tmp_path) == {"torch"}
    assert imported("def later(): import shallow", path=tmp_path) == set()
    assert imported("import shallow, sys; sys.argv = ['rkdsearch', '--help']", path=tmp_path) == {
        "torch"
    }
    with pytest.raises(AssertionError, match="exit code 2"):
        imported("raise SystemExit(2)", path=tmp_path)
