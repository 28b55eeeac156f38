import pytest
import ray

from rkdsearch.errors import StudyError
from rkdsearch.execution.placement import (
    available_resources,
    check_machine,
    missing_on_cluster,
    placement,
    trials_on,
)
from rkdsearch.space.settings import Resources


def test_a_trial_that_can_never_be_placed_is_refused_with_the_way_out() -> None:
    check_machine(Resources(cpu=1), {"CPU": 2.0})
    check_machine(Resources(cpu=1, processes=2), {"CPU": 2.0})
    with pytest.raises(
        StudyError,
        match=r"resources: a trial asks 3 processes of 1 CPU, and this machine has 2 CPU; lower",
    ):
        check_machine(Resources(processes=3), {"CPU": 2.0})
    with pytest.raises(StudyError, match=r"asks 1 CPU and 1 GPU, and this machine has 2 CPU and 0"):
        check_machine(Resources(gpu=1), {"CPU": 2.0})


def test_this_machine_is_asked_before_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with available_resources(Resources(cpu=1), None):
        pass
    with (
        pytest.raises(StudyError, match="asks 1000 CPU"),
        available_resources(Resources(cpu=1000), None),
    ):
        pass


G5 = {"CPU": 4.0, "GPU": 1.0}  # a g5.xlarge as cluster.yaml counts it


@pytest.mark.parametrize(
    ("resources", "nodes", "trials"),
    [
        # the gang's own actor needs no room beside its processes
        (Resources(cpu=4, gpu=1, processes=2), [G5, G5], 1),
        (Resources(cpu=4, gpu=1), [G5, G5], 2),
        (Resources(cpu=1, processes=2), [{"CPU": 2.0}], 1),
        (Resources(cpu=1, processes=2), [{"CPU": 1.0}] * 3, 1),
        # 6 CPUs in all, and no node that holds two processes of 2
        (Resources(cpu=2, processes=2), [{"CPU": 3.0}, {"CPU": 3.0}], 1),
        (Resources(cpu=2, processes=3), [{"CPU": 3.0}, {"CPU": 3.0}], 0),
        (Resources(cpu=1, gpu=1, processes=2), [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 2.0}], 0),
        # a share of a GPU lies on one GPU
        (Resources(cpu=1, gpu=0.6), [{"CPU": 9.0, "GPU": 3.0}], 3),
        (Resources(cpu=1, gpu=0.3), [{"CPU": 9.0, "GPU": 2.0}], 6),
        (Resources(cpu=0.1), [{"CPU": 0.3}], 3),
        (Resources(gpu=1), [{"CPU": 16.0}], 0),
    ],
)
def test_trials_that_nodes_hold_are_counted_by_packing_their_processes(
    resources: Resources, nodes: list[dict[str, float]], trials: int
) -> None:
    assert trials_on(nodes, resources) == trials
    assert (missing_on_cluster(resources, nodes) is None) == (trials > 0)


def test_what_a_cluster_lacks_is_one_sentence() -> None:
    assert missing_on_cluster(Resources(cpu=16, gpu=1), [{"CPU": 16.0}, G5]) == (
        "no node of the cluster has 16 CPU and 1 GPU, which a process of a trial asks"
    )
    assert missing_on_cluster(Resources(cpu=2, processes=3), [{"CPU": 3.0}] * 2) == (
        "the nodes of the cluster hold 2 processes of 2 CPU, and a trial has 3"
    )


def test_the_actor_of_a_gang_asks_nothing_and_lives_in_the_bundle_of_rank_0() -> None:
    assert placement(Resources(cpu=2, gpu=0.25)).bundles == [{"CPU": 2.0, "GPU": 0.25}]
    gang = placement(Resources(cpu=2, gpu=1, processes=2))
    assert gang.bundles == [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert gang.head_bundle_is_empty
