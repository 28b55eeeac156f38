"""A real search on one Ray of this process: what fails, what is lost, what does not fit; and the exam of what it found."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from rkdsearch.cli.evaluate import evaluate
from rkdsearch.cli.tune import tune
from rkdsearch.errors import DiskError, StudyError
from rkdsearch.results.store import Store
from rkdsearch.results.summary import records
from rkdsearch.search.space import Resources
from rkdsearch.search.study import Study
from rkdsearch.search.tuner import _Asks, _End, _fits, _Listens, connected, placement
from tests.search.files import load_space
from tests.search.real import ROOT, Search, space
from tests.search.witness import VARIABLE, fill_disk

pytestmark = pytest.mark.timeout(600)
MOODS = {m: m for m in ("unlucky", "nan", "broken", "hungry", "full")}
Said = Callable[[], str]


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One Ray for every search here, and the file in which its workers' witnesses are written down."""
    file = tmp_path_factory.mktemp("witness") / "witness.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(file))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("COLUMNS", "200")
        with connected(None):
            yield file


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """All that has reached the terminal since it was asked last, from this process and from those it started."""
    return lambda: "".join(capfd.readouterr())


def run(search: Search) -> None:
    tune(search.file, trials=search.trials, study=search.study, resume=True, allow_import=("tests.search",))


@pytest.fixture(scope="module")
def moody(witness: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """One trial at a time: what has happened when the disk is full is then always the same."""
    return Search(tmp_path_factory.mktemp("moody"), trials=8, space=space(MOODS, (2,), resources={"cpu": 2}))


def test_whatever_happens_to_one_trial_is_its_own_matter_and_a_full_disk_is_everybodys(witness: Path, moody: Search, said: Said) -> None:
    full = witness.with_suffix(".full")
    full.touch()
    with pytest.raises(
        DiskError, match=r"t00005/best.safetensors: could not be written: No space left on device; the previous checkpoint is"
    ):
        run(moody)
    assert {label: row["status"] for label, row in moody.labelled().items()} == {
        "natural": "finished", "unlucky": "finished", "nan": "failed", "broken": "failed", "hungry": "failed", "full": "running",
    }  # fmt: skip
    before, output = moody.epochs(), said()
    assert output.count("trial t00001 lost its worker, started again (1 of 3)\n") == 1
    assert f"Go on with: rkdsearch tune {moody.file} --trials 8 --study {moody.study} --resume" in output
    assert "Traceback" not in output
    assert "raylet" not in output

    full.unlink()
    run(moody)
    moody.whole()
    rows, output = moody.labelled(), said()
    assert rows["full"]["status"] == "finished"
    assert before.items() <= moody.epochs().items()
    assert rows["nan"]["error"].startswith("epoch 1, batch 1: the loss is nan; likely causes: optimizer.lr")
    assert rows["broken"]["error"].startswith("ZeroDivisionError: a bug in one method (witness.py:")
    assert rows["hungry"]["error"].startswith("epoch 1: the device is out of memory; lower training.batch_size (now 200), raise")
    assert "t00002 failed: epoch 1, batch 1: the loss is nan" in output
    assert "Traceback" not in output
    assert "raylet" not in output


def test_the_exam_uses_test_images_alone_the_same_for_all_and_once(moody: Search, said: Said) -> None:
    def examine() -> None:
        evaluate(moody.study, images=60, attacks=("clean", "pgd20"), allow_import=("tests",))

    run(moody)
    assert "nothing to do: all 8 trials" in said()
    examine()
    rows = records(Store(moody.study).evaluations())
    finished = {t for t, s in moody.ended().items() if s == "finished"}
    assert len(finished) == 5
    assert {(r["trial_id"], r["attack"]) for r in rows} == {(t, a) for t in finished for a in ("clean", "pgd20")}
    assert {r["split"] for r in rows} == {"test"}
    assert {r["images"] for r in rows} == {60}
    assert len({r["subset_sha256"] for r in rows}) == 1
    assert all(len(r["per_image"]) == 60 and r["per_image"].count("1") == r["correct"] for r in rows)
    said()
    examine()
    assert "10 sittings stand in" in said()
    assert records(Store(moody.study).evaluations()) == rows


def test_a_finished_study_is_left_as_it_is(moody: Search) -> None:
    run(moody)
    before = {p: p.stat().st_mtime_ns for p in (moody.study / "trials").iterdir()}
    run(moody)
    assert {p: p.stat().st_mtime_ns for p in (moody.study / "trials").iterdir()} == before


def test_two_processes_train_one_student_and_what_one_of_them_meets_is_the_trials_failure(
    witness: Path, tmp_path: Path, said: Said
) -> None:
    moods = {"nan": "nan", "alone": "alone"}
    search = Search(tmp_path, trials=3, space=space(moods, (2,), resources={"cpu": 0.9, "processes": 2}))
    run(search)
    search.whole()
    rows = search.labelled()
    assert {label: row["status"] for label, row in rows.items()} == {"natural": "finished", "nan": "failed", "alone": "failed"}
    assert rows["natural"]["run.processes"] == 2
    assert rows["nan"]["error"].startswith("epoch 1, batch 1: the loss")
    assert rows["alone"]["error"].startswith("ZeroDivisionError: a bug in one process (witness.py:")
    assert "Traceback" not in said()


def test_a_trial_whose_worker_is_lost_too_often_fails_and_says_so(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, resources={"max_failures": 1}), 2, {})
    asks = _Asks(study, study.space.resources, _End(study))
    asks.suggest("a")
    asks.on_trial_complete("a", error=True)
    assert (study.trials["t00000"].status, study.trials["t00000"].error) == ("failed", "its worker or node was lost 2 times")
    asks.suggest("b")
    asks.on_trial_complete("b")
    assert [t.status for t in study.trials.values()] == ["failed", "running"]


def test_a_row_that_cannot_be_written_is_kept_for_the_end_of_rays_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, load_space(tmp_path), 2, {})
    end = _End(study)
    asks = _Asks(study, study.space.resources, end)
    asks.suggest("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", os.replace)  # undone here
        fill_disk(tmp_path)
        asks.on_trial_complete("a", error=True)
    assert isinstance(end.reason, DiskError)
    with pytest.raises(
        DiskError, match=r"t00000.parquet: could not be written: No space left on device; is the folder yours, and the disk n"
    ):
        _Listens(study, None, str, end).on_step_end(1, [])


def test_a_trial_that_can_never_be_placed_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    _fits(Resources(cpu=1))
    with pytest.raises(StudyError, match=r"resources: a trial of 2 processes asks 2.01 CPU, which must be <= 2"):
        _fits(Resources(processes=2))
    with pytest.raises(StudyError, match=r"asks 1 GPU, which must be <= 0"):
        _fits(Resources(gpu=1))


def test_a_gang_is_one_atomic_group_of_its_actor_and_its_processes() -> None:
    assert placement(Resources(cpu=2, gpu=0.25)).bundles == [{"CPU": 2.0, "GPU": 0.25}]
    assert placement(Resources(cpu=2, gpu=1, processes=2)).bundles == [{"CPU": 0.01}, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}]
