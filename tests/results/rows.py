"""Studies of a few rows, written by hand."""

from pathlib import Path

from rkdsearch.results.cells import CLEAN, ROBUST
from rkdsearch.results.store import Store
from rkdsearch.results.study import StudyResults, read_study
from tests.results.factory import CONFIG


def trial(
    trial_id: str,
    clean: float | None,
    robust: float | None,
    status: str = "finished",
    **more: object,
) -> dict[str, object]:
    row = {
        "trial_id": trial_id,
        "ordinal": 0,
        "status": status,
        CLEAN: clean,
        ROBUST: robust,
    }
    return row | {name.replace("__", "."): value for name, value in more.items()}


def study(folder: Path, *rows: dict[str, object]) -> StudyResults:
    store = Store(folder, CONFIG)
    for row in rows:
        store.write_trial(row)
    return read_study(folder)


def replicated_study(folder: Path) -> StudyResults:
    """Two contenders with three and two replicates, one without, and unfinished replicates."""
    again = {"origin": "replicate"}
    return study(
        folder,
        trial("a", 0.90, 0.60),
        *(trial(f"a-r{n}", 0.9, robust, **again) for n, robust in enumerate((0.50, 0.54, 0.52))),
        trial("a-r4", 0.9, 0.9, "failed", **again),
        trial("b", 0.94, 0.55) | {"ordinal": 1},
        *(
            trial(f"b-r{n}", 0.92, robust, **again) | {"ordinal": 1}
            for n, robust in enumerate((0.53, 0.55))
        ),
        trial("c", 0.99, 0.50) | {"ordinal": 2},
    )


def blocks(folder: Path, *rows: tuple[int, int, float]) -> StudyResults:
    """Replicates of configurations: ordinal, training seed, robust accuracy."""
    return study(
        folder,
        *(
            trial(f"{ordinal}-r{seed}", 0.9, robust, origin="replicate", run__seed=seed)
            | {"ordinal": ordinal}
            for ordinal, seed, robust in rows
        ),
    )


def evaluated(store: Store, trial_id: str, right: str, **more: object) -> None:
    row = {
        "trial_id": trial_id,
        "checkpoint": "best",
        "attack": "pgd20",
        "attack_seed": 0,
        "per_image": right,
        "subset_sha256": "c",
    }
    store.write_evaluation(row | more)
