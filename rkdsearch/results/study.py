"""A study's results, read from its folder: tables, description, front and current test results."""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from rkdsearch.errors import FileError, StudyError
from rkdsearch.file_lock import locked_by
from rkdsearch.local_path import local_path
from rkdsearch.results.cells import records
from rkdsearch.results.evaluations import current_tests
from rkdsearch.results.front import LENGTH, front_rows, of_full_length, volume, why_no_front
from rkdsearch.results.objectives import OBJECTIVES, USUAL
from rkdsearch.results.states import Status
from rkdsearch.results.store import Store


@dataclass(frozen=True, eq=False)
class StudyResults:
    """The content of a study's folder at one moment. `damaged` files could not be read.

    `writer` is the process that worked on it then, as `file_lock.locked_by` has it.
    """

    folder: Path
    description: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    rungs: pd.DataFrame
    evaluations: pd.DataFrame
    openings: pd.DataFrame
    damaged: tuple[Path, ...]
    writer: str | None = None

    @property
    def name(self) -> str:
        """The study's name; the folder's where there is no `study.json`."""
        return str(self.description.get("name") or self.folder.resolve().name)

    def trial(self, trial_id: str) -> dict[str, Any]:
        """The row of a trial. Raises StudyError where there is none, or its file is damaged."""
        row = next((r for r in records(self.trials) if r["trial_id"] == trial_id), None)
        if row is None:
            file = self.folder / "trials" / f"{trial_id}.parquet"
            raise StudyError(
                f"{file}: cannot be read; put a whole copy in its place"
                if file in self.damaged
                else f"{self.folder}: there is no trial '{trial_id}'; `rkdsearch status"
                f" {self.folder}` lists the trials"
            )
        return row

    @property
    def limits(self) -> dict[str, float]:
        """Constraints of the front by objective: an accuracy at least, a cost at most."""
        found = self.description.get("constraints")
        asked = found if isinstance(found, dict) else {}
        return {
            name: float(value)
            for name, value in asked.items()
            if name in OBJECTIVES and isinstance(value, int | float)
        }

    @property
    def objectives(self) -> tuple[str, ...]:
        """Objectives of the front; clean and robust accuracy where two known ones are not named."""
        found = self.description.get("objectives")
        asked = [str(name) for name in found] if isinstance(found, list) else []
        return tuple(asked) if len(asked) > 1 and set(asked) <= set(OBJECTIVES) else USUAL

    @property
    def searched_methods(self) -> list[str] | None:
        """The methods that the search chooses from; None where the description does not say."""
        space = self.description.get("merged")
        parameters = space.get("search") if isinstance(space, dict) else None
        described = parameters.get("method.name") if isinstance(parameters, dict) else None
        choices = described.get("choice") if isinstance(described, dict) else None
        if isinstance(choices, list):
            return list(map(str, choices))
        fixed = space.get("fixed") if isinstance(space, dict) else None
        if not isinstance(fixed, dict):
            return None
        method = fixed.get("method")
        name = method.get("name") if isinstance(method, dict) else fixed.get("method.name")
        return [name] if isinstance(name, str) else None

    @property
    def chance(self) -> float | None:
        """Accuracy of the best constant prediction on validation images; None: not recorded."""
        found = self.description.get("chance")
        return float(found) if isinstance(found, int | float) else None

    @property
    def why_no_front(self) -> str:
        """Reason why nothing is on the front, as a part of a sentence."""
        return why_no_front(self.trials, self.limits)

    @cached_property
    def front(self) -> pd.DataFrame:
        """The front in these objectives, within these limits, as `front_rows` has it."""
        return front_rows(self.trials, self.objectives, self.limits)

    @property
    def volume(self) -> float:
        """Hypervolume of the front, as `volume` has it."""
        return volume(self.front, self.objectives)

    @cached_property
    def shorter(self) -> frozenset[str]:
        """Finished trials of a shorter full run than the longest, by trial_id."""
        rows = records(self.trials[["trial_id", "status", "flags", LENGTH]])
        return frozenset(
            row["trial_id"]
            for row, whole in zip(rows, of_full_length(rows), strict=True)
            if row["status"] == Status.FINISHED and not whole
        )

    @cached_property
    def tests(self) -> pd.DataFrame:
        """The current test results, as `current_tests` has them."""
        return current_tests(self.evaluations)

    @property
    def test_openings(self) -> pd.DataFrame:
        """The openings of the study's own test images."""
        return self.openings[self.openings["split"] == "test"]

    @property
    def opened(self) -> str | None:
        """Sentence about the openings of the study's test images; None without a ledger of them.

        Studies that were evaluated by earlier versions have none.
        """
        found = self.test_openings
        if found.empty:
            return None
        # `run.updated` is also the time of a row that a resumed search has written anew
        done = self.trials[self.trials["status"] == Status.FINISHED].set_index("trial_id")
        last = self.epochs.groupby("trial_id")["finished"].max().reindex(done.index)
        late = int((last.fillna(done["run.updated"]) > found["opened"].min()).sum())
        times = "once" if len(found) == 1 else f"{len(found)} times"
        running = int(found["searching"].sum())
        return (
            f"The test images were opened {times}, first on"
            f" {found['opened'].min():%Y-%m-%d %H:%M} UTC (openings/)."
            + (f" A search was running at {running} of these openings." if running else "")
            + (
                f" {late} finished trials ended after the first one: whoever chose them may have"
                " seen test results."
                if late
                else ""
            )
        )


# One of these is in the folder of every study and single run.
_KNOWN = {"study.json", "trials", "evaluations", "checkpoints", "report.html"}


def read_study(folder: str | PathLike[str]) -> StudyResults:
    """Read a study, running, finished, copied or empty; writes nothing.

    Raises StudyError where there is no such folder, FileError where it cannot be reached.
    """
    folder = local_path(folder)
    if not folder.is_dir():
        raise StudyError(
            f"{folder}: a study is a folder that `rkdsearch tune` made, but there is none; check"
            " the path"
        )
    try:
        there = {file.name for file in folder.iterdir() if not file.name.startswith(".")}
    except OSError as error:
        raise FileError(f"{folder}: cannot be read: {error.strerror}; is it yours?") from error
    if there and not there & _KNOWN:  # an empty folder is a study that has not begun
        raise StudyError(
            f"{folder}: holds no study, neither study.json nor trials; name the folder that"
            " `rkdsearch tune` was given by --study"
        )
    store = Store(folder)
    tables = (
        store.trials(),
        store.epochs(),
        store.rungs(),
        store.evaluations(),
        store.openings(),
    )
    return StudyResults(
        folder,
        store.description(),
        *tables,
        damaged=tuple(store.damaged),
        writer=locked_by(folder),
    )
