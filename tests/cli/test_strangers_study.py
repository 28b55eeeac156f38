"""A study folder from a stranger is read without running anything that is in it."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.results.factory import make_study

ROOT = Path(__file__).parents[2]
READ = """
import sys
from pathlib import Path

FORBIDDEN = {"os.exec", "os.posix_spawn", "os.system", "pickle.find_class", "socket.connect"}

def watch(event, arguments):
    if event in FORBIDDEN or (event == "subprocess.Popen" and "uname" not in str(arguments)):
        print("RAN", event, arguments)

import rkdsearch, rkdsearch.reporting.page, pandas, rich.table
from rkdsearch.cli.status import status
sys.path.insert(0, sys.argv[1])  # as where the command is given inside the folder
sys.addaudithook(watch)
if sys.argv[2:] == ["can fail"]:
    import pickle
    pickle.loads(Path(sys.argv[1], "trials", "a.pkl").read_bytes())
status(Path(sys.argv[1]))
rkdsearch.report(sys.argv[1])
rkdsearch.draw_front(sys.argv[1])
"""


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("BOOM",)


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with hostile texts, pickles, modules, and an Arrow type that unpickles itself."""
    folder = tmp_path_factory.mktemp("strange") / "study"
    make_study(folder, trials=20, evil="__import__('os').system('echo BOOM'){{7*7}}$(echo BOOM)")
    bomb = pickle.dumps(Bomb())
    for name in ("trials/a.pkl", "epochs/last.pt", "optuna.journal", "teachers/x.pth", ".driver"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bomb)
    for name in ("sitecustomize.py", "rkdsearch_plugin.py", "conftest.py"):
        (folder / name).write_text("print('BOOM')")
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": bomb}
    field = pa.field("trial_id", pa.string(), metadata=metadata)
    table = pa.Table.from_arrays([pa.array(["bomb"])], schema=pa.schema([field]))
    pq.write_table(table, folder / "trials" / "bomb.parquet")
    return folder


def read(folder: Path, *more: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", READ, str(folder), *more],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=100,
        env={**os.environ, "COLUMNS": "1000"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def test_status_report_and_figure_run_nothing_of_it(strange: Path) -> None:
    output = read(strange)
    assert "RAN" not in output
    assert "\nBOOM" not in output
    assert "echo BOOM" in output  # the label, as text


def test_this_check_can_fail(strange: Path) -> None:
    output = read(strange, "can fail")
    assert "RAN pickle.find_class" in output
    assert "\nBOOM" in output
