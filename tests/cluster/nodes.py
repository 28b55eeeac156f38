"""A Ray cluster of several nodes on one machine.

Each node is a `ray start` of its own, in a network namespace with its own address, hostname and
hosts file (as root on Linux); elsewhere all share the machine's network, with addresses of the
loopback.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.execution.real import ROOT
from tests.search.witness import NODE, VARIABLE

MARK = NODE  # in the environment of every process of a node: `RUN:NODE`

WAIT = 480.0  # a gang took 240 s to its first epochs beside two busy processes
PORT = 6391
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
# as Debian and Ubuntu write it: the host's name is not at the address that others know
HOSTS = "127.0.0.1 localhost\n127.0.1.1 {host}\n"


@cache
def namespaces() -> bool:
    """True where this process may make network namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    name = f"rkdtry{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.returncode == 0


def until(condition: Callable[[], object], *, alive: subprocess.Popen[str] | None = None) -> float:
    """Wait for the condition; returns the seconds that it took. Fails where `alive` ends before."""
    began = time.monotonic()
    while not condition():
        assert alive is None or alive.poll() is None, "it ended early"
        assert time.monotonic() - began < WAIT, "waited in vain"
        time.sleep(0.1)
    return time.monotonic() - began


class Cluster:
    """Node 0 is the head, without CPUs; the others are workers. All need the same token."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness
        self.folder = Path(tempfile.mkdtemp(prefix="rkd", dir="/tmp"))  # sockets need a short path
        self.run = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._short = secrets.token_hex(2)
        self._net = 1 + secrets.randbelow(250)
        self._made: set[int] = set()
        self._processes: list[subprocess.Popen[str]] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            VARIABLE: str(witness),
        }
        if namespaces():
            bridge = f"rkb{self._short}"
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"10.77.{self._net}.254/24", "dev", bridge)
            _ip("link", "set", bridge, "up")

    def address(self, node: int) -> str:
        return f"10.77.{self._net}.{node + 1}" if namespaces() else f"127.77.{self._net}.{node + 1}"

    @property
    def head(self) -> str:
        """The address for `--address`."""
        return f"{self.address(0)}:{PORT}"

    def start_head(self) -> None:
        self._start(0, ["--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false"])

    def start_worker(self, node: int, *, cpus: int = 1, hidden: Path | None = None) -> None:
        """Start a worker, which sees an empty folder in place of the one that is `hidden`."""
        self._start(node, [f"--address={self.head}", f"--num-cpus={cpus}"], hidden)

    def start_workers(self, *nodes: int) -> None:
        """Start these workers at the same time, with a CPU each."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.start_worker, nodes))

    def stand(self, *nodes: int) -> None:
        """End every worker but these, and start what is missing of them and the head."""
        if not self.pids(0):  # workers do not go to another head
            for node in self._made:
                self.kill(node)
            self.start_head()
        for node in self._made - {0, *nodes}:
            self.kill(node)
        self.start_workers(*(node for node in nodes if not self.pids(node)))

    def _start(self, node: int, options: Sequence[str], hidden: Path | None = None) -> None:
        self._make(node)
        log = self.folder / f"{node}.log"
        command = [
            *RAY,
            "start",
            "--block",
            *options,
            f"--node-ip-address={self.address(node)}",
            f"--temp-dir={self.folder / str(node)}",
            "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]
        for _ in range(3):  # `ray start` waits 15 s for a port file, and a busy machine is slower
            process = self.popen(node, command, log, hidden)
            began = time.monotonic()
            while time.monotonic() - began < WAIT and process.poll() is None:
                if "Ray runtime started." in log.read_text():
                    return
                time.sleep(0.1)
            self.kill(node)
        raise AssertionError(log.read_text())

    def popen(
        self,
        node: int,
        command: Sequence[str],
        log: Path,
        hidden: Path | None = None,
        **environment: str | None,
    ) -> subprocess.Popen[str]:
        """A process on a node, with its output in `log`. A variable that is None is left out."""
        values = {**self.environment, MARK: f"{self.run}:{node}", **environment}
        if namespaces():
            hosts = self.folder / f"hosts{node}"
            hosts.write_text(HOSTS.format(host=f"node{node}"))
            hide = f"mount -t tmpfs none '{hidden}' && " if hidden else ""
            inside = (
                f"mount --make-rprivate / && mount --bind {hosts} /etc/hosts && {hide}"
                f'hostname node{node} && exec "$@"'
            )
            enter = ["ip", "netns", "exec", self._space(node), "unshare", "--mount", "--uts"]
            command = [*enter, "sh", "-c", inside, "sh", *command]
        with log.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={k: v for k, v in values.items() if v is not None},
                text=True,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def command(
        self, name: str, *words: str, log: Path, **environment: str | None
    ) -> subprocess.Popen[str]:
        """`rkdsearch NAME WORDS --address HEAD` on the head, as a node of its own: `driver`."""
        return self.popen(
            0,
            [sys.executable, "-m", "rkdsearch", name, *words, "--address", self.head],
            log,
            **{MARK: f"{self.run}:driver", **environment},
        )

    def node_id(self, node: int) -> str:
        """Ray's name of a node."""
        return next(name for address, name in self.alive() if address == self.address(node))

    def alive(self) -> list[tuple[str, str]]:
        """Address and Ray's name of each node that Ray takes for alive."""
        script = (
            "import ray; ray.init(address='auto', log_to_driver=False, logging_level=50);"
            "print(*('NODE ' + n['NodeManagerAddress'] + ' ' + n['NodeID'] for n in ray.nodes()"
            " if n['Alive']), sep='\\n')"
        )
        log = self.folder / "alive.log"
        command = [sys.executable, "-c", script]
        self.popen(0, command, log, RAY_ADDRESS=self.head).wait(WAIT)
        lines = [line.split() for line in log.read_text().splitlines() if line.startswith("NODE ")]
        return [(address, name) for _, address, name in lines]

    def ray(self, *words: str) -> None:
        """Run a command of Ray's on the head."""
        log = self.folder / "ray.log"
        assert self.popen(0, [*RAY, *words], log).wait(WAIT) == 0, log.read_text()

    def pids(self, node: int | str) -> list[int]:
        """Processes of a node (`driver`: of `tune`), by the mark in their environment."""
        found, mark = [], f"{MARK}={self.run}:{node}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
            except OSError:  # it has ended
                continue
        return found

    def kill(self, node: int | str, number: int = signal.SIGKILL) -> None:
        """Send this signal to every process of a node, and to no other."""
        while pids := self.pids(node):
            for pid in pids:
                self.send(pid, number)
            if number != signal.SIGKILL:
                return
            time.sleep(0.05)

    @staticmethod
    def send(pid: int, number: int) -> None:
        """Send a signal to a process, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def down(self) -> None:
        """End all processes, and remove networks and files."""
        for node in ("driver", *sorted(self._made)):
            self.kill(node)
        for process in self._processes:
            process.wait(WAIT)
        if namespaces():
            for node in self._made:
                _ip("netns", "del", self._space(node))
            _ip("link", "del", f"rkb{self._short}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _space(self, node: int) -> str:
        return f"rk{self._short}n{node}"

    def _make(self, node: int) -> None:
        """Make the namespace of a node, once."""
        if node in self._made:
            return
        self._made.add(node)
        if not namespaces():
            return
        name, outer = self._space(node), f"rkv{self._short}n{node}"
        _ip("netns", "add", name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", outer, "master", f"rkb{self._short}")
        _ip("link", "set", outer, "up")
        inside = ("netns", "exec", name, "ip")
        _ip(*inside, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "route", "add", "default", "via", f"10.77.{self._net}.254")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
