"""Speed of a training step: ours against the published scripts'.

Batch 128 of 32x32 noise, PGD-10, a WRN-16-4 teacher, same weights and random numbers. Three sides,
each in a process of its own, take turns within every repeat:

script        `published.py` with the system's allocator
script+alloc  the same with the allocator of `rkdsearch train` (`rkdsearch.training.allocator`)
ours          `TrainingObjective` built from a `TrainConfig`, with that allocator

"of peak" is the step's useful work (forwards and backwards that its result needs) per second, as a
share of the best convolution that this machine was measured to do.

First losses must agree. In float64 they do, to 1e-9: each pair is asked, on 4 images and 2 attack
steps. In fp32 the script does not agree with itself: an attack takes the signs of gradients, and
near zero a sign hangs on the order in which a convolution was summed. So the script runs in
three LAYOUTS between which mathematics sees no difference, and our loss may be as far from the
nearest of its losses as these are from each other, or 1e-4.

The exit code is 1 where a bar was missed or first losses do not agree. It is 2, and no verdict on
speed is given, where the bars do not apply: others used the machine when the run began (there only
ratios of `--clock cpu --threads 1` mean something), or a clock, threads or climb of one's own.
Every pair of a method and a student is printed when it is done, with what it took: one pair a call
is a short call.

    python analysis/benchmarks/step.py [--quick] [--methods rslad ard] [--students resnet18]
                                       [--threads 2] [--climb images]
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch
from sides import CLIMBS, LAYOUTS, Layout, Ours, Published, Workload
from torch import Tensor, nn

from rkdsearch.training.allocator import keep_memory

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
EXACT = 1e-9  # how far first losses may be from each other in float64
BARS = {  # (method, student) -> process defaults on both sides, the same allocator on both
    ("rslad", "resnet18"): (1.2, 1.15),
    ("rslad", "mobilenet_v2"): (1.9, 1.7),
    **{
        (method, student): (bar, None)
        for method in ("ard", "iad", "adaad")
        for student, bar in (("resnet18", 1.15), ("mobilenet_v2", 1.3))
    },
}


# ---------------------------------------------------------------------- inside a side's own process

_ready: dict[str, tuple[Workload, Published | Ours, dict[str, Tensor]]] = {}


def begin(threads: int, *, keep: bool) -> None:
    """The first thing that a side's process does."""
    if keep and not keep_memory():
        print(
            "this system's allocator cannot be told to keep memory: all sides use it as it is",
            file=sys.stderr,
        )
    torch.set_num_threads(threads)


def measure(work: Workload, climb: str | None, clock: str) -> tuple[float, float]:
    """(seconds, loss) of one step from the initial weights; `climb` None is our side.

    The first call of a workload also warms it up.
    """
    now = CLOCKS[clock]
    if _ready.get("now", (None,))[0] != work:
        _ready.clear()  # one workload at a time: memory is for the one that is measured
        side = Ours(work) if climb is None else Published(work, climb)
        _ready["now"] = (
            work,
            side,
            {name: tensor.clone() for name, tensor in side.student.state_dict().items()},
        )
        side.warm_up()
    _, side, initial = _ready["now"]
    side.student.load_state_dict(initial)
    side.optimizer.state.clear()
    started = now()
    loss = side.step()
    return now() - started, float(loss)


def first_loss(work: Workload, climb: str | None, layout: Layout = "contiguous") -> float:
    """The script's, in this layout; `climb` None is ours, which has a layout of its own."""
    return float((Ours(work) if climb is None else Published(work, climb, layout)).step())


def difference_in_float64(work: Workload, climb: str) -> float:
    """Difference of the first losses of script and ours, on 4 images and 2 attack steps.

    It takes seconds, and no sign depends on the order of sums.
    """
    exact = replace(work, precision="fp64", batch=4, steps=2)
    return abs(first_loss(exact, climb) - first_loss(exact, None))


def where_time_goes() -> list[tuple[str, float]]:
    """Our last workload's operations, the longest first, each with its share of the step."""
    from torch.profiler import ProfilerActivity, profile

    _, side, _ = _ready["now"]
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        side.step()
    events = [(event.key, event.self_cpu_time_total) for event in profiled.key_averages()]
    total = sum(microseconds for _, microseconds in events)
    return sorted(
        ((name.removeprefix("aten::"), share / total) for name, share in events),
        key=lambda pair: -pair[1],
    )


def convolution_peak(clock: str) -> float:
    """FLOP a second of the best 3x3 convolution, channels last, fp32.

    The practical ceiling of this machine.
    """
    best, now = 0.0, CLOCKS[clock]
    for channels, size in ((128, 16), (256, 8), (256, 16)):
        x = torch.randn(128, channels, size, size).contiguous(memory_format=torch.channels_last)
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(
            memory_format=torch.channels_last
        )
        with torch.inference_mode():
            layer(x)
            for _ in range(8):
                started = now()
                layer(x)
                best = max(best, 2 * 9 * channels**2 * x.shape[0] * size**2 / (now() - started))
    return best


# -------------------------------------------------------------------------------- useful arithmetic


def forward_flops(network: nn.Module, size: int) -> int:
    """FLOP of one image through its convolutions and linear layers.

    A multiplication and an addition are two.
    """
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer.weight, Tensor)
        total += 2 * output[0].numel() * layer.weight[0].numel()

    handles = [
        m.register_forward_hook(count)
        for m in network.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return total


def useful_flops(work: Workload) -> float:
    """Of one step. A backward to the images or to the weights costs what a forward does."""
    plain = replace(work, device="cpu", precision="fp32")
    student, teacher = (forward_flops(network, work.size) for network in plain.networks())
    attack = work.steps * 2 * (student + (teacher if work.method == "adaad" else 0))
    # Forward, and backward to images and weights: of x' and x, where x weighs something; BatchNorm
    # sees it in any case.
    learnt = {"ard": 3 + 1, "adaad": 3 + 1}.get(work.method, 3 + 3) * student
    targets = {"rslad": 1, "ard": 1}.get(work.method, 2) * teacher
    return float(work.batch * (attack + learnt + targets))


# --------------------------------------------------------------------------------------- the report


def ratios(slow: list[float], fast: list[float]) -> str:
    """`x1.30 [1.28, 1.33]` of paired repeats."""
    found = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"x{statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Of paired repeats."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def agreement(ours: float, script: Sequence[float]) -> tuple[float, float]:
    """Distance of our loss to the nearest of the script's losses, and its limit.

    The limit is their distance from each other, or 1e-4.
    """
    return min(abs(ours - loss) for loss in script), max(1e-4, max(script) - min(script))


def compare(
    sides: Mapping[str, ProcessPoolExecutor],
    work: Workload,
    climb: str,
    clock: str,
    repeats: int,
    peak: float,
) -> tuple[bool, bool]:
    """Measure one workload on all sides in turns, and print it.

    Returns whether its bars were reached, and whether its losses agree.
    """
    began = time.perf_counter()
    seconds: dict[str, list[float]] = {name: [] for name in sides}  # of the clock
    losses: dict[str, float] = {}
    for _ in range(repeats):
        for name, side in sides.items():
            taken, losses[name] = side.submit(
                measure, work, None if name == "ours" else climb, clock
            ).result()
            seconds[name].append(taken)
    script, tuned, ours = seconds["script"], seconds["script+alloc"], seconds["ours"]
    student = str(work.student["name"])
    bar, same_bar = BARS[work.method, student]
    reached = median_ratio(script, ours) >= bar and (
        same_bar is None or median_ratio(tuned, ours) >= same_bar
    )
    by_layout = {
        layout: sides["script+alloc"].submit(first_loss, work, climb, layout).result()
        for layout in LAYOUTS[1:]
    }
    by_layout = {"contiguous": losses["script"], **by_layout}
    apart, at_most = agreement(losses["ours"], list(by_layout.values()))
    exactly = sides["script+alloc"].submit(difference_in_float64, work, climb).result()
    work_done = useful_flops(work)
    shares = {
        name: work_done / statistics.median(values) / peak for name, values in seconds.items()
    }
    print(
        f"\n{work.method} on {student}, {work_done / 1e9:,.0f} GFLOP a step"
        + ("" if reached else "   BAR MISSED")
    )
    for name, values in seconds.items():
        print(
            f"  {name:13} {statistics.median(values):6.2f} s [{min(values):.2f}, {max(values):.2f}]"
            f"   {shares[name]:4.0%} of peak"
        )
    print(f"  as each comes          {ratios(script, ours)}   bar {bar}")
    print(f"  the same allocator     {ratios(tuned, ours)}   bar {same_bar or 'none'}")
    print(
        "  the script's losses   "
        f" {', '.join(f'{loss:.6f} {layout}' for layout, loss in by_layout.items())}"
    )
    print(f"  the script from itself {max(by_layout.values()) - min(by_layout.values()):.1e}")
    verdict = f"{apart:.1e} from the nearest of them (at most {at_most:.1e})" + (
        "" if apart <= at_most else "   DOES NOT AGREE"
    )
    print(
        f"  our loss               {losses['ours']:.6f},"
        f" {abs(losses['ours'] - losses['script']):.1e} from the script as published, {verdict}"
    )
    print(
        f"  in float64             {exactly:.1e} apart (at most {EXACT:.0e})"
        + ("" if exactly <= EXACT else "   DOES NOT AGREE")
    )
    longest = sides["ours"].submit(where_time_goes).result()[:6]
    print("  where our time goes    " + ", ".join(f"{name} {share:.0%}" for name, share in longest))
    print(f"  this pair took         {time.perf_counter() - began:.0f} s", flush=True)
    return reached, apart <= at_most and exactly <= EXACT


def main() -> int:
    """Measure, and print ratios; 0 where every bar was reached, 2 where none can be judged."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="RSLAD alone, few repeats: within 8 minutes on 2 cores"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(dict.fromkeys(method for method, _ in BARS)),
        choices=list(dict.fromkeys(method for method, _ in BARS)),
    )
    parser.add_argument(
        "--students",
        nargs="+",
        default=["resnet18", "mobilenet_v2"],
        choices=["resnet18", "mobilenet_v2"],
    )
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--climb",
        default="backward",
        choices=list(CLIMBS),
        help="images: the script asks for the images' gradient alone",
    )
    parser.add_argument(
        "--clock",
        default="wall",
        choices=list(CLOCKS),
        help="cpu, with --threads 1: where others use the machine too",
    )
    arguments = parser.parse_args()
    methods = ["rslad"] if arguments.quick else arguments.methods
    repeats = arguments.repeats or (2 if arguments.quick else 5)

    def side(*, keep: bool) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, get_context("spawn"), _begin_kept if keep else _begin_default, (arguments.threads,)
        )

    sides = {"script": side(keep=False), "script+alloc": side(keep=True), "ours": side(keep=True)}
    peak = sides["ours"].submit(convolution_peak, arguments.clock).result()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    # Two threads of one step that wait for each other on a busy machine measure that.
    busy = os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, cpu, {arguments.threads}"
        f" threads, {platform.machine()}; load {load}"
    )
    print(f"convolution peak {peak / 1e9:.0f} GFLOP/s; script's attack by {arguments.climb}")
    print(f"{arguments.clock} clock, {repeats} repeats in turns; median [min, max]")
    print(
        f"allocators: script {platform.libc_ver()[0] or 'the system'}'s default; script+alloc and"
        " ours: the same, told to keep memory",
        flush=True,
    )
    found = [
        compare(
            sides,
            Workload(method, {"name": student}),
            arguments.climb,
            arguments.clock,
            repeats,
            peak,
        )
        for method in methods
        for student in arguments.students
    ]
    for process in sides.values():
        process.shutdown()
    reached, agreed = [r for r, _ in found], [a for _, a in found]
    print(
        "\n"
        + (
            "all first losses agree"
            if all(agreed)
            else f"{agreed.count(False)} of {len(agreed)} first losses do not agree"
        )
    )
    if busy or arguments.clock == "cpu" or arguments.threads != 2 or arguments.climb != "backward":
        print(
            "no verdict on speed: the bars are for the wall clock, 2 threads, an idle machine and a"
            " script that goes backward through all"
        )
        return 2 if all(agreed) else 1
    print(
        "every bar was reached"
        if all(reached)
        else f"{reached.count(False)} of {len(reached)} pairs missed a bar"
    )
    return 0 if all(reached) and all(agreed) else 1


def _begin_default(threads: int) -> None:
    begin(threads, keep=False)


def _begin_kept(threads: int) -> None:
    begin(threads, keep=True)


if __name__ == "__main__":
    sys.exit(main())
