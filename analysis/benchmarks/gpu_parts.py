"""The parts of `gpu_check.py`: each is a process of its own, and writes its rows as it finds them.

    python analysis/benchmarks/gpu_parts.py PART --result FILE --folder FOLDER --seconds N [--tiny]

Every file of rows is complete at any time: a part that is killed has lost what it was at alone.
`--tiny` takes small networks, few repeats and a CPU.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_measures as measures
import torch
from gpu_measures import Place, Row, write
from gpu_processes import CHILDREN, gang, sharing
from sides import Ours, Published, Workload

ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------------- gpu tests


def tests(place: Place) -> Iterator[Row]:
    """Every test marked `gpu`, as pytest tells it; the summary's reasons last."""
    settings = place.folder / "pytest.ini"  # the project's own asks for plug-ins
    settings.write_text(
        "[pytest]\nmarkers =\n  gpu\n  long\n  browser\n  timeout\nfilterwarnings = error\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", str(settings), f"--rootdir={ROOT}"]
    command += ["-m", "gpu", "-v", "-rfEs", "-p", "no:cacheprovider", "--color=no"]
    command += ["--continue-on-collection-errors"]
    command += [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if marked(file)]
    with subprocess.Popen(  # noqa: S603 - this interpreter, on our own tests
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if found := re.match(r"(\S+::\S.*?) (PASSED|FAILED|ERROR|SKIPPED)", line):
                yield {"test": found[1].split("/")[-1], "outcome": found[2].lower()}
            elif found := re.match(r"(FAILED|ERROR|SKIPPED) (.*)", line):
                yield {"outcome": found[1].lower(), "reason": found[2][:300]}
            elif "No module named pytest" in line:
                yield {"outcome": "not run", "reason": "pytest is not installed"}


def marked(file: Path) -> bool:
    """True where a test file has tests for a GPU: the others may import what is not installed."""
    text = file.read_text(encoding="utf-8")
    return re.search(r"^(@pytest|pytestmark = pytest)\.mark\.gpu", text, re.MULTILINE) is not None


# ------------------------------------------------------------------------------------- one step

SIDES: Mapping[str, Callable[[Workload], Ours | Published]] = {
    "ours": Ours,
    "script": lambda work: Published(work, "backward"),
}


def plan(place: Place) -> list[tuple[Workload, bool]]:
    """Workloads, the most telling first, and whether the published script's side is measured."""
    first = Workload(
        "rslad",
        place.students()[0],
        place.teacher(),
        device=place.device,
        **({"batch": 4, "size": 8, "steps": 2} if place.tiny else {}),  # type: ignore[arg-type]
    )
    methods = ["rslad", "iad", "adaad", "crdnd"]
    students = [replace(first, student=student) for student in place.students()]

    def of(chosen: Sequence[str], **changes: Any) -> list[Workload]:
        return [replace(work, method=method, **changes) for method in chosen for work in students]

    on_device = place.device != "cpu"
    precise = ["fp32", "bf16"]
    planned = [(w, True) for precision in precise for w in of(methods, precision=precision)]
    planned += [(w, False) for p in precise for w in of(["rslad"], precision=p, compiled=True)]
    planned += [
        (w, False) for p in precise for w in of(["rslad"], precision=p, channels_last=False)
    ]
    if on_device:
        planned += [(w, True) for w in of(methods, precision="tf32")]
    large = 6 if place.tiny else 512
    planned += [(w, True) for w in of(["rslad"], precision="bf16", batch=large)]
    planned += [(w, True) for w in of(["rslad"], precision="fp32", batch=large)]
    if not place.tiny:
        planned += [(w, True) for w in of(methods[1:], precision="bf16", batch=large)]
        planned += [(w, True) for w in of(methods, precision="tf32", batch=large)]
        planned += [(w, True) for w in of(methods[1:], precision="fp32", batch=large)]
    return planned


def steps(place: Place) -> Iterator[Row]:
    """One step of a large student: ours and the published script's, in the same precision."""
    peaks: dict[str, float] = {}
    planned, repeats = plan(place), 1 if place.tiny else 5
    for number, (work, script) in enumerate(planned):
        if place.left < 0:
            yield {"outcome": f"{len(planned) - number} of {len(planned)} workloads not reached"}
            return
        if work.precision not in peaks:
            peaks[work.precision] = measures.convolution_peak(work, tiny=place.tiny)
            yield {"precision": work.precision, "peak_tflops": peaks[work.precision] / 1e12}
        row: Row = {
            "method": work.method,
            "student": work.student["name"],
            "batch": work.batch,
            "precision": work.precision,
            "layout": "channels last" if work.channels_last else "contiguous",
            "compiled": work.compiled,
        }
        for name, side in list(SIDES.items())[: 1 + script]:
            try:
                found = measures.measured(side, work, repeats, peaks[work.precision])
            except torch.OutOfMemoryError:
                found = {"outcome": "out of memory"}
            row |= {f"{name}_{key}": value for key, value in found.items()}
            measures.release(work.device)
        both = row.get("ours_images_per_second"), row.get("script_images_per_second")
        if isinstance(both[0], float) and isinstance(both[1], float):
            row["ratio"] = both[0] / both[1]
        yield row


def epochs(place: Place) -> Iterator[Row]:
    """Short epochs of the trainer: the second one's images/s, from image files to weights."""
    from rkdsearch.training.trainer import Trainer

    images = place.data or measures.image_folder(
        place.folder / "images", per_class=6 if place.tiny else 160
    )
    for precision in ("fp32", "bf16"):
        for student in place.students():
            for method in ("rslad", "iad", "adaad", "crdnd"):
                if place.left < 0:
                    yield {"outcome": "the rest was not reached"}
                    return
                run = measures.described(
                    place.folder,
                    method,
                    images,
                    student=student,
                    teacher=place.teacher(),
                    training={
                        "precision": precision,
                        "batch_size": 8 if place.tiny else 128,
                        "device": "cpu" if place.device == "cpu" else "auto",
                    },
                )
                *_, last = Trainer(run).epochs()
                yield {
                    "method": method,
                    "student": student["name"],
                    "precision": precision,
                    "images_per_second": last.images_per_second,
                    "loss": last.loss,
                    "robust_accuracy": last.robust_accuracy,
                }
                measures.release(place.device)


# ----------------------------------------------------------------------------------- AutoAttack


def autoattack(place: Place) -> Iterator[Row]:
    """The margin attack and AutoAttack on 500 images that the network has right."""
    from rkdsearch.accuracy import evaluate_accuracy
    from rkdsearch.attacks import Linf, MarginAttack
    from rkdsearch.attacks.autoattack import auto_attack

    work = Workload("rslad", place.students()[0], place.teacher(), device=place.device, size=32)
    network, count = measures.folded(work), 2 if place.tiny else 500
    x = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(3)).to(place.device)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    # So small that the last of its four attacks still has images to work on.
    attack = MarginAttack(Linf(0.25 / 255), 10)
    evaluations: dict[str, Callable[[], torch.Tensor]] = {
        "margin attack, 10 steps": lambda: evaluate_accuracy(network, x, y, attack)[0].robust,
        "AutoAttack": lambda: auto_attack(network, x, y, ball=attack.ball)[0],
    }
    for name, evaluate in evaluations.items():
        started = time.perf_counter()
        found = evaluate()
        yield {
            "attack": name,
            "images": count,
            "seconds": time.perf_counter() - started,
            "robust_accuracy": float(found.double().mean()),
        }


# ------------------------------------------------------------------------------------ the process

PARTS: Mapping[str, Callable[[Place], Iterator[Row]]] = {
    "tests": tests,
    "steps": steps,
    "epochs": epochs,
    "autoattack": autoattack,
    "sharing": sharing,
    "gang": gang,
}


def main() -> None:
    """Run one part, and write its rows after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, *CHILDREN])
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = Place(device, arguments.tiny, arguments.seconds, arguments.folder, arguments.data)
    found = (
        PARTS[arguments.part](place)
        if arguments.part in PARTS
        else CHILDREN[arguments.part](place, arguments.result)
    )
    rows: list[Row] = []
    write(arguments.result, rows)
    for row in found:
        rows.append(row)
        write(arguments.result, rows)


if __name__ == "__main__":
    main()
