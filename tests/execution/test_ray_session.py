import pytest
import ray

from rkdsearch.errors import StudyError
from rkdsearch.execution.ray_session import connected


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Could not find any running Ray instance.\nMore."),
        ValueError("Invalid address format: x"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    first = str(error).splitlines()[0]
    law = (
        rf"^--address x: there is no Ray cluster to join \({first}\); start one"
        r" \(docs/cluster.md\), or leave --address out to use this machine$"
    )
    with pytest.raises(StudyError, match=law), connected("x"):
        pass
