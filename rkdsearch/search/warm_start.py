"""Warm start: the sampler is told what an earlier study measured, before the study's own trials.

The observations are kept in `<study>/warm_start.json`, so that a resumed search proposes what it
would have proposed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.atomic_file import replace_file
from rkdsearch.config import TrainConfig
from rkdsearch.data.config import PLACES
from rkdsearch.errors import ConfigError, StudyError
from rkdsearch.results.cells import FULL_EPOCHS, records
from rkdsearch.results.objectives import COSTS, OBJECTIVES, merits
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.store import Store
from rkdsearch.search.sampler import Observation
from rkdsearch.search.stored_trials import hyperparameters_of
from rkdsearch.space import check
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import fingerprint
from rkdsearch.training import config_rows
from rkdsearch.training.teacher import folder_name, recipe_run

FILE = "warm_start.json"

# Statuses of trials that are observed.
_MEASURED = (Status.FINISHED, Status.STOPPED, Status.PAUSED)
# Columns in which two runs may differ and still be comparable: paths, the machine, the seed.
# Teachers are compared by `_check_teachers`.
_IRRELEVANT = (
    *(f"config.data.{name}" for name in PLACES),
    "config.teachers.",
    "config.training.device",
    "config.training.compile",
    "config.training.channels_last",
    "config.training.seed",
)


@dataclass(frozen=True)
class WarmStart:
    """Observations of an earlier study, for the sampler.

    `earlier` is that study's folder. `left_out` says how many of its trials are left out and why,
    as the end of a sentence.
    """

    observations: list[Observation]
    earlier: Path | None = None
    left_out: str = ""


class _LeftOut(Exception):  # noqa: N818 - nothing went wrong
    """Reason why a trial is not comparable with trials of this space."""


def prepare(study: Path, earlier: Path | None, space: SearchSpace, *, existed: bool) -> WarmStart:
    """The warm start of a study: the one that it began with, or a new one from `earlier`.

    Writes nothing: `keep` does, once the search begins. Raises StudyError where a study that
    `existed` began without a warm start or with another one, or where `from_study` raises it.
    """
    known = load(study)
    if earlier is None:
        return known
    if known.earlier is not None:
        if not _same_study(known.earlier, earlier):
            raise StudyError(
                f"{study}: began with --warm-start {known.earlier}, got {earlier}; leave it out"
                f" (its observations are kept in {FILE}, wherever the earlier study is now), or"
                " name another folder with --study"
            )
        return known
    if existed:
        raise StudyError(
            f"{study}: began without --warm-start; leave it out, or name another folder with"
            " --study"
        )
    return from_study(earlier, space)


def keep(study: Path, warmed: WarmStart) -> None:
    """Write a new warm start of the study; one that is kept already stays as it is."""
    if warmed.earlier is not None and not (study / FILE).exists():
        save(study, warmed)


def _same_study(known: Path, earlier: Path) -> bool:
    """True where both paths name one study.

    Earlier versions wrote a path relative to an unknown folder: then its last parts must agree.
    """
    given, ending = earlier.resolve(), tuple(part for part in known.parts if part != "..")
    return given == known.resolve() or (
        not known.is_absolute() and given.parts[-len(ending) :] == ending
    )


def from_study(earlier: Path, space: SearchSpace) -> WarmStart:
    """Observations of the earlier study's finished, stopped and paused trials, by ordinal.

    `rungs_short` of a stopped trial counts the rungs of this ladder beyond its share of a full run.
    A finished trial of a shorter run is observed at the highest rung that is no longer. Trials that
    this space could not have trained are left out: values outside its ranges or against what it
    fixes, a longer run, another teacher, a student beyond a limit. Raises
    StudyError where no trial is left, or where accuracies are not comparable: another validation
    attack, or other images.
    """
    store = Store(earlier)
    if not (earlier / "trials").is_dir():
        raise StudyError(f"{earlier}: --warm-start needs a study, and there are no trials")
    described, config = store.description(), space.example()
    _check_equal(
        earlier,
        "validation attack",
        described.get("validation_attack"),
        config.validation.attack.model_dump(mode="json"),
    )
    there = described.get("data")
    images = (
        {name: value for name, value in there.items() if name not in PLACES}
        if isinstance(there, dict)
        else there
    )
    _check_equal(earlier, "data", images, config.data.model_dump(mode="json", exclude=set(PLACES)))
    _check_equal(
        earlier,
        "images (split_sha256)",
        described.get("split_sha256"),
        data.load_training(config.data).fingerprint,
    )
    found, reasons = [], []
    for row in records(store.trials()):
        if row["status"] in _MEASURED and row["origin"] != Origin.REPLICATE:
            try:
                found.append(_observation(row, space, described))
            except _LeftOut as reason:
                reasons.append(f"{row['trial_id']}, {reason}")
    if not found:
        why = f": the first was {reasons[0]}" if reasons else ""
        raise StudyError(
            f"{earlier}: --warm-start found no finished or stopped trial inside this space{why}"
        )
    left_out = (
        f"; {len(reasons)} are left out: this space could not have trained them (the first:"
        f" {reasons[0]})"
        if reasons
        else ""
    )
    return WarmStart(found, earlier.resolve(), left_out)


def _check_equal(earlier: Path, what: str, there: object, here: object) -> None:
    """Raise StudyError where both studies differ in this."""
    if there != here:
        raise StudyError(
            f"{earlier}: --warm-start needs the same {what}, got {json.dumps(there)} there,"
            f" {json.dumps(here)} here"
        )


def _observation(
    row: Mapping[str, Any], space: SearchSpace, described: Mapping[str, Any]
) -> Observation:
    """Observation of one trial. Raises _LeftOut."""
    # what is searched here may have been fixed or a default there: the row's config has it
    hyperparameters, outside = space.coordinates(_values_of(row))
    if outside:
        raise _LeftOut(" and ".join(outside))
    try:
        config = space.config(hyperparameters)
        # computed again: the earlier study may not have named these costs
        costs = check.costs_of(config, space.costs)
    except ConfigError as error:
        raise _LeftOut(str(error)) from None
    values = {name: costs.get(name, row.get(OBJECTIVES[name].column)) for name in space.objectives}
    measured = {name: float(value) for name, value in values.items() if value is not None}
    if len(measured) < len(values):
        raise _LeftOut(f"not measured by {' and '.join(space.objectives)}")
    _check_config(row, config)
    _check_limits(space, costs)
    _check_teachers(row, config, described)
    rungs_short = 0
    if row[FULL_EPOCHS] < space.epochs:
        # a run of its own, at the rungs of this ladder that are no longer than what was trained
        trained = row["fidelity.epochs"]
        rungs_short = sum(rung.epochs > trained for rung in space.ladder)
    elif row["status"] != Status.FINISHED:
        share = row["fidelity.epochs"] / row["fidelity.of_epochs"]
        rungs_short = max(1, sum(rung.epochs / space.epochs > share for rung in space.ladder))
    if row["status"] != Status.FINISHED and not _same_attacks(row, space, config, rungs_short):
        raise _LeftOut("stopped under another attack than a trial on this ladder's rung")
    return Observation(hyperparameters, tuple(merits(measured).tolist()), rungs_short)


def _values_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """All values of the row's run by dotted name."""
    prefix = "config."
    values = {
        name.removeprefix(prefix): value
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
    }
    return run.typed_leaves({**values, **hyperparameters_of(row)}, [row["config.method.name"]])


def _check_config(row: Mapping[str, Any], config: TrainConfig) -> None:
    """Raise _LeftOut where the trial's config is not `config`; it may be of a shorter run."""
    ours = config_rows.row(config)
    for name in sorted(n for n in row if n.startswith("config.") and not n.startswith(_IRRELEVANT)):
        shorter = name == FULL_EPOCHS and row[name] < ours[name]
        if row[name] != ours.get(name) and not shorter:
            raise _LeftOut(
                f"{name.removeprefix('config.')} {row[name]!r} there, {ours.get(name)!r} here"
            )


def _check_limits(space: SearchSpace, costs: Mapping[str, int]) -> None:
    """Raise _LeftOut where the student exceeds a limit of the constraints."""
    for name, limit in space.constraints.limits.items():
        if name in COSTS and costs[name] > limit:
            raise _LeftOut(
                f"its student's {OBJECTIVES[name].heading} {costs[name]:,}, above"
                f" constraints.{name} {limit:,}"
            )


def _check_teachers(
    row: Mapping[str, Any], config: TrainConfig, described: Mapping[str, Any]
) -> None:
    """Raise _LeftOut where a teacher of the trial is another file than ours.

    Where ours is yet to be trained, their recipes are compared.
    """
    for role in config.teacher_roles:
        teacher, made_by = config.teachers.of(role), recipe_run(config, role)
        there = ((described.get("teachers") or {}).get(role) or {}).get("path", "")
        if made_by is not None and Path(there).parent.name != folder_name(made_by):
            raise _LeftOut(f"its {role} teacher was trained by another recipe")
        if made_by is None and row[f"config.teachers.{role}.sha256"] != (
            teacher.sha256 or fingerprint(Path(str(teacher.path)))
        ):
            raise _LeftOut(f"its {role} teacher was another file")


def _same_attacks(
    row: Mapping[str, Any], space: SearchSpace, config: TrainConfig, rungs_short: int
) -> bool:
    """True where a stopped trial had the attacks of this ladder's rung, in steps."""
    if rungs_short >= len(space.ladder):
        return True  # below the first rung: every trial here goes further
    rung = space.ladder[-1 - rungs_short]
    validation = rung.validation(config.validation)
    return (row["fidelity.training_attack_steps"], row["fidelity.validation_attack_steps"]) == (
        rung.attack(config.attack).steps,
        validation.attack.steps,
    )


def load(study: Path) -> WarmStart:
    """The warm start that the study began with; empty where it had none. Raises StudyError."""
    file = study / FILE
    if not file.exists():
        return WarmStart([])
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        # `seen`: the name in earlier versions
        observations = found["observations"] if "observations" in found else found["seen"]
        return WarmStart([_read(entry) for entry in observations], Path(found["from"]))
    except (ValueError, KeyError, TypeError):
        raise StudyError(
            f"{file}: is damaged; delete it, and the search goes on without its warm start"
        ) from None


def _read(entry: Mapping[str, Any]) -> Observation:
    """One observation of the file. Earlier versions called its hyperparameters `params`."""
    return Observation(
        hyperparameters=entry["params"] if "params" in entry else entry["hyperparameters"],
        values=tuple(entry["values"]),
        rungs_short=entry.get("rungs_short", 0),
        notes=entry.get("notes", {}),
    )


def save(study: Path, warm_start: WarmStart) -> None:
    """Write the warm start of a study, before its first trial."""
    observations = [asdict(o) for o in warm_start.observations]
    replace_file(
        study / FILE,
        json.dumps({"from": str(warm_start.earlier), "observations": observations}),
    )
