"""Checks and measurements on this machine's GPU: one command, ten minutes at most.

    python analysis/gpu_check.py [--out runs/gpu_check] [--parts steps gang] [--minutes 10]
                                 [--data parquet:PATH]

tests       every test marked `gpu`
steps       one step of RSLAD, IAD, AdaAD and CRDND on ResNet-18 and MobileNet-V2 beside the
            published script's structure, in the same precision: fp32, TF32, bf16; batch 128 and
            512; channels last or not; compiled or not; share of the device's convolution peak,
            memory, host waits
epochs      short epochs of the trainer, from image files to weights
autoattack  the margin attack and AutoAttack on 500 images
sharing     1, 2, 4 and 8 small trials on one device
gang        two processes against one, by gloo on one device, by NCCL where there are two

Each part is a process with a limit of its own: one that fails or runs out is recorded, and the next
begins. `gpu_check.json` and `gpu_check.md` (for the lab log) are written after each. Images are
noise, but in the epochs where `--data` names real ones. Nothing is downloaded. Of the dependencies
it takes torch, torchvision, accelerate, pydantic and pyautoattack, and pytest for the tests.

Exit codes: 0 where every part ended by itself, 1 where one did not, 2 without a GPU. `--tiny` runs
all of it on small networks and a CPU, to see that every line works; its figures mean nothing.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NEEDED = ("torch", "torchvision", "accelerate", "pydantic", "pyautoattack")
ROOT = Path(__file__).parents[1]
PARTS_SCRIPT = ROOT / "analysis" / "benchmarks" / "gpu_parts.py"
# Shares of the time; what a part leaves over is its successors'.
SHARES = {
    "gang": 0.12,
    "steps": 0.36,
    "tests": 0.24,
    "epochs": 0.1,
    "sharing": 0.1,
    "autoattack": 0.08,
}
GRACE = 5.0  # seconds between a part's own end and its being killed
Row = Mapping[str, Any]


def limit(part: str, parts: Sequence[str], left: float) -> float:
    """Seconds of a part: its share among those that are still to come."""
    rest = parts[parts.index(part) :]
    return left * SHARES[part] / sum(SHARES[name] for name in rest)


def run(part: str, folder: Path, seconds: float, options: Sequence[str]) -> dict[str, Any]:
    """One part in a process of its own: how it ended, how long it took, and its rows."""
    result, said = folder / f"{part}.json", folder / f"{part}.log"
    result.unlink(missing_ok=True)
    soft = max(1.0, seconds - GRACE)
    command = [sys.executable, str(PARTS_SCRIPT), part, "--result", str(result)]
    command += ["--seconds", str(soft), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_python_path()])}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as own, said.open("wb") as log:
        # A session of its own, so that its children end with it.
        running = subprocess.Popen(  # noqa: S603 - this interpreter, on our own script
            [*command, "--folder", own],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            code = running.wait(seconds)
            ended = "done" if code == 0 else f"failed, exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    rows = json.loads(result.read_text(encoding="utf-8")) if result.exists() else []
    found = {"ended": ended, "seconds": time.monotonic() - started, "rows": rows}
    if ended != "done":
        found["log"] = said.read_text(encoding="utf-8", errors="replace")[-2000:]
    return found


def machine() -> dict[str, Any]:
    """Hardware and versions. torch is asked in a process of its own: a part may break a context."""
    asked = (
        "import json, torch; c = torch.cuda; on = c.is_available();"
        "p = c.get_device_properties(0) if on else None;"
        "print(json.dumps({'devices': [c.get_device_name(i) for i in range(c.device_count())],"
        " 'memory_gib': round(p.total_memory / 2**30, 1) if on else None,"
        " 'capability': list(c.get_device_capability(0)) if on else None,"
        " 'cuda': torch.version.cuda, 'cudnn': torch.backends.cudnn.version()}))"
    )
    answer = _said([sys.executable, "-c", asked])
    found: dict[str, Any] = json.loads(answer) if answer else {"devices": []}
    driver = _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    found |= {
        "driver": driver.splitlines()[0] if driver else None,
        "processors": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "commit": _said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]) or None,
        "began": time.strftime("%Y-%m-%d %H:%M"),
    }
    for name in ("torch", "torchvision", "accelerate", "triton", "pyautoattack"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _said(command: list[str]) -> str:
    """Output of a program; empty where it fails or is not there."""
    try:
        answer = subprocess.run(  # noqa: S603 - the commands above
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


# ------------------------------------------------------------------------------------- the record


def table(rows: Sequence[Row]) -> str:
    """Markdown: a column for every key, in the order in which they come."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [keys, ["---"] * len(keys), *([_cell(row.get(key)) for key in keys] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
        case list():
            return ", ".join(_cell(item) for item in value)
        case _:
            return str(value).replace("|", "/").replace("\n", " ")


def goals(rows: Sequence[Row]) -> list[str]:
    """The verdicts on the rows of `steps`: what was asked for, and what was found."""
    eager = [r for r in rows if "method" in r and not r["compiled"] and r["layout"] != "contiguous"]
    ratios = [r["ratio"] for r in eager if "ratio" in r]
    speed = {
        (r["method"], r["student"], r["batch"], r["precision"]): r["ours_images_per_second"]
        for r in eager
        if "ours_images_per_second" in r
    }
    half = [
        found / speed[*key, "fp32"]
        for (*key, precision), found in speed.items()
        if precision == "bf16" and (*key, "fp32") in speed
    ]
    waits = [r["ours_host_waits"] for r in rows if r.get("ours_host_waits") is not None]
    return [
        _verdict("times the script's images/s, same precision", ratios, 1.5),
        _verdict("times our fp32 with bf16", half, 1.5),
        "host waits in a step: "
        + (
            f"none in {len(waits)} workloads"
            if waits and not any(waits)
            else f"{max(waits)} at most, goal MISSED"
            if waits
            else "not measured"
        ),
    ]


def _verdict(what: str, values: Sequence[float], goal: float) -> str:
    if not values:
        return f"{what}: not measured"
    missed = sum(value < goal for value in values)
    told = "reached by all" if not missed else f"MISSED by {missed} of {len(values)}"
    return f"{what}: {min(values):.2f} to {max(values):.2f}, goal {goal} {told}"


def record(folder: Path, found: Mapping[str, Any]) -> None:
    """Write `gpu_check.json` and `gpu_check.md`."""
    (folder / "gpu_check.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    lines = ["# GPU check", "", table([found["machine"]]), ""]
    if found["tiny"]:
        lines += ["Tiny networks: these figures mean nothing.", ""]
    for part, result in found["parts"].items():
        lines += [f"## {part}: {result['ended']}, {result['seconds']:.0f} s", ""]
        if part == "steps":
            lines += [*(f"- {verdict}" for verdict in goals(result["rows"])), ""]
        if result["rows"]:
            lines += [table(result["rows"]), ""]
        if "log" in result:
            lines += ["```", result["log"].strip(), "```", ""]
    (folder / "gpu_check.md").write_text("\n".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, and record after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"))
    parser.add_argument("--parts", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data", help="real images for the epochs, as in `data.name`")
    given = parser.parse_args(arguments)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"needs {', '.join(missing)}: install {'it' if len(missing) == 1 else 'them'} first")
        return 2
    began, parts = time.monotonic(), [name for name in SHARES if name in given.parts]
    found: dict[str, Any] = {"tiny": given.tiny, "machine": machine(), "parts": {}}
    if not found["machine"]["devices"] and not given.tiny:
        print("torch sees no GPU here; --tiny runs every part on the CPU")
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    options = ["--tiny"] * given.tiny + (["--data", given.data] if given.data else [])
    for part in parts:
        left = 60 * given.minutes - GRACE - (time.monotonic() - began)
        result = run(part, given.out, limit(part, parts, left), options)
        found["parts"][part] = result
        record(given.out, found)
        print(f"{part}: {result['ended']}, {result['seconds']:.0f} s", flush=True)
    print(given.out / "gpu_check.md")
    return int(any(result["ended"] != "done" for result in found["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
