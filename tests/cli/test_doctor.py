from pathlib import Path

import pytest

from rkdsearch.cli.doctor import doctor
from rkdsearch.errors import RkdError, StudyError
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


@pytest.mark.parametrize("url", ["s3://bucket/study", "gs://bucket/study", "hdfs://host/x"])
def test_object_storage_is_refused_by_its_name(url: str) -> None:
    with pytest.raises(StudyError, match=rf"{url[:2]}.* storage is not supported: .* all nodes"):
        doctor(study=Path(url))


def test_a_trial_that_does_not_fit_is_found(tmp_path: Path) -> None:
    with pytest.raises(RkdError, match="a trial asks 1000 CPU, and this machine has"):
        doctor(write_space(tmp_path, resources={"cpu": 1000}))
