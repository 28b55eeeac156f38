from contextlib import nullcontext
from pathlib import Path

import pytest

from rkdsearch.cli.doctor import doctor
from rkdsearch.errors import RkdError, StudyError
from rkdsearch.execution import doctor as examination
from rkdsearch.execution import placement
from rkdsearch.execution.ray_session import shared_token
from tests.search.files import write_space


def test_the_doctor_of_one_machine_needs_no_ray_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor(write_space(tmp_path), study=tmp_path / "study")
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("this machine: Python 3.")
    assert last == "nothing found that would stop a search"
    assert not (tmp_path / "study").exists()


def test_a_token_that_others_can_read_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert shared_token() is None
    (tmp_path / "token").write_text("secret")
    for mode, said in ((0o600, None), (0o644, "644"), (0o640, "640")):
        (tmp_path / "token").chmod(mode)
        found = shared_token()
        if said is None:
            assert found is None
        else:
            assert found == (
                f"{tmp_path}/token: must be readable by you alone, its mode is {said}: whoever"
                f" reads it runs code as you on every node; chmod 600 {tmp_path}/token"
            )


def test_a_trial_that_does_not_fit_is_found(tmp_path: Path) -> None:
    with pytest.raises(RkdError, match="a trial asks 1000 CPU, and this machine has"):
        doctor(write_space(tmp_path, resources={"cpu": 1000}))


@pytest.mark.parametrize(
    ("grown", "problems"), [([{"CPU": 4.0}] * 9, 0), ([{"CPU": 1.0}] * 9, 1), (None, 1)]
)
def test_a_cluster_that_is_too_small_now_is_said_and_counts_only_where_it_cannot_grow(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    grown: list[dict[str, float]] | None,
    problems: int,
) -> None:
    monkeypatch.setattr(placement, "connected", lambda *_: nullcontext())
    monkeypatch.setattr(examination, "examine", lambda *_: [])
    for module in (placement, examination):
        monkeypatch.setattr(module, "live_nodes", lambda: [{"Resources": {"CPU": 1.0}}])
        monkeypatch.setattr(module, "nodes_at_most", lambda: grown)
    file = write_space(tmp_path, resources={"cpu": 2})
    with pytest.raises(StudyError, match="1 problem found") if problems else nullcontext():
        doctor(file, address="auto")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "  no node of the cluster has 2 CPU, which a process of a trial asks: trials wait until it"
        " grows"
    )
    assert (lines[-1] == "nothing found that would stop a search, once the cluster has grown") == (
        problems == 0
    )


def test_a_gang_that_half_a_cluster_holds_waits_and_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(placement, "connected", lambda *_: nullcontext())
    monkeypatch.setattr(examination, "examine", lambda *_: [])
    monkeypatch.setattr(examination, "nodes_that_cannot_connect", lambda *_: [])
    monkeypatch.setattr(examination, "live_nodes", lambda: [{"Resources": {"CPU": 4.0}}])
    monkeypatch.setattr(examination, "nodes_at_most", lambda: None)
    doctor(write_space(tmp_path, resources={"cpu": 2, "processes": 3}), address="auto")
    assert capsys.readouterr().out.splitlines() == [
        (
            "  the nodes of the cluster hold 2 processes of 2 CPU, and a trial has 3: trials wait"
            " until it grows"
        ),
        "nothing found that would stop a search, once the cluster has grown",
    ]
