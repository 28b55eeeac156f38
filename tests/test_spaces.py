"""Every shipped search space, its header, and the page of the grammar.

A user's method in a search.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from rkdsearch import config, methods, plugins
from rkdsearch.cli.space import check, show
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import SpaceError
from rkdsearch.space.check import check_space
from rkdsearch.space.grammar import SpaceFile
from rkdsearch.space.settings import (
    Constraints,
    Replicates,
    Resources,
    SamplerConfig,
    SchedulerConfig,
)
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.schedules import lr_factor

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "search_spaces"
SPACES = sorted(FOLDER.glob("*.yaml"))
GRAMMAR = (FOLDER / "README.md").read_text(encoding="utf-8")
FRONT_PAGE = re.findall(
    r"^```yaml\n(.*?)^```",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)
EXAMPLES = [
    text
    for text in re.findall(r"^```yaml\n(.*?)^```", GRAMMAR, re.DOTALL | re.MULTILINE)
    if "search:" in text
]


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(plugins, "_allowed", {"tests.strangers"})
    return "tests.strangers.soft_at"


def lay(folder: Path, text: str) -> SearchSpace:
    """A space written beside copies of the shipped ones."""
    for file in SPACES:
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return SearchSpace.load(folder / "mine.yaml")


@pytest.mark.parametrize("file", SPACES, ids=lambda f: f.stem)
def test_a_shipped_space_is_legal_at_both_ends_of_every_parameter(file: Path) -> None:
    space = SearchSpace.load(file)
    assert len(space.baselines) >= 2
    assert check_space(space, samples=20) >= 20 + len(space.baselines) + len(space.parameters)


@pytest.mark.parametrize("file", SPACES, ids=lambda f: f.stem)
def test_a_header_says_papers_cost_and_the_command(file: Path) -> None:
    header = file.read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert re.search(
        r"^# Papers .*arXiv \d{4}\.\d{5}|^# Papers .*docs/methods\.md|^# Papers .*as"
        r" cifar10_resnet18",
        header,
        re.MULTILINE,
    )
    assert re.search(r"^# Cost +\S", header, re.MULTILINE)
    launch = re.search(
        r"^# Launch +rkdsearch tune (\S+) --trials \d+(?: \\\n# +| )--study \S+",
        header,
        re.MULTILINE,
    )
    assert launch is not None
    assert ROOT / launch.group(1) == file


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "digits_all_methods",
        "fashion_mnist",
        "cifar10_small",
        "cifar10_resnet18",
        "cifar100_resnet18",
    ],
)
def test_a_space_of_many_methods_gives_each_its_chance(name: str) -> None:
    space = SearchSpace.load(FOLDER / f"{name}.yaml")
    assert {"rslad", "iad", "crdnd", "ardir", "ard", "pgd_at", "trades"} <= {
        baseline.overrides["method.name"] for baseline in space.baselines
    }
    assert space.sampler.minimum_per["method.name"] >= 2
    assert space.replicates.seeds >= 2
    assert space.replicates.baselines
    temperature = next(p for p in space.parameters if p.name == "method.temperature")
    assert temperature.ends()[0] == 0.25
    assert "crdnd" in temperature.when["method.name"]


def test_reconstructed_methods_are_named_so_in_every_header_that_names_their_papers() -> None:
    for file in SPACES:
        header = file.read_text(encoding="utf-8").split("\n\n")[0]
        for line in header.splitlines():
            for paper in re.findall(r"arXiv (?:2302\.08764|2211\.00239)[^|]*", line):
                assert "RECONSTRUCTED" in paper, (file.name, paper)


def test_a_label_of_the_baselines_names_one_setting_in_all_files() -> None:
    """A data set may have its own ball and length of a run."""
    named: dict[str, dict[str, str]] = {}
    for file in SPACES:
        space = SearchSpace.load(file)
        for baseline in space.baselines:
            run = space.config(baseline.overrides).to_dict()
            setting = {
                section: run[section]
                for section in ("method", "attack", "optimizer", "schedule", "averaging")
            }
            for name in ("eps", "objective"):  # an objective that is given is the method's own
                del setting["attack"][name]
            named.setdefault(baseline.label, {})[json.dumps(setting, sort_keys=True)] = file.name
    assert {
        label: sorted(settings.values()) for label, settings in named.items() if len(settings) > 1
    } == {}


def test_what_is_called_released_is_what_the_authors_scripts_run() -> None:
    space = SearchSpace.load(FOLDER / "cifar10_resnet18.yaml")
    runs = {baseline.label: space.config(baseline.overrides) for baseline in space.baselines}
    drops = {}
    for label, run in runs.items():
        rates = [lr_factor(run.schedule, epoch=epoch, within=0, epochs=300) for epoch in range(300)]
        drops[label] = [epoch for epoch in range(1, 300) if rates[epoch] < rates[epoch - 1]]
    assert drops == {
        "RSLAD, released": [215, 260, 285],
        "IAD-I, released for CIFAR-10": [150],
        "AdaAD, released for CIFAR-10": [150, 225],
        "CRDND, reconstructed defaults, RSLAD's script": [215, 260, 285],
        "ARDIR, reconstructed defaults, the schedule that ARD names": [150, 225],
        "ARD, released": [150],
        "PGD-AT, as papers compare it": [150, 225],
        "TRADES, released": [292],
    }
    assert {run.averaging.name for run in runs.values()} == {"none"}
    rslad = runs["RSLAD, released"]
    assert (
        rslad.to_dict()["method"]["kl_scale"],
        rslad.optimizer.lr,
        rslad.optimizer.weight_decay,
    ) == (0.1, 0.1, 2e-4)
    assert runs["IAD-I, released for CIFAR-10"].to_dict()["method"]["teacher_term"] == "unweighted"


def test_the_catalogue_offers_every_method_but_natural_training() -> None:
    assert set(methods.names()) - set(
        SearchSpace.load(FOLDER / "digits_all_methods.yaml").method_names
    ) == {"natural"}


def fields(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    yield from (prefix + (info.alias or name) for name, info in kind.model_fields.items())


def test_the_grammar_page_names_every_setting() -> None:
    sections: dict[str, type[BaseModel]] = {
        "constraints.": Constraints,
        "sampler.": SamplerConfig,
        "scheduler.": SchedulerConfig,
        "replicates.": Replicates,
        "resources.": Resources,
    }
    top = {name for name in fields(SpaceFile) if name + "." not in sections}
    names = {
        *top,
        *(name for prefix, kind in sections.items() for name in fields(kind, prefix)),
        *fields(Fidelity),
    }
    assert {
        name for name in names if f"`{name}`" not in GRAMMAR and f"{name}:" not in GRAMMAR
    } == set()


def test_the_grammar_page_names_every_file_and_every_choice_of_a_setting() -> None:
    assert {file.name for file in SPACES if f"`{file.name}`" not in GRAMMAR} == set()
    for choice in (
        "tpe",
        "nsga2",
        "nsga3",
        "gp",
        "qmc",
        "random",
        "by_rung",
        "ignored",
        "moasha",
        "asha",
        "none",
        "promotion",
        "stopping",
    ):
        assert f"`{choice}`" in GRAMMAR


@pytest.mark.parametrize("text", EXAMPLES, ids=["the file", "some methods", "own images"])
def test_an_example_of_the_grammar_page_is_legal(text: str, tmp_path: Path) -> None:
    assert check_space(lay(tmp_path, text), samples=20) >= 20


def test_the_example_of_the_front_page_is_legal(tmp_path: Path) -> None:
    text, _ = FRONT_PAGE
    space = lay(tmp_path, text)
    assert check_space(space, samples=20) >= 20
    assert space.config(space.sample(np.random.default_rng(0))).teachers.natural is None


def test_the_run_of_the_front_page_is_legal(tmp_path: Path) -> None:
    _, text = FRONT_PAGE
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    assert config.load(tmp_path / "run.yaml").training.epochs == 54


def test_fewer_methods_need_no_other_change(tmp_path: Path) -> None:
    space = lay(
        tmp_path,
        "extends: digits_all_methods.yaml\nsearch: {method.name: {choice: [saad, trades]}}",
    )
    own = {
        p.name: p.when
        for p in space.parameters
        if p.name.startswith("method.") and p.name != "method.name"
    }
    assert own == {
        "method.consistency_weight": {"method.name": ("trades",)},
        "method.natural_weight": {"method.name": ("saad",)},
        "method.gradient_weight": {"method.name": ("saad",)},
        "method.uncertainty_weight": {"method.name": ("saad",)},
    }


def test_one_fixed_method_leaves_its_own_parameters(tmp_path: Path) -> None:
    space = lay(tmp_path, "extends: digits_all_methods.yaml\nfixed: {method.name: mtard}")
    assert {p.name for p in space.parameters if p.name.startswith("method.")} == {
        "method.balance_rate",
        "method.balance_exponent",
    }


def test_an_impossible_condition_of_ones_own_is_an_error(tmp_path: Path) -> None:
    text = """
extends: digits_all_methods.yaml
search:
  method.name: {choice: [saad, trades]}
  method.trust_exponent: {float: [0.1, 1.0], when: {method.name: iad}}
"""
    with pytest.raises(
        SpaceError,
        match=(
            r"search.method.trust_exponent: `when` asks method.name to be 'iad', which is not among"
        ),
    ):
        lay(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("cifar10_mobilenet_v2", {"student.name"}),
        ("cifar100_resnet18", {"data.name", "teachers.robust.path", "teachers.robust.trained_on"}),
    ],
)
def test_a_child_changes_what_it_names_and_no_more(name: str, names: set[str]) -> None:
    parent, child = (
        SearchSpace.load(FOLDER / "cifar10_resnet18.yaml"),
        SearchSpace.load(FOLDER / f"{name}.yaml"),
    )
    assert {
        name
        for name in {*parent.fixed, *child.fixed}
        if parent.fixed.get(name) != child.fixed.get(name)
    } == names
    assert child.parameters == parent.parameters


# ---------------------------------------------------------------------------------------- strangers


STRANGE = """
extends: digits.yaml
search:
  method.name: {choice: [rslad, tests.strangers.soft_at]}
  method.smoothing: {float: [0.0, 0.3], when: {method.name: tests.strangers.soft_at}}
first: []
"""


def test_a_strangers_method_is_searched_beside_ours(
    tmp_path: Path, strangers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    space = lay(tmp_path, STRANGE)
    assert strangers in space.method_names
    check(tmp_path / "mine.yaml", allow_import=("tests.strangers",))
    assert "all legal" in capsys.readouterr().out


def test_the_command_that_shows_a_strangers_method_can_be_allowed_to_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugins, "_allowed", set())
    lay(tmp_path, STRANGE)
    show(tmp_path / "mine.yaml", allow_import=("tests.strangers",))
    assert "where method.name in ['tests.strangers.soft_at']" in capsys.readouterr().out


def test_a_strangers_method_is_not_imported_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_allowed", set())
    with pytest.raises(
        SpaceError,
        match=r"'tests.strangers.soft_at' would import code; allow it with --allow-import tests",
    ):
        check_space(lay(tmp_path, STRANGE))


@pytest.mark.parametrize(
    ("chosen", "at_least"),
    [
        # the two laws left out start processes and train, seconds each
        pytest.param(["-k", "not two_processes and not falls_within"], 15, id="quick laws"),
        pytest.param([], 20, id="every law", marks=pytest.mark.long),
    ],
)
def test_the_contract_holds_a_strangers_method_from_the_command_line(
    chosen: list[str], at_least: int
) -> None:
    command = ["-m", "pytest", "tests/methods", "-q", "-p", "no:cacheprovider", *chosen]
    allowed = ["--method", "tests.strangers.soft_at", "--allow-import", "tests.strangers"]
    done = subprocess.run(
        [sys.executable, *command, *allowed],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= at_least
