import pytest
import ray

from rkdsearch.errors import StudyError
from rkdsearch.execution.placement import available_resources, check_machine, placement
from rkdsearch.space.settings import Resources


def test_a_trial_that_can_never_be_placed_is_refused_with_the_way_out() -> None:
    check_machine(Resources(cpu=1), {"CPU": 2.0})
    with pytest.raises(
        StudyError, match=r"resources: a trial of 2 processes asks 2.01 CPU, which must be <= 2"
    ):
        check_machine(Resources(processes=2), {"CPU": 2.0})
    with pytest.raises(StudyError, match=r"asks 1 GPU, which must be <= 0"):
        check_machine(Resources(gpu=1), {"CPU": 2.0})


def test_this_machine_is_asked_before_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with available_resources(Resources(cpu=1), None, str):
        pass
    with (
        pytest.raises(StudyError, match="asks 1000 CPU"),
        available_resources(Resources(cpu=1000), None, str),
    ):
        pass


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        (Resources(cpu=4, gpu=1), None),
        (Resources(cpu=4, gpu=1, processes=2), None),
        (
            Resources(cpu=4, gpu=2),
            (
                "no node of the cluster has 4 CPU and 2 GPU now, which a trial's process"
                " asks: trials wait until it grows"
            ),
        ),
        (
            Resources(cpu=16, gpu=1),
            (
                "no node of the cluster has 16 CPU and 1 GPU now, which a trial's process"
                " asks: trials wait until it grows"
            ),
        ),
        (
            Resources(gpu=1, processes=3),
            "the cluster has 2 GPU now, and a trial asks 3: trials wait until it grows",
        ),
    ],
)
def test_what_a_cluster_lacks_now_is_said_once_and_is_no_error(
    monkeypatch: pytest.MonkeyPatch, resources: Resources, sentence: str | None
) -> None:
    node = {"CPU": 8.0, "GPU": 1.0}
    nodes = [(True, {"CPU": 16.0}), (True, node), (True, node), (False, {"CPU": 64.0, "GPU": 8.0})]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"Alive": alive, "Resources": has} for alive, has in nodes]
    )
    told: list[str] = []
    with available_resources(resources, "auto", told.append):
        assert told == ([] if sentence is None else [sentence])


def test_a_gang_is_one_atomic_group_of_its_actor_and_its_processes() -> None:
    assert placement(Resources(cpu=2, gpu=0.25)).bundles == [{"CPU": 2.0, "GPU": 0.25}]
    assert placement(Resources(cpu=2, gpu=1, processes=2)).bundles == [
        {"CPU": 0.01},
        {"CPU": 2.0, "GPU": 1.0},
        {"CPU": 2.0, "GPU": 1.0},
    ]
