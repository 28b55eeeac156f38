import re
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from rkdsearch import config
from rkdsearch.cli import progress, remaining
from rkdsearch.errors import StudyError
from rkdsearch.execution.teachers import TeacherStep
from rkdsearch.results.rows import Checks
from rkdsearch.search import front
from rkdsearch.search.study import Study
from rkdsearch.training.epoch import Best
from rkdsearch.training.teacher import TeacherAccuracy
from rkdsearch.training.trainer import Trainer
from tests.search.files import SMALL, FakeWorker, load_space


def trained(study: Study, assignments: int) -> None:
    """Run this number of assignments, one after another."""
    worker = FakeWorker()
    for _ in range(assignments):
        assignment = study.next()
        assert assignment is not None
        for result in worker.run(assignment):
            if not study.report(assignment.trial_id, result, {"run.processes": 1}):
                break


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", -1.0)


@pytest.mark.parametrize(("asked", "said"), [(None, "404"), (100, "100"), (1000, "404")])
def test_a_run_says_how_many_validation_images_there_are_at_most(
    asked: int | None, said: str
) -> None:
    values = {
        "method.name": "natural",
        "data.validation_fraction": 0.3,
        "validation.images": asked,
        "training.device": "cpu",
    }
    assert f" and {said} validation images of digits" in progress.ready_line(
        Trainer(config.build(values))
    )


@pytest.mark.usefixtures("every_line")
def test_the_time_left_is_reckoned_from_the_first_epochs_and_not_from_the_start_of_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    study = Study(tmp_path, load_space(tmp_path, scheduler={"name": "none"}), 8, {})
    with progress.SearchProgress(study) as watching:
        now = 15.0
        watching.update(study)
        trained(study, 2)
        now = 300.0
        watching.update(study)
        trained(study, 2)  # two of eight in ten seconds: the other four take twenty
        now = 310.0
        watching.update(study)
    before, first, after = capsys.readouterr().out.splitlines()
    assert "0 of 8 configurations, 0 running" in before
    assert "left" not in before + first
    assert after.endswith("4 of 8 configurations, 0 running, 4 finished; about 20 s left")


def test_without_rungs_every_running_trial_has_all_of_its_epochs_left(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, scheduler={"name": "none"}, first=[]), 2, {})
    assignment = study.next()
    assert assignment is not None
    for result, _ in zip(FakeWorker().run(assignment), range(3), strict=False):
        assert study.report(assignment.trial_id, result, {"run.processes": 1})
    assert study.next() is not None
    assert remaining.epochs_left(study, 2) == 1 + 4


def test_what_is_left_of_a_race_has_its_later_rounds(tmp_path: Path) -> None:
    race = {"seeds": 4, "race": 1, "contenders": 4, "baselines": False}
    space = load_space(tmp_path, scheduler={"name": "none"}, first=[], replicates=race)
    study = Study(tmp_path, space, 4, {})
    trained(study, 4)
    assert study.next() is not None
    # of four contenders two get a second replicate, and one of these two more: 4 + 2 + 2, less one
    assert remaining.replicates_left(study, 4) == 7


def test_a_teacher_and_a_student_that_never_left_chance_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = progress.TeacherProgress(chance=0.1)
    good, lost, natural = (
        TeacherAccuracy("ab" * 32, clean, robust, 500, "validation images")
        for clean, robust in ((0.9, 0.5), (0.9, 0.12), (0.9, 0.0))
    )
    teacher.update(TeacherStep("robust", measured=good))
    teacher.update(TeacherStep("natural", measured=natural))
    assert "WARNING" not in capsys.readouterr().out
    teacher.update(TeacherStep("robust", measured=lost))
    assert (
        "WARNING: the robust teacher is no better than a constant prediction: its robust accuracy"
        " is 0.120, and a constant is right on 0.100 of these images" in capsys.readouterr().out
    )
    assert progress.chance_line(Best(3, 0.12, 0.1, 0.0), 500, 0.1) == (
        "never left chance: clean accuracy 0.120 on 500 images, a constant prediction has 0.100;"
        " its robust accuracy says nothing"
    )
    assert progress.chance_line(Best(3, 0.2, 0.1, 0.0), 500, 0.1) is None


def test_a_search_in_which_nothing_reached_full_length_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path, load_space(tmp_path, first=[]), 2, {})
    FakeWorker().drive(study)
    progress.SearchProgress(study).finished(study)
    assert (
        "there is no front: no trial has reached full length; continue with --resume and more"
        in capsys.readouterr().out
    )


def test_a_teacher_on_which_the_attack_fails_is_named_when_it_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = [
        TeacherAccuracy("ab", 0.9, 0.5, 500, "", "", Checks(images=200, right=180, not_uphill=k))
        for k in (3, 90)
    ]
    for measured in seen:
        progress.TeacherProgress().update(TeacherStep("natural", measured=measured))
    calm, named, warning = capsys.readouterr().out.splitlines()
    assert calm == named
    assert warning == (
        "WARNING: the natural teacher is flagged: its robust accuracy is not to be believed:"
        " misleading_gradients: a small step along the gradient does not raise the loss"
    )


@pytest.mark.usefixtures("every_line")
def test_replicates_are_not_counted_as_configurations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(
        tmp_path,
        load_space(tmp_path, scheduler={"name": "none"}, replicates={"seeds": 2, "contenders": 2}),
        3,
        {},
    )
    with progress.SearchProgress(study) as watching:
        trained(study, 4)
        watching.update(study)
    assert (
        "3 of 3 configurations, 0 running, 1 of 4 replicates, 3 finished" in capsys.readouterr().out
    )


def test_the_front_of_replicated_contenders_shows_the_means_of_their_replicates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(
        tmp_path,
        load_space(tmp_path, scheduler={"name": "none"}, replicates={"seeds": 1, "contenders": 2}),
        4,
        {},
    )
    watching = progress.SearchProgress(study)
    FakeWorker().drive(study)
    watching.finished(study)
    shown = {
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith(" t000")
    }
    assert shown <= {t.trial_id for t in front.contenders(study.trials.values(), study.space)}
    assert shown
    assert {one.trial.trial_id for one in front.judged(study.trials.values(), study.space)} == {
        t.trial_id for t in front.to_replicate(study.trials.values(), study.space)
    }


def test_the_front_says_how_many_replicates_failed_and_shows_what_it_is_named_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "scheduler": {"name": "none"},
        "replicates": {"seeds": 2, "contenders": 2, "baselines": False},
    }
    study = Study(
        tmp_path,
        load_space(tmp_path, objectives=["clean_accuracy", "worst_class_accuracy"], **changes),
        2,
        {},
    )
    trained(study, 2)
    # a seed of each, so that none has more than the other
    for trial_id in [one.trial_id for _ in range(4) if (one := study.next()) is not None]:
        if trial_id.endswith("-r1"):
            study.fail(trial_id, "epoch 1, batch 3: the loss is nan", "loss")
        else:
            study.interrupt(trial_id)
    FakeWorker().drive(study)
    progress.SearchProgress(study).finished(study)
    out = capsys.readouterr().out
    assert "t00000-r1 failed: epoch 1, batch 3: the loss is nan" in out
    heading, row = (
        next(line for line in out.splitlines() if line.startswith(start))
        for start in (" trial ", " t00000 ")
    )
    assert heading.split() == [
        "trial",
        "clean",
        "%",
        "robust",
        "%",
        "worst",
        "class",
        "%",
        "configuration",
    ]
    assert row.rstrip().endswith("published (1 of 2 replicates failed)")


def test_a_narrow_terminal_takes_lines_from_the_configuration_and_no_number(tmp_path: Path) -> None:
    label = "a published setting with a long name, of the paper's second version"
    first = [{"label": label, "method.name": "natural"}]
    study = Study(tmp_path, load_space(tmp_path, first=first, scheduler={"name": "none"}), 1, {})
    trained(study, 1)
    printed = Console(file=StringIO(), width=50)
    printed.print(progress.front_table(study))
    assert isinstance(printed.file, StringIO)
    lines = printed.file.getvalue().splitlines()
    (row,) = (line for line in lines if line.startswith(" t00000 "))
    assert len(re.findall(r"\d+\.\d", row)) == 2
    assert label in " ".join(" ".join(lines[lines.index(row) :]).split()[3:])


def test_a_baseline_that_is_too_large_is_named_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.SearchProgress(
        Study(tmp_path, load_space(tmp_path, constraints={"parameters": 1_000}), 4, {})
    )
    assert re.search(
        r"^published: its student has \d,\d{3} parameters, constraints.parameters allows 1,000:"
        r" this baseline cannot be on the front$",
        capsys.readouterr().out,
    )


def test_a_search_whose_trials_have_all_failed_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path, load_space(tmp_path), 2, {})
    for failure in ("loss", "memory"):
        assignment = study.next()
        assert assignment is not None
        study.fail(assignment.trial_id, f"it was the {failure}", failure)  # type: ignore[arg-type]
    with pytest.raises(
        StudyError,
        match=(
            r"all 2 trials failed, so there is no front; correct the causes above, then"
            r" continue with --resume where"
        ),
    ):
        progress.SearchProgress(study).finished(study)
    out = capsys.readouterr().out
    assert "t00000 failed: it was the loss\n" in out
    assert "t00001 failed: it was the memory (--resume retries it)\n" in out
    again = Study(tmp_path, study.space, 2, {})
    again.reconcile()
    progress.SearchProgress(again)
    assert (
        "retried from their last epoch, after a failure of the machine: t00001"
        in capsys.readouterr().out
    )


def test_a_teacher_that_takes_long_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    teacher = progress.TeacherProgress()
    for batch in range(1, 21):
        now = 3.0 * batch
        teacher.update(
            TeacherStep(
                "robust",
                so_far=TeacherAccuracy("ab", 0.9, 0.5, 250 * batch, "validation images"),
                of_images=5000,
            )
        )
    assert capsys.readouterr().out.splitlines() == [
        f"robust teacher: {images} of 5000 validation images measured, clean 0.900, robust 0.500"
        " so far"
        for images in range(1000, 5001, 1000)
    ]
    teacher.update(
        TeacherStep(
            "robust", measured=TeacherAccuracy("ab" * 32, 0.9, 0.5, 5000, "validation images")
        )
    )
    teacher.update(TeacherStep("natural", skipped=True))
    assert capsys.readouterr().out.splitlines() == [
        (
            "robust teacher reused: clean 0.900, robust 0.500 on 5000 validation images (sha256"
            " abababababab)"
        ),
        "natural teacher skipped: no method of this space asks for it",
    ]


def test_a_path_and_a_label_are_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [{**SMALL["first"][0], "label": "paper [/tab 3] [bold] :bug:"}]
    space = load_space(tmp_path, first=first, scheduler={"name": "none"})
    study = Study(tmp_path / "x[" / "y]" / "[red]", space, 1, {})
    FakeWorker().drive(study)
    progress.SearchProgress(study).finished(study)
    out = capsys.readouterr().out
    assert "x[/y]/[red]: validation, full-length trials" in out
    assert "paper [/tab 3] [bold] :bug:" in out


def test_before_the_first_replicate_as_many_are_left_as_the_forecast_says(tmp_path: Path) -> None:
    grid = {"label": "natural", "method.name": "natural", "grid": {"optimizer.lr": [0.05, 0.1]}}
    again = {"seeds": 2, "contenders": 2, "baselines": True}
    space = load_space(tmp_path, scheduler={"name": "none"}, first=[grid], replicates=again)
    # two contenders, the best of two other methods, and one point of the grid
    assert "up to 10 for replicates" in space.forecast(6)[-1]
    assert remaining.replicates_left(Study(tmp_path, space, 6, {}), 6) == 10
