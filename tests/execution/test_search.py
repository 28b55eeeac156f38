"""Real searches on one Ray of this process: failures, lost workers, GPUs, and test evaluation."""

import json
import os
import platform
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.tune.execution.class_cache import _ActorClassCache

from rkdsearch.cli.evaluate import evaluate
from rkdsearch.cli.report import report
from rkdsearch.cli.tune import tune
from rkdsearch.errors import DiskError, TeacherError, Terminated
from rkdsearch.execution import teachers
from rkdsearch.execution.search import _patch_tune, run_search
from rkdsearch.execution.trainable import RayTrial
from rkdsearch.plugins import allow_import
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.search import ledger
from rkdsearch.search.study import Study
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import EpochResult
from tests.execution.real import FIXED, SECRET, Search, space
from tests.search.files import load_space

pytestmark = pytest.mark.timeout(600)
MOODS = {m: m for m in ("unlucky", "nan", "broken", "hungry", "lost", "full")}
Said = Callable[[], str]


@pytest.fixture(scope="module", autouse=True)
def wide() -> Iterator[None]:
    """A terminal that breaks no sentence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        yield


@pytest.fixture(scope="module")
def witness(one_ray: Path) -> Path:
    """The file to which the witnesses of Ray's workers write."""
    return one_ray


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """Terminal output since the last call, of this process and of those that it started."""
    return lambda: "".join(capfd.readouterr())


def seen(witness: Path, mood: str) -> list[dict[str, Any]]:
    """Steps that witnesses of this mood recorded."""
    steps = (
        [json.loads(line) for line in witness.read_text().splitlines()] if witness.exists() else []
    )
    return [step for step in steps if step["mood"] == mood]


@contextmanager
def signal_after(witness: Path, steps: int, number: int) -> Iterator[None]:
    """Send this process a signal after `steps` more steps of the witnesses."""

    def calm_steps() -> int:
        """Cheap: asked fifty times a second."""
        return witness.read_bytes().count(b'"mood": "calm"') if witness.exists() else 0

    until, over = calm_steps() + steps, threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if calm_steps() >= until:
                os.kill(os.getpid(), number)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def run(search: Search) -> None:
    tune(
        search.file,
        trials=search.trials,
        study=search.study,
        resume=True,
        allow_import=("tests.search",),
    )


@pytest.fixture(scope="module")
def moody(witness: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search with one trial at a time, so that a full disk always meets the same state."""
    return Search(
        tmp_path_factory.mktemp("moody"), trials=9, space=space(MOODS, (2,), resources={"cpu": 1.5})
    )


def test_whatever_happens_to_one_trial_is_its_own_matter_and_a_full_disk_is_everybodys(
    witness: Path, moody: Search, said: Said
) -> None:
    full, hungry, lost = (witness.with_suffix(f".{mood}") for mood in ("full", "hungry", "lost"))
    for fault in (full, hungry, lost):
        fault.touch()
    with pytest.raises(
        DiskError,
        match=(
            r"t00006/best.safetensors: could not be written: No space left on device; is the folder"
            r" yours, and the disk not full"
        ),
    ):
        run(moody)
    assert {label: row["status"] for label, row in moody.labelled().items()} == {
        "natural": "finished",
        "unlucky": "finished",
        "nan": "failed",
        "broken": "failed",
        "hungry": "failed",
        "lost": "failed",
        "full": "running",
    }
    before, output, rows = moody.epochs(), said(), moody.labelled()
    assert rows["hungry"]["error"].startswith(
        "epoch 2: the device is out of memory; lower training.batch_size (now 200), raise"
    )
    assert {label: rows[label]["failure"] for label in ("nan", "broken", "hungry", "lost")} == {
        "nan": "loss",
        "broken": "error",
        "hungry": "memory",
        "lost": "worker",
    }
    assert rows["lost"]["error"].startswith(
        "CUDA error: an illegal memory access was encountered (witness.py:"
    )
    processes = {
        mood: {step["pid"] for step in seen(witness, mood)} for mood in ("hungry", "lost", "full")
    }
    # relative paths of data and teachers are those of the command
    assert {step["folder"] for step in seen(witness, "lost")} == {str(Path.cwd())}
    # a worker is kept; one whose device is lost has one try, and no trial after it
    assert processes["hungry"] == processes["lost"]
    assert len(processes["lost"]) == 1
    assert not processes["lost"] & processes["full"]
    assert (
        output.count("trial t00001 lost its worker, started again (1 of 3)\n")
        == output.count("started again")
        == 1
    )
    assert (
        f"Continue with: rkdsearch tune {moody.file} --trials 9 --study {moody.study} --resume"
        in output
    )
    assert "Traceback" not in output
    assert "raylet" not in output

    for fault in (full, hungry, lost):
        fault.unlink()
    run(moody)
    moody.whole()
    rows, output = moody.labelled(), said()
    assert {rows[label]["status"] for label in ("full", "hungry", "lost")} == {"finished"}
    assert (
        "retried from their last epoch, after a failure of the machine: t00004, t00005\n" in output
    )
    assert before.items() <= moody.epochs().items()
    assert rows["nan"]["error"].startswith(
        "epoch 1, batch 1: the loss is nan; likely causes: optimizer.lr"
    )
    assert rows["broken"]["error"].startswith("ZeroDivisionError: a bug in one method (witness.py:")
    assert "t00002 failed: epoch 1, batch 1: the loss is nan" in output
    assert "Traceback" not in output
    assert "raylet" not in output


def test_the_test_evaluation_uses_test_images_alone_the_same_for_all_and_once(
    moody: Search, said: Said
) -> None:
    def evaluated() -> None:
        evaluate(moody.study, images=60, attacks=("clean", "pgd20"), allow_import=("tests",))

    run(moody)
    assert f"nothing to do: all 9 trials of {moody.study} have ended\n" in said()
    evaluated()
    rows = records(Store(moody.study).evaluations())
    finished = {t for t, s in moody.ended().items() if s == "finished"}
    assert len(finished) == 7
    assert {(r["trial_id"], r["attack"]) for r in rows} == {
        (t, a) for t in finished for a in ("clean", "pgd20")
    }
    assert {r["split"] for r in rows} == {"test"}
    assert {r["images"] for r in rows} == {60}
    assert len({r["subset_sha256"] for r in rows}) == 1
    assert all(
        len(r["per_image"]) == 60 and r["per_image"].count("1") == r["correct"] for r in rows
    )
    said()
    evaluated()
    assert "14 evaluation jobs were skipped: " in said()
    assert records(Store(moody.study).evaluations()) == rows


def test_a_finished_study_is_left_as_it_is(moody: Search) -> None:
    run(moody)
    before = {p: p.stat().st_mtime_ns for p in (moody.study / "trials").iterdir()}
    run(moody)
    assert {p: p.stat().st_mtime_ns for p in (moody.study / "trials").iterdir()} == before


def taken_away(trial_id: str, after: int) -> Callable[..., bool]:
    """`Study.report`, which damages a checkpoint once, after this number of epochs of this trial.

    The trial then waits for a worker, as after a segment.
    """
    report, torn = Study.report, list[Path]()

    def reported(
        study: Study, reporter: str, result: EpochResult, facts: Mapping[str, object]
    ) -> bool:
        on = report(study, reporter, result, facts)
        if torn or (reporter, result.epoch) != (trial_id, after):
            return on
        torn.append(ledger.folder_of(study.folder, trial_id) / "last.safetensors")
        torn[0].write_bytes(torn[0].read_bytes()[:-100])
        study.interrupt(trial_id)
        return False

    return reported


def test_two_processes_train_one_student_and_what_one_of_them_meets_is_the_trials_failure(
    witness: Path, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "report", taken_away("t00000", after=1))
    moods = {"nan": "nan", "alone": "alone"}
    search = Search(
        tmp_path,
        trials=3,
        space=space(moods, (2,), resources={"cpu": 0.9, "gpu": 0.5, "processes": 2}),
    )
    run(search)
    search.whole()
    rows = search.labelled()
    assert {label: row["status"] for label, row in rows.items()} == {
        "natural": "finished",
        "nan": "failed",
        "alone": "failed",
    }
    assert rows["natural"]["run.processes"] == 2
    assert rows["nan"]["error"].startswith("epoch 1, batch 1: the loss")
    assert rows["alone"]["error"].startswith("ZeroDivisionError: a bug in one process (witness.py:")
    output = said()
    assert "Traceback" not in output
    assert (
        output.count(
            "last.safetensors was damaged and is put aside as last.safetensors.damaged; its run is"
            " trained afresh"
        )
        == 1
    )
    assert [
        r["epoch"] for r in records(Store(search.study).epochs()) if r["trial_id"] == "t00000"
    ] == [1, 2]
    assert {step["gpus"] for step in seen(witness, "alone")} == {"0"}  # both processes on one GPU


def test_two_trials_share_a_gpu_and_a_third_waits_for_it(witness: Path, tmp_path: Path) -> None:
    searched = space(dict.fromkeys("abc", "told"), (1,), resources={"cpu": 0.25, "gpu": 0.5})
    for number, baseline in enumerate(searched["first"]):
        baseline["optimizer.lr"] = 0.1 + 0.01 * number  # equal ones would be one trial
    search = Search(tmp_path, trials=4, space=searched)
    placed: list[Counter[str]] = []

    def listen(_: Study) -> None:
        placed.append(
            Counter(group["state"] for group in ray.util.placement_group_table().values())
        )
        asked = {step["pid"] for step in seen(witness, "told")}
        if placed[-1]["CREATED"] == len(asked) == 2 and placed[-1]["PENDING"]:
            witness.with_suffix(".told").touch()

    allow_import("tests.search")
    run_search(
        Study(search.study, SearchSpace.load(search.file), search.trials, {}), listener=listen
    )
    search.whole()
    assert {label: row["status"] for label, row in search.labelled().items()} == dict.fromkeys(
        ("natural", "a", "b", "c"), "finished"
    )
    assert max(groups["CREATED"] for groups in placed) == 2
    assert {step["gpus"] for step in seen(witness, "told")} == {"0"}


@contextmanager
def another_node() -> Iterator[Node]:
    """A second node of this Ray, with a raylet and workers of its own, and one GPU by its count."""
    node = Node(
        RayParams(
            gcs_address=ray.get_runtime_context().gcs_address,
            node_ip_address="127.0.0.1",
            num_cpus=1,
            num_gpus=1,
            object_store_memory=80_000_000,
            include_log_monitor=False,
            node_manager_port=0,
            dashboard_agent_listen_port=None,
        ),
        head=False,
        shutdown_at_exit=False,
        spawn_reaper=False,
    )
    try:
        yield node
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def test_the_trial_of_a_node_that_is_killed_goes_on_elsewhere_from_its_last_epoch(
    witness: Path, tmp_path: Path
) -> None:
    told = witness.with_suffix(".told")
    told.unlink(missing_ok=True)
    searched = space(dict.fromkeys("ab", "told"), (20,), resources={"gpu": 1})
    search = Search(tmp_path, trials=2, space={**searched, "first": searched["first"][1:]})
    known = len(seen(witness, "told"))
    notices, before = list[str](), dict[tuple[str, int], Any]()

    def pids() -> set[int]:
        return {step["pid"] for step in seen(witness, "told")[known:]}

    def listen(study: Study) -> None:
        if len(pids()) == 2:  # a trial on each node
            told.touch()
        if before or min((len(t.epochs) for t in study.ledger.executing), default=0) < 2:
            return
        raylet = node.all_processes["raylet"][0].process
        (worker,) = (pid for pid in pids() if psutil.Process(pid).ppid() == raylet.pid)
        for trial in study.ledger.executing:
            study.ledger.write(trial)
        before.update(search.epochs())
        raylet.kill()
        os.kill(worker, signal.SIGKILL)

    allow_import("tests.search")
    study = Study(search.study, SearchSpace.load(search.file), search.trials, {})
    with another_node() as node:
        run_search(study, listener=listen, notice=notices.append)
    search.whole()
    assert {row["status"] for row in search.rows().values()} == {"finished"}
    assert len(before) >= 4
    assert before.items() <= search.epochs().items()
    (notice,) = notices
    assert notice.endswith("lost its worker, started again (1 of 3)")


def test_a_search_that_was_stopped_proposes_what_one_that_was_left_alone_does(
    witness: Path, tmp_path: Path
) -> None:
    searched = space(
        ladder=(1, 2),
        resources={"cpu": 1.5},
        sampler={"name": "tpe", "startup": 3},
        scheduler={"reduction": 2},
    )
    found = {}
    for stops in ((), (4, 17)):
        (tmp_path / str(len(stops))).mkdir()
        search = Search(tmp_path / str(len(stops)), trials=12, space=searched)
        for steps, number, error in zip(
            stops, (signal.SIGINT, signal.SIGTERM), (KeyboardInterrupt, Terminated), strict=False
        ):
            with pytest.raises(error), signal_after(witness, steps, number):
                run(search)
            assert len(search.proposed()) < 12
            assert not (search.study / ".ray").exists()
        run(search)
        search.whole()
        found[stops] = search.proposed()
        assert {row["run.node"] for row in search.rows().values()} == {platform.node()}
    assert found[4, 17] == found[()]


def test_secrets_of_the_driver_reach_neither_rays_logs_nor_the_study(
    witness: Path, moody: Search
) -> None:
    run(moody)
    report(moody.study)
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [f for root in (session, moody.study) for f in root.rglob("*") if f.is_file()]
    assert len(files) > 20
    assert [str(f) for f in files if SECRET.encode() in f.read_bytes()] == []


def test_ray_on_this_machine_listens_on_the_loopback_interface_alone(witness: Path) -> None:
    heard = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert heard == {"127.0.0.1"}
    assert os.environ["RAY_AUTH_MODE"] == "token"  # other users of the machine reach it


def test_ray_on_this_machine_has_no_process_without_a_use(witness: Path) -> None:
    commands = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    assert any("raylet" in command for command in commands)
    # of the autoscaler, and of workers' output
    assert not any("monitor.py" in command for command in commands)


def test_a_trial_takes_a_worker_that_waits_with_no_environment_of_its_own() -> None:
    _patch_tune()
    actor = _ActorClassCache().get(RayTrial)
    assert actor._default_options["runtime_env"] == {}


def test_on_a_cluster_a_teacher_is_made_where_a_trial_would_be(
    witness: Path, tmp_path: Path
) -> None:
    recipe = {"method": {"name": "natural"}, "training": {"epochs": 1, "device": "cpu"}}
    robust = {"network": {"name": "mlp", "width": 4}, "recipe": recipe}
    fixed = {**FIXED, "method.name": "rslad", "teachers.robust": robust}
    asking = load_space(tmp_path, fixed=fixed, search={}, first=[])
    work, driver = teachers.on_cluster(asking.resources), teachers.train_and_measure
    steps = list(teachers.prepare(tmp_path / "study", asking, work))
    assert [(bool(s.epoch), bool(s.so_far), bool(s.measured)) for s in steps] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 1, 0),  # with the checks behind its flags
        (0, 0, 1),
    ]
    (again,) = [s for s in teachers.prepare(tmp_path / "study", asking, driver) if s.measured]
    assert again.measured == steps[-1].measured
    assert (steps[-1].trained, again.trained) == (True, False)
    gone = load_space(
        tmp_path,
        fixed={**fixed, "teachers.robust": {**robust, "path": str(tmp_path / "gone.pt")}},
        search={},
        first=[],
    )
    with pytest.raises(
        TeacherError, match=r"gone.pt: cannot be read: No such file or directory; check the path$"
    ):
        list(work(teachers.TeacherOrder(gone.example(), "robust", tmp_path, 1)))
