from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray

from rkdsearch.execution.ray_session import connected
from tests.execution.real import ROOT, SECRET, SECRET_NAMES
from tests.search.witness import VARIABLE


@pytest.fixture(scope="package")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One Ray for the tests of this folder, and the file to which witnesses in its workers write.

    Starting another costs as much as most of its tests.
    """
    file = tmp_path_factory.mktemp("witness") / "witness.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        # Ray counts what it is told, and touches none
        patch.setattr(ray, "init", partial(ray.init, num_gpus=1))
        patch.setenv(VARIABLE, str(file))
        for name in SECRET_NAMES:
            patch.setenv(name, SECRET)
        patch.setenv("PYTHONPATH", str(ROOT))
        with connected(None):
            yield file
