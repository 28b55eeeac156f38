import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rkdsearch import config as run
from rkdsearch import pace
from rkdsearch.errors import ConfigError, DiskError, TeacherError
from rkdsearch.evaluation import runner
from rkdsearch.evaluation.blocks import BlockResult, CheckJob, WorkerJob
from rkdsearch.evaluation.images import EvaluatedImages
from rkdsearch.evaluation.jobs import evaluation_jobs
from rkdsearch.evaluation.openings import told_at_resume
from rkdsearch.evaluation.runner import JobFailure, Outcome, evaluate, here
from rkdsearch.evaluation.targets import Targets, study_targets
from rkdsearch.file_lock import one_writer
from rkdsearch.flags import ImageChecks
from rkdsearch.results.cells import records
from rkdsearch.results.evaluations import current_tests
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from rkdsearch.teacher import fingerprint
from tests.evaluation.files import VALUES, digits, run_alone, target


def fake(right: Any = True) -> Any:
    """A `run_block` that computes nothing."""

    def run_block(work: WorkerJob, images: Any, block: int) -> BlockResult:
        of_block = len(images.labels[block * 250 : (block + 1) * 250])
        digits = np.full(of_block, right, dtype=bool)
        return BlockResult(digits, {"clean": of_block}, ["b"], 1.5, "a CPU", 1, "2.0")

    return run_block


CHECKED: list[tuple[str, str, int, int]] = []  # trial, attack, block and images of each check


@pytest.fixture(autouse=True)
def checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that look at nothing and see no sign."""

    def run_checks(work: WorkerJob, _: Any, block: int) -> ImageChecks:
        assert isinstance(work.job, CheckJob)
        attack = type(work.job.attack).__name__
        CHECKED.append((work.job.target.trial_id, attack, block, work.checked))
        none, all_right = torch.zeros(4, dtype=torch.bool), torch.arange(4)
        return ImageChecks(all_right, all_right, torch.full((4,), torch.nan), *[none] * 7)

    CHECKED.clear()
    monkeypatch.setattr(runner, "run_checks", run_checks)


def evaluated(
    folder: Path,
    attacks: Sequence[str] = ("clean", "pgd20"),
    images: EvaluatedImages | None = None,
    said: list[str] | None = None,
    **more: Any,
) -> list[Outcome]:
    todo = evaluation_jobs(study_targets(folder), attacks, **more)  # type: ignore[arg-type]
    notice = [].append if said is None else said.append
    return list(evaluate(folder, todo, images or digits(40), here, notice=notice))


def test_every_network_has_every_attack_but_teachers_no_autoattack_and_clean_images_one_seed() -> (
    None
):
    networks = Targets([target("t00000"), target("teacher", "robust")])
    found = evaluation_jobs(networks, ("clean", "pgd20", "autoattack"), seeds=2)
    assert [(s.target.trial_id, s.attack.name, s.seed) for s in found] == [
        ("t00000", "clean", 0),
        ("t00000", "pgd20", 0),
        ("t00000", "pgd20", 1),
        ("t00000", "autoattack", 0),
        ("t00000", "autoattack", 1),
        ("teacher", "clean", 0),
        ("teacher", "pgd20", 0),
        ("teacher", "pgd20", 1),
    ]


def test_a_curve_has_one_job_a_radius_and_another_norm_needs_one() -> None:
    networks = Targets([target("t00000")])
    found = evaluation_jobs(networks, ("clean", "margin", "margin"), eps=(0.01, 0.02, 0.01))
    assert [(s.attack.name, s.attack.norm, s.attack.eps) for s in found] == [
        ("clean", None, 0.0),
        ("margin", "linf", 0.01),
        ("margin", "linf", 0.02),
    ]
    with pytest.raises(ConfigError, match=r"--norm l2: t00000 has a radius of 0\.0313725 in linf"):
        evaluation_jobs(networks, ("margin",), norm="l2")
    with pytest.raises(ConfigError, match=r"--eps must be > 0 and <= 1 in linf .*, got 8"):
        evaluation_jobs(networks, ("margin",), eps=(8.0,))
    with pytest.raises(ConfigError, match="transfer: there is no other network"):
        evaluation_jobs(networks, ("transfer",))


def test_a_second_evaluation_repeats_nothing_and_a_quick_look_or_new_weights_replace_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_block", fake())
    run_alone(tmp_path)
    first = fingerprint(tmp_path / "best.safetensors")
    assert len(evaluated(tmp_path)) == 2
    assert evaluated(tmp_path) == []
    assert len(evaluated(tmp_path, images=digits(20))) == 2
    run_alone(tmp_path, seed=1)  # another network in the same place
    second = fingerprint(tmp_path / "best.safetensors")
    assert len(evaluated(tmp_path, images=digits(20))) == 2
    assert len(evaluated(tmp_path, ("pgd20",), images=digits(20), eps=(0.01,))) == 1
    store = Store(tmp_path)
    rows = records(store.evaluations())
    assert sorted((r["attack"], r["images"], r["weights_sha256"], r["own_ball"]) for r in rows) == [
        ("clean", 20, second, True),
        ("clean", 40, first, True),
        ("pgd20", 20, second, False),
        ("pgd20", 20, second, True),
        ("pgd20", 40, first, True),
    ]
    assert current_tests(store.evaluations())["own_ball"].all(), "readers show the own ball alone"
    assert store.subsets().groupby("subset_sha256").size().tolist() in ([20, 40], [40, 20])
    assert len(store.openings()) == 4, "the evaluation that computed nothing opened nothing"
    assert not (tmp_path / "partial").exists()


def test_images_under_another_name_have_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the own test images as a folder, and two corruptions that change nothing
    monkeypatch.setattr(runner, "run_block", fake())
    run_alone(tmp_path)
    own = digits(40)
    for name in ("folder:mine", "digits, fog, severity 1", "digits, snow, severity 1"):
        assert len(evaluated(tmp_path, ("clean",), replace(own, split="other", name=name))) == 1
    assert len(evaluated(tmp_path, ("clean",), own)) == 1
    assert evaluated(tmp_path, ("clean",), replace(own, name="another place")) == []
    rows = records(Store(tmp_path).evaluations())
    assert sorted((row["split"], row["dataset"]) for row in rows) == [
        ("other", "digits, fog, severity 1"),
        ("other", "digits, snow, severity 1"),
        ("other", "folder:mine"),
        ("test", "digits"),
    ]


def test_a_row_adds_up_its_blocks_and_says_where_every_digit_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = digits()
    right = np.arange(449) % 3 > 0

    def run_block(_: WorkerJob, __: Any, block: int) -> BlockResult:
        part = right[block * 250 : (block + 1) * 250]
        survivors = {"clean": len(part), "start 1": int(part.sum())}
        warnings = ["b"] if block else ["a", "b"]
        return BlockResult(part, survivors, warnings, 1.5, "a CPU", 1, "2.0")

    monkeypatch.setattr(runner, "run_block", run_block)
    run_alone(tmp_path)
    evaluated(tmp_path, ("pgd20",), images)
    store = Store(tmp_path)
    (row,) = records(store.evaluations())
    assert (row["images"], row["of_images"], row["correct"], row["seconds"]) == (449, 449, 299, 3.0)
    assert row["per_image"] == "".join(str(int(r)) for r in right)
    assert json.loads(row["warnings"]) == ["a", "b"]
    assert (row["flags"], row["check.images"], row["check.right"]) == ("[]", 8, 8)
    assert row["check.broken_without_gradient"] is None
    assert json.loads(row["survivors"]) == {"clean": 449, "start 1": 299}
    assert (row["test_attack_steps"], row["training_seed"], row["attack_seed"]) == (20, 0, 0)
    assert (row["split"], row["dataset"], row["low"] < 299 / 449) == ("test", "digits", True)
    subset = store.subsets()
    assert subset["subset_sha256"].unique().tolist() == [row["subset_sha256"]]
    per_class = {
        name: [int((right & (subset["class_name"] == name)).sum()), int(n)]
        for name, n in subset["class_name"].value_counts().items()
    }
    assert json.loads(row["per_class"]) == per_class
    assert row["worst_class_accuracy"] == min(c / n for c, n in per_class.values())
    (opening,) = records(store.openings())
    assert row["opening"] == opening["opening"]
    assert json.loads(opening["checkpoints"]) == {"run": row["weights_sha256"]}
    assert json.loads(opening["attacks"]) == ["pgd20, linf 0.03137, seed 0"]
    assert json.loads(row["run.versions"])["torch"]


def test_the_checks_of_a_network_are_made_once_for_all_rows_that_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_block", fake())
    run_alone(tmp_path)
    names = ("clean", "pgd20", "pgd100", "margin", "targeted", "autoattack")
    assert len(evaluated(tmp_path, names, digits(), seeds=2)) == 11
    assert sorted(CHECKED) == [
        ("run", attack, block, 100) for attack in ("Attack", "MarginAttack") for block in (0, 1)
    ]
    rows = records(Store(tmp_path).evaluations())
    assert {(r["attack"] == "clean", r["check.images"]) for r in rows} == {(True, None), (False, 8)}
    CHECKED.clear()
    evaluated(tmp_path, ("margin", "square"), digits(), eps=(0.01, 0.02))
    assert len(CHECKED) == 4, "another ball has checks of its own"


def test_an_error_of_the_checks_ends_the_rows_that_need_them_before_their_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked: list[str] = []

    def run_block(work: WorkerJob, images: Any, block: int) -> BlockResult:
        assert not isinstance(work.job, CheckJob)
        attacked.append(work.job.attack.name)
        result: BlockResult = fake()(work, images, block)
        return result

    def run_checks(work: WorkerJob, *_: object) -> ImageChecks:
        raise TeacherError("t.pt: is empty")

    monkeypatch.setattr(runner, "run_block", run_block)
    monkeypatch.setattr(runner, "run_checks", run_checks)
    run_alone(tmp_path)
    *failed, done = evaluated(tmp_path, ("clean", "pgd20", "margin"))
    assert [f.sentence for f in failed if isinstance(f, JobFailure)] == ["t.pt: is empty"] * 2
    assert not isinstance(done, JobFailure)
    assert attacked == ["clean"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TeacherError("t.pt: is empty"), "t.pt: is empty"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero (test_runner"),
        (IndexError("list index\nout of range"), "IndexError: list index out of range"),
    ],
)
def test_an_error_of_any_class_ends_its_own_job_only_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def run_block(work: WorkerJob, images: Any, block: int) -> BlockResult:
        if work.job.attack.name == "clean" and block == 1:
            raise error
        result: BlockResult = fake()(work, images, block)
        return result

    monkeypatch.setattr(runner, "run_block", run_block)
    run_alone(tmp_path)
    failed, done = evaluated(tmp_path, images=digits())
    assert isinstance(failed, JobFailure)
    assert failed.sentence.startswith(sentence)
    assert failed.job.attack.name == "clean"
    assert not isinstance(done, JobFailure)
    assert [row["attack"] for row in records(Store(tmp_path).evaluations())] == ["pgd20"]


def test_the_folder_of_records_stays_while_a_worker_may_be_about_to_write_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_block(work: WorkerJob, images: Any, block: int) -> BlockResult:
        assert work.partial is not None
        work.partial.mkdir(parents=True)
        result: BlockResult = fake()(work, images, block)
        return result

    monkeypatch.setattr(runner, "run_block", run_block)
    run_alone(tmp_path)
    jobs = evaluation_jobs(study_targets(tmp_path), ("clean", "pgd20"))
    outcomes = evaluate(tmp_path, jobs, digits(40), here)
    next(outcomes)
    assert (tmp_path / "partial").is_dir()
    assert len(list(outcomes)) == 1
    assert not (tmp_path / "partial").exists()


def test_a_worker_that_does_not_return_is_told_and_one_that_ends_a_part_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pace, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(pace, "EVERY_SECONDS", 0.02)

    def run_block(work: WorkerJob, images: Any, block: int) -> BlockResult:
        assert work.partial is not None
        for part in range(6):  # a part ends every 0.1 s, or none in 0.6 s
            time.sleep(0.1)
            if work.job.attack.name == "pgd20":
                work.partial.mkdir(parents=True, exist_ok=True)
                (work.partial / f"{part}.json").touch()
        result: BlockResult = fake()(work, images, block)
        return result

    monkeypatch.setattr(runner, "run_block", run_block)
    run_alone(tmp_path)
    evaluated(tmp_path, attacks=["pgd20"])
    assert not caplog.records
    evaluated(tmp_path, attacks=["clean"])
    told = [record.getMessage() for record in caplog.records]
    assert len(told) in (1, 2)  # after 0.2 s and, where the machine is fast enough, after 0.4
    assert told[0].startswith(
        "no part of an attack has ended for 0 s: run, clean, seed 0 (jobs left: 1)"
    )


def test_a_full_disk_ends_all_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_block(*_: object) -> BlockResult:
        raise DiskError("partial/0.json: could not be written")

    monkeypatch.setattr(runner, "run_block", run_block)
    run_alone(tmp_path)
    with pytest.raises(DiskError):
        evaluated(tmp_path)


def test_a_network_for_other_pixels_is_a_sentence_of_its_own(tmp_path: Path) -> None:
    run_alone(tmp_path)
    colour = digits(20)
    pixels = colour.pixels.pixels
    object.__setattr__(colour.pixels, "pixels", np.concatenate([pixels] * 3, axis=3))
    (failed,) = evaluated(tmp_path, ("clean",), colour)
    assert isinstance(failed, JobFailure)
    assert failed.sentence.startswith(
        "its network takes 1 x 8 x 8 pixels (channels, height, width), and digits has 3 x 8 x 8;"
        " set data.channels=1 and data.image_size=8"
    )
    assert Store(tmp_path).openings().empty


def test_weights_that_do_not_fit_are_a_sentence_and_the_others_are_evaluated(
    tmp_path: Path,
) -> None:
    run_alone(tmp_path)
    wide = run.build(VALUES | {"student": {"name": "small_cnn", "width": 8}})
    found = study_targets(tmp_path).networks
    broken = type(found[0])("wide", "", wide, found[0].weights, found[0].sha256, found[0].task)
    jobs = evaluation_jobs(Targets([broken, *found]), ("clean",))
    failed, done = list(evaluate(tmp_path, jobs, digits(20), here))
    assert isinstance(failed, JobFailure)
    assert "whose header says width 4, and the config's network has width 8" in failed.sentence
    assert not isinstance(done, JobFailure)


def test_test_images_whose_classes_are_in_another_order_are_not_evaluated(tmp_path: Path) -> None:
    run_alone(tmp_path)
    (mine,) = study_targets(tmp_path).networks
    images = digits(20)
    names = tuple(images.classes)
    for known, fits in ((names, True), ((names[1], names[0], *names[2:]), False), (None, True)):
        (job,) = evaluation_jobs(Targets([replace(mine, classes=known)]), ("clean",))
        sentence = runner._misfit(job, images)
        assert (sentence is None) == fits
    (job,) = evaluation_jobs(Targets([replace(mine, classes=("1", "0", *names[2:]))]), ("clean",))
    assert "its logits are in the order 1, 0, 2" in str(runner._misfit(job, images))
    assert runner._misfit(job, replace(images, opens_test=False)) is None  # `--data` maps names


def test_an_evaluation_during_a_search_says_what_that_does_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_block", fake())
    run_alone(tmp_path)
    said: list[str] = []
    with one_writer(tmp_path):
        evaluated(tmp_path, ("clean",), said=said)
    assert len(said) == 1
    assert "is being searched by process" in said[0]
    assert "selects on test images" in said[0]
    evaluated(tmp_path, ("pgd20",), said=said)
    assert len(said) == 1
    assert Store(tmp_path).openings()["searching"].tolist() == [True, False]
    resumed = told_at_resume(Store(tmp_path))
    assert resumed is not None
    assert "its test images were opened 2 times" in resumed
    assert told_at_resume(Store(tmp_path / "other")) is None
    shown = read_study(tmp_path).opened
    assert shown is not None
    assert shown.startswith("The test images were opened 2 times, first on ")
    assert "A search was running at 1 of these openings." in shown
    assert "ended after the first one" not in shown
    run_alone(tmp_path, **{"run.updated": datetime.now(UTC)})
    late = read_study(tmp_path)
    assert "1 finished trials ended after the first one" in str(late.opened)
    # the row alone was written anew, by a resumed search
    before = late.test_openings["opened"].min() - timedelta(hours=1)
    epochs = pd.DataFrame({"trial_id": ["run"], "finished": [before]})
    assert "ended after the first one" not in str(replace(late, epochs=epochs).opened)
