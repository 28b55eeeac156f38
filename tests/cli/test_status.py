import json
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rkdsearch.cli.status import status
from rkdsearch.errors import FileError, StudyError
from rkdsearch.file_lock import one_writer
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.search import study_file
from rkdsearch.search.queue import enqueue, every
from tests.results.factory import flag, make_study, repeat
from tests.search.files import load_space, run


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_status_counts_trials_and_lists_the_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "digits", running=3)
    with one_writer(tmp_path / "digits"):
        status(tmp_path / "digits")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("digits  60 trials (32 finished, 22 stopped, 3 failed, 3 running)")
    assert lines[1].startswith(f"it is being searched by process {os.getpid()} on ")
    assert "hypervolume 0.7586" in lines[2]
    assert any(
        "88.2" in line and "79.3" in line and "16 of 24" in line and "igdm-044" in line
        for line in lines
    )
    assert any("crdnd-035" in line and "crdnd RECONSTRUCTED" in line for line in lines)
    assert any(re.match(r"igdm-044: .*attack\.eps = 0\.\d+, ", line) for line in lines)
    assert any(line.startswith("failed: rslad-016: NonFiniteLossError") for line in lines)


def test_names_and_labels_are_no_markup_and_no_emoji(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = "[/x] [bold] :bug: \\"
    make_study(tmp_path / "study", evil=strange)
    status(tmp_path / "study")
    out = capsys.readouterr().out
    assert out.startswith(f"digits{strange}  60 trials")
    assert f"NonFiniteLossError: loss was nan at step 12{strange}\n" in out


def test_a_search_that_was_stopped_is_not_shown_as_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "digits", running=3)
    with one_writer(tmp_path / "digits"):
        shutil.copytree(tmp_path / "digits", tmp_path / "copy")
    for folder in ("digits", "copy"):
        status(tmp_path / folder)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(
            "digits  60 trials (32 finished, 22 stopped, 3 failed, 3 interrupted)"
        )
        assert lines[1].startswith("stopped, no process works on it: 3 trials are not over; ")


def test_a_student_that_never_left_chance_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, trials=20)
    described = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**described, "chance": 0.96}))
    status(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    lost = [line for line in lines if line.rstrip().rstrip("│").rstrip().endswith("AT CHANCE")]
    assert 0 < len(lost) < sum("│" in line for line in lines)


def test_trials_of_a_shorter_full_run_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    space = load_space(tmp_path)
    study_file.describe(folder, space, {})
    run(folder, space, trials=1)
    longer = load_space(tmp_path, ladder=[{"epochs": 6}])
    study_file.describe(folder, longer, {})
    run(folder, longer, trials=1)
    status(folder)
    rows = [line for line in capsys.readouterr().out.splitlines() if "published" in line]
    assert ["6 of 6" in row or "OF 4 EPOCHS" in row for row in rows] == [True, True]
    assert ["t00001" in rows[0], "t00000" in rows[1]] == [True, True]


def test_status_lists_every_finished_trial_by_the_name_that_export_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_study(tmp_path / "digits")
    repeat(store, (2, 41, 44))
    status(tmp_path / "digits", all_trials=True)
    out = capsys.readouterr().out
    front, others = out.split("finished, not on the front (validation)")
    trials = store.trials()
    finished = set(
        trials.loc[(trials["status"] == "finished") & (trials["origin"] != "replicate"), "trial_id"]
    )
    listed = [
        set(re.findall(r"[a-z_]+-\d{3}", text.split("failed: ")[0])) for text in (front, others)
    ]
    assert listed[0] | listed[1] == finished
    assert not listed[0] & listed[1]
    assert re.search(r"igdm-044 +│ 86\.2 +│ 77\.3 ± 1\.4 of 2 seeds", front)
    assert re.search(r"trades-002 +│ .* ± 1\.4 of 2 seeds │ TRADES, published", others)
    assert "60 trials (33 finished, 24 stopped, 3 failed) and 6 replicates" in front


def test_status_of_many_trials_is_one_screen_and_says_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    make_study(tmp_path / "digits", trials=90)
    status(tmp_path / "digits")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 50
    left_out = {re.sub(r"\d+", "N", line) for line in lines if line.startswith("and ")}
    assert left_out == {
        "and N more on the front: --all lists them",
        "and N more finished: --all lists them",
        "and N more failed: --all lists them",
    }
    status(tmp_path / "digits", all_trials=True)
    assert "--all" not in (text := capsys.readouterr().out)
    assert text.count("failed: ") == 5


def test_trials_that_wait_for_a_place_are_not_counted_as_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    noon = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    for n, placed in enumerate((noon, noon, None, None, None)):
        store.write_trial(
            {"trial_id": f"t{n}", "ordinal": n, "status": "running", "placed": placed}
        )
    with one_writer(tmp_path):
        status(tmp_path)
    assert "5 trials (2 running, 3 waiting for a place)" in capsys.readouterr().out
    status(tmp_path)
    assert "5 trials (5 interrupted)" in capsys.readouterr().out


def test_what_else_names_the_front_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, trials=20)
    status(tmp_path)
    assert "worst class" not in capsys.readouterr().out
    (tmp_path / "study.json").write_text(
        '{"objectives": ["clean_accuracy", "worst_class_accuracy"]}', encoding="utf-8"
    )
    status(tmp_path)
    assert capsys.readouterr().out.count("worst class %") == 2


def test_a_flagged_student_is_named_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag(make_study(tmp_path / "digits"), "igdm-044", "random")
    status(tmp_path / "digits")
    front, others = capsys.readouterr().out.split("finished, not on the front (validation)")
    assert "igdm-044" not in front
    assert "kept off the front: igdm-044: random: two evaluations of the same images" in others
    assert re.search(r"flagged on test images, which moves nothing: [^;]*crdnd-035\b", others)


def test_an_empty_front_has_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path, trials=12, evaluated=False)
    described = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(
        json.dumps(described | {"constraints": {"clean_accuracy": 0.999}})
    )
    status(tmp_path)
    assert (
        "there is no front: no finished student is within its constraints (clean_accuracy 0.999)\n"
    ) in capsys.readouterr().out


def test_status_writes_nothing(tmp_path: Path) -> None:
    make_study(tmp_path, trials=8)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_of_other_things_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "study.json").touch()
    with pytest.raises(
        StudyError, match=r"holds no study, neither study.json nor trials; name the"
    ):
        status(tmp_path)


def test_a_folder_that_the_system_refuses_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(FileError, match=r"cannot be read: Permission denied; is it yours\?$"):
        status(tmp_path)


def test_status_of_an_empty_study_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status(tmp_path)
    assert "0 trials\n" in capsys.readouterr().out


def test_a_strangers_labels_cannot_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, trials=12, evil="\x1b[31m[red]\x07")
    status(tmp_path)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]" in out


def test_status_of_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="check the path"):
        status(tmp_path / "typo")


def test_configurations_that_wait_for_their_trial_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_study(tmp_path, trials=6)
    for label in ("first", "second"):
        enqueue(tmp_path, {"optimizer.lr": 0.1}, label)
    status(tmp_path)
    assert (
        "2 enqueued: trained before further proposals when `rkdsearch tune"
        in capsys.readouterr().out
    )
    row = {**records(store.trials())[0], "notes": {"enqueued": every(tmp_path)[0].name}}
    store.write_trial({name: v for name, v in row.items() if not name.startswith("config.")})
    with one_writer(tmp_path):
        status(tmp_path)
    assert "1 enqueued: trained before further proposals" in capsys.readouterr().out
