"""Baselines from an earlier study: the students on its front, in place of `{study: FOLDER}`.

Each is trained again here as it was there: its method, its training attack and its optimizer, what
that study fixed included. Images, teachers, the student and the length are this space's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rkdsearch.errors import ConfigError, SpaceError, StudyError
from rkdsearch.space.baselines import LABEL, STUDY

SECTIONS = ("method.", "attack.", "optimizer.")  # what the baselines take from the earlier run
Entry = Mapping[str, Any] | str


def names_a_study(entry: object) -> bool:
    """True for `{study: FOLDER}`, which stands for a front that has not been read."""
    return isinstance(entry, dict) and STUDY in entry and LABEL not in entry


def with_fronts(
    first: Iterable[Entry], known: Iterable[Entry], place: str, notice: Callable[[str], None]
) -> list[Entry]:
    """`first` with a baseline for each student of the studies that it names.

    `known` are the baselines of this search's own study, where it has begun: a folder that has
    been read for it is not read again. `notice` is told of a student that another study has too.
    Raises SpaceError, which begins with `place`.
    """
    kept: dict[str, list[Mapping[str, Any]]] = {}
    for entry in known:
        if isinstance(entry, Mapping) and STUDY in entry and LABEL in entry:
            kept.setdefault(str(entry[STUDY]), []).append(entry)
    found: list[Entry] = []
    for number, entry in enumerate(first):
        if not names_a_study(entry):
            found.append(entry)
            continue
        assert isinstance(entry, Mapping)
        folder, here = str(entry[STUDY]), f"{place}: first[{number}]"
        for student in kept.get(folder) or _front(Path(folder), f"{here}.{STUDY}"):
            duplicate = next((one for one in found if _same(one, student)), None)
            if isinstance(duplicate, Mapping):
                other = f"{duplicate[LABEL]} in {duplicate[STUDY]}"
                notice(f"{here}: {student[LABEL]} is the same run as {other}: left out")
            else:
                found.append(_named(student, found))
    return found


def _front(folder: Path, place: str) -> Iterator[dict[str, Any]]:
    """One baseline for each configuration on the front of the study."""
    # pandas is not imported for a file without one
    from rkdsearch.results.cells import parse, records
    from rkdsearch.results.store import Store
    from rkdsearch.results.study import read_study
    from rkdsearch.space.space import SearchSpace, values_of

    try:
        study = read_study(folder)
    except StudyError as error:
        raise SpaceError(f"{place}: {error}") from None
    rows = records(study.front)
    if not rows:
        raise SpaceError(
            f"{place}: {study.folder} has no front: {study.why_no_front}; let it go on, or leave it"
            " out"
        )
    merged = Store(folder).description().get("merged")
    space: SearchSpace | None = None
    for row in rows:
        chosen = parse(row["hyperparameters"])
        try:
            if isinstance(merged, dict):
                space = space or SearchSpace.of(merged, study.name)
                values = values_of(space.config(chosen))
                # null too: this space may fix another value
                chosen |= {n: value for n, value in values.items() if n.startswith(SECTIONS)}
        except ConfigError as error:
            raise SpaceError(f"{place}: {row['trial_id']} cannot be read: {error}") from None
        yield {STUDY: str(folder), LABEL: f"{row['trial_id']} of {study.name}", **chosen}


def _same(entry: Entry, student: Mapping[str, Any]) -> bool:
    """True where the entry is the same run, from whatever study."""
    if not isinstance(entry, Mapping) or STUDY not in entry:
        return False
    return _values(entry) == _values(student)


def _values(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in (STUDY, LABEL)}


def _named(student: Mapping[str, Any], found: Iterable[Entry]) -> Mapping[str, Any]:
    """The student, with the folder in its label where an equally named study has such a one."""
    if student[LABEL] not in {one.get(LABEL) for one in found if isinstance(one, Mapping)}:
        return student
    trial_id = str(student[LABEL]).partition(" of ")[0]
    return {**student, LABEL: f"{trial_id} of {student[STUDY]}"}
