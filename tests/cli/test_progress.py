import re
from pathlib import Path

import pytest

from rkdsearch.cli import progress
from rkdsearch.search.study import Study
from tests.search.files import FakeWorker, load_space


def trained(study: Study, assignments: int) -> None:
    """So many assignments, one after another."""
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


@pytest.mark.usefixtures("every_line")
def test_a_search_of_so_many_trials_says_how_long_it_may_still_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path, load_space(tmp_path, scheduler={"name": "none"}), 8, {})
    with progress.SearchProgress(study) as watching:
        watching.update(study)
        trained(study, 4)
        watching.update(study)
    before, after = capsys.readouterr().out.splitlines()
    assert "0 of 8 asked, 0 running" in before
    assert "left" not in before
    assert re.search(r"4 of 8 asked, 0 running, 4 finished; about \d+ s left$", after)


@pytest.mark.usefixtures("every_line")
def test_repeats_are_not_counted_as_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path, load_space(tmp_path, scheduler={"name": "none"}, replicates={"seeds": 2, "contenders": 2}), 3, {})
    with progress.SearchProgress(study) as watching:
        trained(study, 4)
        watching.update(study)
    assert "3 of 3 asked, 0 running, 1 of 4 repeats with fresh seeds, 4 finished" in capsys.readouterr().out


def test_the_front_of_repeated_contenders_shows_their_fresh_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path, load_space(tmp_path, scheduler={"name": "none"}, replicates={"seeds": 1, "contenders": 2}), 4, {})
    watching = progress.SearchProgress(study)
    FakeWorker().drive(study)
    watching.finished(study)
    shown = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith(" t000")}
    assert shown <= {t.trial_id for t in study.contenders()}
    assert shown
    assert {t.trial_id for t, _, _ in study.judged()} == {t.trial_id for t in study.contenders()}
