from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray import exceptions
from ray.air.execution import FixedResourceManager
from ray.air.execution._internal import RayActorManager

from rkdsearch.execution.interruption import Interruption
from rkdsearch.execution.lost_workers import as_loss, tell_tune
from rkdsearch.execution.tune_adapters import StudyCallback
from rkdsearch.search.study import Study
from tests.execution.real import Search, space
from tests.search.files import load_space
from tests.search.witness import GREED

MARGIN = 2.5 * 10**9  # bytes for a search without greed
killed = exceptions.OutOfMemoryError("2 worker(s) were killed")
raised = exceptions.RayTaskError("step", "Traceback", ValueError("a bug"))
of_its_gang = exceptions.RayTaskError("step", "OutOfMemoryError: 2 worker(s) were killed", killed)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (killed, exceptions.RayActorError, "OutOfMemoryError: 2 worker(s) were killed"),
        (exceptions.NodeDiedError("10.0.0.2"), exceptions.RayActorError, "NodeDiedError: 10.0.0.2"),
        (exceptions.ActorDiedError(), exceptions.ActorDiedError, "The actor died unexpectedly"),
    ],
)
def test_a_worker_that_is_gone_is_lost_for_tune_whatever_took_it(
    error: Exception, kind: type[Exception], text: str
) -> None:
    seen = list[Any]()
    for _ in range(2):  # as in a process with two searches
        tell_tune()
    manager = RayActorManager(resource_manager=FixedResourceManager({"CPU": 1}))
    actor: Any = SimpleNamespace(actor_id=1, _on_error=None)
    task: Any = SimpleNamespace(_tracked_actor=actor, _on_error=lambda _, found: seen.append(found))
    manager._cleanup_actor = lambda *, tracked_actor: seen.append(tracked_actor)
    manager._actor_task_failed(task, error)
    assert len(seen) == 2
    assert seen[0] is actor
    assert type(seen[1]) is kind
    assert str(seen[1]).startswith(text)


@pytest.mark.parametrize("error", [raised, of_its_gang])
def test_what_a_living_worker_raised_stays_its_own(error: Exception) -> None:
    assert as_loss(error) is error


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        ([killed], ", because its machine ran out of memory"),
        ([exceptions.ActorDiedError(), of_its_gang], ", because its machine ran out of memory"),
        ([killed, exceptions.ActorDiedError()], ""),
        ([], ""),
    ],
)
def test_the_sentence_of_a_worker_that_was_killed_for_memory_says_so(
    errors: list[Exception], why: str, tmp_path: Path
) -> None:
    study, said = Study(tmp_path, load_space(tmp_path), 9, {}), list[str]()
    assert study.next() is not None
    file = tmp_path / "error.txt"
    for number, error in enumerate(errors):  # as Tune writes them
        with file.open("a") as tunes:
            tunes.write(f"Failure # {number} (occurred at 2026-11-30)\n{as_loss(error)}\n")
    trial = SimpleNamespace(
        config={"trial_id": "t00000"}, trial_id="tune", num_failures=1, error_file=str(file)
    )
    StudyCallback(study, None, said.append, Interruption(tmp_path)).on_trial_recover(1, [], trial)
    (sentence,) = said
    assert sentence.startswith(f"trial t00000 lost its worker{why}")
    assert sentence.endswith("started again (1 of 3)")
    assert ("a larger resources.cpu" in sentence) == bool(why)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_search_goes_on_where_ray_kills_a_worker_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 1.5 * (GREED + MARGIN):
        pytest.skip(f"needs {1.5 * (GREED + MARGIN) / 1e9:.0f} GB of free memory")
    limit = (memory.total - memory.available + MARGIN) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{limit:.3f}")
    search = Search(tmp_path, trials=3, space=space({"greedy": "greedy"}, (2,)))
    output = search.finish()
    search.whole()
    assert {row["status"] for row in search.rows().values()} == {"finished"}
    assert "lost its worker, because its machine ran out of memory" in output
    assert "Traceback" not in output
