"""The time of a search is said before it starts, from short timings."""

from pathlib import Path

import pytest

from rkdsearch.config import TrainConfig
from rkdsearch.execution import expected_time
from rkdsearch.methods import name_of
from rkdsearch.space.space import SearchSpace
from tests.search.files import SMALL, load_space

RECIPE = {"method": {"name": "natural"}, "training": {"epochs": 3, "device": "cpu"}}
TEACHER = {"network": {"name": "mlp", "width": 4}, "recipe": RECIPE}


def space_of(folder: Path, **changes: object) -> SearchSpace:
    return load_space(
        folder,
        **{
            "fixed": {**SMALL["fixed"], "teachers.robust": TEACHER},
            "search": {"method.name": {"choice": ["rslad", "trades"]}},
            "first": [{"method.name": "pgd_at"}, {"method.name": "trades"}],
            **changes,
        },
    )


def test_a_full_run_of_each_method_is_timed_before_its_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[TrainConfig] = []

    def seconds(config: TrainConfig) -> float:
        assert config.teacher_roles == () or Path(str(config.teachers.of("robust").path)).is_file()
        timed.append(config)
        return {"rslad": 9.0, "trades": 2.0, "pgd_at": 1.0}[name_of(config.method)]

    monkeypatch.setattr(expected_time, "expected_seconds", seconds)
    study = tmp_path / "study"
    assert expected_time.run_time(study, space_of(tmp_path)) == expected_time.RunTime(4.0, 3)
    assert {config.training.epochs for config in timed} == {4}
    assert sorted(name_of(config.method) for config in timed) == ["pgd_at", "rslad", "trades"]
    assert not study.exists()
    monkeypatch.setattr(expected_time, "ENOUGH_SECONDS", 0.0)
    assert expected_time.run_time(study, space_of(tmp_path)) in (
        expected_time.RunTime(9.0, 1),
        expected_time.RunTime(2.0, 1),
    )


def test_real_runs_and_teachers_are_timed(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    timed = expected_time.run_time(tmp_path / "study", space)
    assert timed is not None
    assert timed.methods == 3
    assert 0 < timed.seconds < 60
    (teacher,) = expected_time.teacher_times(tmp_path / "study", space)
    assert (teacher.role, teacher.epochs) == ("robust", 3)
    assert teacher.seconds is not None
    assert 0 < teacher.seconds < 60


@pytest.mark.parametrize(
    "resources", [{"cpu": 1, "processes": 2}, {"cpu": 1, "gpu": 1}], ids=["processes", "gpu"]
)
def test_what_this_machine_cannot_run_alone_is_not_timed(
    tmp_path: Path, resources: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    space = space_of(tmp_path, resources=resources)
    assert expected_time.run_time(tmp_path, space) is None
    assert list(expected_time.teacher_times(tmp_path, space)) == [
        expected_time.TeacherTime("robust", 3, None)
    ]
