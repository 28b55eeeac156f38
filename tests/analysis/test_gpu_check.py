"""`analysis/gpu_check.py`: every line of it on small networks and a CPU."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.analysis.scripts import BENCHMARKS, script

CHECK = BENCHMARKS.parent / "gpu_check.py"
METHODS = ["rslad", "iad", "adaad", "crdnd"]
# What a machine with a GPU may be without.
HIDDEN = ("ray", "optuna", "pandas", "pyarrow", "moocore", "scipy", "sklearn", "plotly", "jinja2",
          "cyclopts", "rich")  # fmt: skip


@pytest.fixture(scope="module")
def check() -> ModuleType:
    sys.path.insert(0, str(CHECK.parent))
    try:
        import gpu_check

        return gpu_check
    finally:
        sys.path.remove(str(CHECK.parent))


@pytest.fixture(scope="module")
def parts() -> ModuleType:
    return script("gpu_parts")


def test_a_part_has_its_share_of_the_time_that_is_left(check: ModuleType) -> None:
    everything = list(check.SHARES)
    assert sum(check.SHARES.values()) == pytest.approx(1)
    assert check.limit("steps", ["steps", "tests"], 300) == pytest.approx(180)
    assert check.limit(everything[-1], everything, 60) == pytest.approx(60)
    assert check.limit("gang", everything, 595) == pytest.approx(71.4)


BROKEN = {
    "raises": "raise ValueError('kernel image is invalid')",
    "hangs": "import subprocess; subprocess.run(['sleep', '60'])",
}


@pytest.mark.parametrize(
    ("how", "ended"), [("raises", "failed, exit code 1"), ("hangs", "stopped after 2 s")]
)
def test_a_part_that_fails_or_runs_out_keeps_its_rows_and_ends_no_other(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, ended: str
) -> None:
    fake = tmp_path / "parts.py"
    fake.write_text(
        "import json, pathlib, sys\n"
        "result = pathlib.Path(sys.argv[sys.argv.index('--result') + 1])\n"
        "result.write_text(json.dumps([{'measured': 7.25}]))\n"
        f"if sys.argv[1] == 'gang': {BROKEN[how]}\n"
    )
    monkeypatch.setattr(check, "PARTS_SCRIPT", fake)
    monkeypatch.setattr(check, "machine", lambda: {"devices": ["a GPU"], "torch": "2.15.0"})
    monkeypatch.setattr(check, "limit", lambda *_: 2.0)
    out, started = tmp_path / "out", time.monotonic()
    assert check.main(["--out", str(out), "--parts", "steps", "gang", "sharing"]) == 1
    assert time.monotonic() - started < 10
    found = json.loads((out / "gpu_check.json").read_text())["parts"]
    assert [(part, result["ended"]) for part, result in found.items()] == [
        ("gang", ended),
        ("steps", "done"),
        ("sharing", "done"),
    ]
    assert all(result["rows"] == [{"measured": 7.25}] for result in found.values())
    told = (out / "gpu_check.md").read_text()
    assert f"## gang: {ended}" in told
    assert "| measured |\n| --- |\n| 7.25 |" in told
    assert ("kernel image is invalid" in told) == (how == "raises")


def test_without_a_gpu_it_says_so_and_measures_nothing(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "machine", lambda: {"devices": []})
    monkeypatch.setattr(check, "run", lambda *_, **__: pytest.fail("a part was run"))
    assert check.main([]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().out


def test_what_is_not_installed_is_named_before_anything_runs(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "find_spec", lambda name: None if name == "pydantic" else name)
    assert check.main([]) == 2
    assert capsys.readouterr().out == "needs pydantic: install it first\n"


def row(precision: str, ours: float, theirs: float | None, waits: int = 0) -> dict[str, object]:
    found: dict[str, object] = {
        "method": "rslad",
        "student": "resnet18",
        "batch": 128,
        "precision": precision,
        "layout": "channels last",
        "compiled": False,
        "ours_images_per_second": ours,
        "ours_host_waits": waits,
    }
    return found if theirs is None else found | {"ratio": ours / theirs}


def test_goals_are_judged_in_the_same_precision(check: ModuleType) -> None:
    rows = [row("fp32", 300.0, 150.0), row("bf16", 390.0, 300.0, waits=2)]
    assert check.goals(rows) == [
        "times the script's images/s, same precision: 1.30 to 2.00, goal 1.5 MISSED by 1 of 2",
        "times our fp32 with bf16: 1.30 to 1.30, goal 1.5 MISSED by 1 of 1",
        "host waits in a step: 2 at most, goal MISSED",
    ]
    assert check.goals([row("fp32", 300.0, 150.0), row("bf16", 600.0, None)]) == [
        "times the script's images/s, same precision: 2.00 to 2.00, goal 1.5 reached by all",
        "times our fp32 with bf16: 2.00 to 2.00, goal 1.5 reached by all",
        "host waits in a step: none in 2 workloads",
    ]
    assert check.goals([])[0] == "times the script's images/s, same precision: not measured"


@pytest.fixture
def place(parts: ModuleType, tmp_path: Path) -> object:
    return parts.Place("cpu", tiny=True, seconds=60.0, folder=tmp_path)


def test_a_step_of_every_method_is_measured_on_both_sides(
    parts: ModuleType, place: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    # The profiler takes a second to start; the next test runs it.
    monkeypatch.setattr(parts.measures, "host_waits", lambda step: int(step() is None))
    rows = list(parts.steps(place))
    peaks = {r["precision"]: r["peak_tflops"] for r in rows if "peak_tflops" in r}
    assert set(peaks) == {"fp32", "bf16"}
    both = [r for r in rows if "ratio" in r]
    assert [r["method"] for r in both] == [*METHODS, *METHODS, "rslad", "rslad"]
    assert [r["batch"] for r in both] == [4] * 8 + [6, 6]
    ours = [r for r in rows if "method" in r]
    assert [(r["compiled"], r["layout"]) for r in ours if "ratio" not in r] == [
        (True, "channels last"),
        (True, "channels last"),
        (False, "contiguous"),
        (False, "contiguous"),
    ]
    assert all(r["ours_images_per_second"] > 0 and 0 < r["ours_of_peak"] < 5 for r in ours)
    assert {r["ours_host_waits"] for r in ours} == {0}


def test_a_wait_in_a_step_is_counted(parts: ModuleType) -> None:
    def step() -> None:
        torch.ones(3).sum().item()
        float(torch.ones(1))

    assert parts.measures.host_waits(step) == 2


def test_a_part_without_time_says_what_it_did_not_reach(parts: ModuleType, tmp_path: Path) -> None:
    late = parts.Place("cpu", tiny=True, seconds=-1.0, folder=tmp_path)
    assert list(parts.steps(late)) == [{"outcome": "14 of 14 workloads not reached"}]


def test_a_plan_for_a_gpu_covers_what_was_asked_the_most_telling_first(
    parts: ModuleType, tmp_path: Path
) -> None:
    planned = parts.plan(parts.Place("cuda", tiny=False, seconds=1.0, folder=tmp_path))
    both = {
        (work.method, work.student["name"], work.batch, work.precision)
        for work, script in planned
        if script
    }
    assert both == {
        (method, student, batch, precision)
        for method in METHODS
        for student in ("resnet18", "mobilenet_v2")
        for batch in (128, 512)
        for precision in ("fp32", "tf32", "bf16")
    }
    assert planned[0][0].batch == 128
    assert {(w.compiled, w.channels_last) for w, _ in planned} == {
        (False, True),
        (True, True),
        (False, False),
    }


def test_epochs_are_trained_from_image_files(parts: ModuleType, place: object) -> None:
    rows = list(parts.epochs(place))
    assert [(r["precision"], r["method"]) for r in rows] == [
        (precision, method) for precision in ("fp32", "bf16") for method in METHODS
    ]
    assert all(r["images_per_second"] > 0 and r["robust_accuracy"] is not None for r in rows)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_autoattack_is_timed_on_images_that_are_right(parts: ModuleType, place: object) -> None:
    margin, auto = list(parts.autoattack(place))
    assert (margin["attack"], auto["attack"]) == ("margin attack, 10 steps", "AutoAttack")
    assert margin["images"] == auto["images"] == 2
    assert auto["robust_accuracy"] <= margin["robust_accuracy"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_part_runs_without_ray_optuna_or_a_data_set(tmp_path: Path) -> None:
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(f"import sys\nsys.modules.update(dict.fromkeys({HIDDEN!r}))\n")
    said = subprocess.run(
        # Twice the time: other tests may have the processors.
        [sys.executable, str(CHECK), "--tiny", "--minutes", "20", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    found = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert said.returncode == 0, (tmp_path / "out" / "gpu_check.md").read_text()
    rows = {part: result["rows"] for part, result in found["parts"].items()}
    assert {r["outcome"] for r in rows["tests"] if "test" in r} == {"skipped"}
    assert len(rows["tests"]) > 60
    assert rows["gang"] == [
        {
            "processes": "gloo, one device",
            "devices": ["cpu:0", "cpu:0"],
            "loss_difference": pytest.approx(0, abs=1e-9),
            "weight_difference": pytest.approx(0, abs=1e-9),
        }
    ]
    assert [(r["trials"], r["images_per_second"] > 0) for r in rows["sharing"]] == [
        (1, True),
        (2, True),
    ]
    assert rows["autoattack"][1]["attack"] == "AutoAttack"
    assert [r["compiled"] for r in rows["steps"] if "method" in r].count(True) == 2
