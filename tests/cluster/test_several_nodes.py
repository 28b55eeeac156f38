"""Searches on several Ray nodes: what is refused before compute is spent.

Seconds are properties of each test, which `--junitxml` writes.
"""

import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import Record
from tests.cluster.nodes import Cluster
from tests.cluster.searches import ClusterSearch, slow_space

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def said(process: subprocess.Popen[str], log: Path, code: int, within: float = 240.0) -> str:
    process.wait(within)
    text = log.read_text()
    assert process.returncode == code, text
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"RAY_AUTH_MODE": None}, "and RAY_AUTH_MODE is not set here: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "and the token here is another one: copy the head's"),
        ({"RAY_AUTH_TOKEN": None, "HOME": "/nowhere"}, "and there is no token here: copy the"),
    ],
    ids=["no mode", "another token", "no token"],
)
def test_a_cluster_that_asks_for_another_token_says_so_at_once(
    cluster: Cluster,
    tmp_path: Path,
    environment: dict[str, str | None],
    sentence: str,
    measured: Record,
) -> None:
    log, began = tmp_path / "said", time.monotonic()
    text = said(cluster.command("doctor", log=log, **environment), log, 2)
    measured("seconds", time.monotonic() - began)
    assert sentence in text
    assert text.count("\n") == 1


def test_the_doctor_looks_at_every_node_and_lets_two_of_them_meet(
    cluster: Cluster, tmp_path: Path, measured: Record
) -> None:
    file, log = tmp_path / "space.yaml", tmp_path / "said"
    file.write_text(yaml.safe_dump(slow_space(3, cpu=1, processes=2), sort_keys=False))
    words = [str(file), "--study", str(tmp_path / "study"), "--allow-import", "tests.search"]
    began = time.monotonic()
    text = said(cluster.command("doctor", *words, log=log), log, 0)
    measured("seconds", time.monotonic() - began)
    assert {line.partition(" ")[0] for line in text.splitlines() if "torch" in line} == {
        cluster.address(1),
        cluster.address(2),
    }
    assert text.endswith("nothing found that would stop a search\n")
    assert not (tmp_path / "study").exists()


@pytest.mark.namespaces
def test_a_node_that_does_not_see_the_study_is_named_before_anything_is_trained(
    cluster: Cluster, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    cluster.start_worker(4, hidden=shared)
    try:
        (shared / "search").mkdir()
        search = ClusterSearch(shared / "search", 2, slow_space(3), cluster=cluster)
        text = said(search.tune(), search.log, 2)
    finally:
        cluster.kill(4)
    assert f"node {cluster.address(4)} (node4) does not see {search.study} as the search" in text
    assert search.rows() == {}
