"""Import weight: no command and no layer imports a heavy library that it does not need.

Reading a study does not wait for torch, a worker not for torchvision, and training needs neither
Ray nor, until its rows are written, pandas. The cases run in fresh interpreters, because this one's
imports would hide the answer: in one for reading and one for all else, the light ones first,
because what a case may import, every later case may import too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.results.factory import make_study

ROOT = Path(__file__).parents[1]
WATCHED = {
    *("accelerate", "optuna", "pandas", "ray", "ray.tune", "scipy", "sklearn", "sympy"),
    *("timm", "torch", "torch._dynamo", "torch.distributed.tensor", "torchvision"),
}
PROBE = """
import json, sys
watched, found = set(sys.argv[1].split()), {}
for name, code in json.load(sys.stdin).items():
    try:
        exec(code, {})
    except SystemExit as exit:
        assert not exit.code, f"exit code {exit.code}"
    found[name] = sorted(watched & set(sys.modules))
print("\\n" + json.dumps(found))
"""


def imported(cases: dict[str, str], *, path: Path = ROOT) -> dict[str, set[str]]:
    """The watched modules that a fresh interpreter has imported after each case's code."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, " ".join(sorted(WATCHED))],
        input=json.dumps(cases), capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "PYTHONPATH": str(path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return {name: set(found) for name, found in json.loads(run.stdout.splitlines()[-1]).items()}


def command(*arguments: str) -> str:
    return (
        f"import sys; sys.argv = {['rkdsearch', *arguments]!r}\nfrom rkdsearch.__main__ import"
        " main\nmain()"
    )


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What has been imported after each case, in this order."""
    study = tmp_path_factory.mktemp("study")
    make_study(study, trials=3)
    reading = {name: command(name, str(study)) for name in ("status", "report")}
    return imported(reading) | imported(
        {
            "package": "import rkdsearch, rkdsearch.errors",
            "--help": command("--help"),
            "tune --help": command("tune", "--help"),
            "methods": (
                "from rkdsearch import evaluation, methods\n"
                "for name in methods.names(): methods.load(name)"
            ),
            "size of a student": (
                "from rkdsearch.task import ImageTask\n"
                "from rkdsearch.models import ModelConfig, size_of\n"
                "size_of(ModelConfig(), ImageTask(10, 1, 8, 8))"
            ),
            "training": "import rkdsearch.training.trainer",
            "run": "import rkdsearch.training.run",
            "epoch": (
                "from rkdsearch import config\nfrom rkdsearch.training.trainer import Trainer\n"
                "short = {'training.epochs': 1, 'training.device': 'cpu', 'method.name': 'natural'}"
                # wide: gradients by autograd; narrow: convolutions as matrices
                "\nfor width in (None, 4):\n"
                "    student = {'name': 'small_cnn', 'width': width}\n"
                "    next(Trainer(config.build(short | {'student': student})).epochs())"
            ),
            "gang": "import rkdsearch.execution.gang",
            "trial": "import rkdsearch.execution.trial, rkdsearch.execution.trainable",
            "search": "import rkdsearch.execution.search",
        }
    )


@pytest.mark.parametrize("arguments", [("--help",), ("tune", "--help")], ids=" ".join)
def test_asking_for_help_imports_nothing_heavy(
    after: dict[str, set[str]], arguments: tuple[str, ...]
) -> None:
    assert after[" ".join(arguments)] == set()


@pytest.mark.parametrize("name", ["report", "status"])
def test_reading_a_study_imports_neither_torch_nor_ray(
    after: dict[str, set[str]], name: str
) -> None:
    assert after[name] == {"pandas"}


def test_the_package_itself_imports_nothing_heavy(after: dict[str, set[str]]) -> None:
    assert after["package"] == set()


def test_every_method_and_the_layers_up_to_evaluation_import_torch_alone(
    after: dict[str, set[str]],
) -> None:
    assert after["methods"] == {"torch"}


def test_counting_does_not_import_the_compiler(after: dict[str, set[str]]) -> None:
    assert after["size of a student"] == {"torch"}


def test_training_imports_neither_ray_nor_torchvision_nor_pandas(
    after: dict[str, set[str]],
) -> None:
    assert after["training"] == {"torch", "accelerate"}


def test_a_run_does_not_import_scipy(after: dict[str, set[str]]) -> None:
    assert after["run"] == {"torch", "accelerate"}


def test_an_epoch_imports_neither_torchs_compiler_nor_sympy_nor_scikit_learn(
    after: dict[str, set[str]],
) -> None:
    assert after["epoch"] == {"torch", "accelerate"}


def test_a_process_of_a_gang_imports_neither_tune_nor_pandas(after: dict[str, set[str]]) -> None:
    assert after["gang"] == {"torch", "accelerate", "ray"}


def test_a_trial_imports_tune_and_nothing_else_of_the_search(after: dict[str, set[str]]) -> None:
    assert after["trial"] == {"torch", "pandas", "accelerate", "ray", "ray.tune"}


def test_a_search_does_not_import_scipy(after: dict[str, set[str]]) -> None:
    assert after["search"] == {"torch", "pandas", "accelerate", "ray", "ray.tune", "optuna"}


def test_this_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "deep.py").write_text("import torch")
    (tmp_path / "shallow.py").write_text("import deep")
    cases = {
        "later": "def later(): import shallow",
        "now": "import shallow, sys; sys.argv = ['rkdsearch', '--help']",
        "after it": "",
    }
    assert imported(cases, path=tmp_path) == {
        "later": set(),
        "now": {"torch"},
        "after it": {"torch"},
    }
    with pytest.raises(AssertionError, match="exit code 2"):
        imported({"x": "raise SystemExit(2)"}, path=tmp_path)
