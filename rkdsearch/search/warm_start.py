"""A warm start: what an earlier study measured is shown to the sampler before our own trials.

It is kept in `<study>/warm_start.json`, so that a search that is taken up again proposes what it
would have proposed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rkdsearch import data
from rkdsearch.config import TrainConfig
from rkdsearch.data.config import PLACES
from rkdsearch.errors import ConfigError, StudyError
from rkdsearch.results.objectives import COSTS, OBJECTIVES, merits
from rkdsearch.results.store import Store, replace_file
from rkdsearch.results.summary import records
from rkdsearch.search.sampler import Observation
from rkdsearch.space import check
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import fingerprint
from rkdsearch.training import config_rows
from rkdsearch.training.teacher import folder_of, recipe_run

FILE = "warm_start.json"

# What two runs may differ in and still measure the same thing: where files lie, the machine, the
# draw. Teachers are compared by themselves.
_NO_MATTER = (
    *(f"config.data.{name}" for name in PLACES),
    "config.teachers.",
    "config.training.device",
    "config.training.compile",
    "config.training.channels_last",
    "config.training.seed",
)


@dataclass(frozen=True)
class WarmStart:
    """What the sampler is shown first; the study that it is from; and, as the end of a sentence, how many of its trials are left out and why."""

    seen: list[Observation]
    earlier: Path | None = None
    left_out: str = ""


class _Outside(Exception):  # noqa: N818 - nothing went wrong
    """Why a trial is none of this space."""


def prepare(study: Path, earlier: Path | None, space: SearchSpace, *, existed: bool) -> WarmStart:
    """What the sampler is shown first.

    Raises StudyError where a search that began cold, or with another earlier study, is to be
    warmed, or nothing can be learned.
    """
    warm = kept(study)
    if earlier is None:
        return warm
    if warm.earlier is not None:
        if not _is_the_one(warm.earlier, earlier):
            raise StudyError(
                f"{study}: has begun with --warm-start {warm.earlier} and must go on so, got"
                f" {earlier}; leave it out (what it was shown is kept in {FILE}, wherever the"
                " earlier study is now), or name another folder with --study"
            )
        return warm
    if existed:
        raise StudyError(
            f"{study}: has begun without --warm-start and must go on so; leave it out, or name"
            " another folder with --study"
        )
    warm = from_study(earlier, space)
    keep(study, warm)
    return warm


def _is_the_one(known: Path, earlier: Path) -> bool:
    """Whether the earlier study is the known one. Older files have its path relative to a folder of which nobody knows: its end must agree."""
    given, ending = earlier.resolve(), tuple(part for part in known.parts if part != "..")
    return given == known.resolve() or (
        not known.is_absolute() and given.parts[-len(ending) :] == ending
    )


def from_study(earlier: Path, space: SearchSpace) -> WarmStart:
    """Its finished and stopped trials that are runs of this space, in ordinal order.

    A stopped trial is as many rungs short as this ladder has beyond its share of a full run. Left
    out is what this space could not have trained: values outside its ranges, or that contradict
    what it fixes, another length, another teacher, a student beyond a limit. Raises StudyError
    where there is nothing to learn: no trials, none inside the space, or another exam or other
    images, whose accuracies do not compare.
    """
    store = Store(earlier)
    if not (earlier / "trials").is_dir():
        raise StudyError(f"{earlier}: --warm-start needs a study, and there are no trials")
    described, config = store.description(), space.example()
    _refuse_another(
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
    _refuse_another(
        earlier, "data", images, config.data.model_dump(mode="json", exclude=set(PLACES))
    )
    _refuse_another(
        earlier,
        "images (split_sha256)",
        described.get("split_sha256"),
        data.load_training(config.data).fingerprint,
    )
    found, reasons = [], []
    for row in records(store.trials()):
        if row["status"] in ("finished", "stopped", "paused") and row["origin"] != "replicate":
            try:
                found.append(_seen(row, space, described))
            except _Outside as reason:
                reasons.append(f"{row['trial_id']}, {reason}")
    if not found:
        why = f": the first was {reasons[0]}" if reasons else ""
        raise StudyError(
            f"{earlier}: --warm-start found no finished or stopped trial that lies in this"
            f" space{why}"
        )
    left_out = (
        f"; {len(reasons)} are left out, which this space could not have trained (the first:"
        f" {reasons[0]})"
        if reasons
        else ""
    )
    return WarmStart(found, earlier.resolve(), left_out)


def _refuse_another(earlier: Path, what: str, there: object, here: object) -> None:
    if there != here:
        raise StudyError(
            f"{earlier}: --warm-start needs the same {what}, got {json.dumps(there)} there,"
            f" {json.dumps(here)} here"
        )


def _seen(row: Mapping[str, Any], space: SearchSpace, described: Mapping[str, Any]) -> Observation:
    """Raises _Outside."""
    params = space.searched(json.loads(row["hyperparameters"] or "{}"))
    if params is None:
        raise _Outside("a value that is searched here is missing or outside its range there")
    try:
        config = space.config(params)
        costs = check.costs_of(config, space.costs)  # the earlier study may not have counted them
    except ConfigError as error:
        raise _Outside(str(error)) from None
    values = {name: costs.get(name, row.get(OBJECTIVES[name].column)) for name in space.objectives}
    measured = {name: float(value) for name, value in values.items() if value is not None}
    if len(measured) < len(values):
        raise _Outside(f"not measured by {' and '.join(space.objectives)}")
    _same_run(row, config)
    _within(space, costs)
    _same_teachers(row, config, described)
    short = 0
    if row["status"] != "finished":
        share = row["fidelity.epochs"] / row["fidelity.of_epochs"]
        short = max(1, sum(rung.epochs / space.epochs > share for rung in space.ladder))
        if not _measured_alike(row, space, config, short):
            raise _Outside("stopped under another attack than a trial on this ladder's rung")
    return Observation(params, "measured", tuple(merits(measured).tolist()), short)


def _same_run(row: Mapping[str, Any], config: TrainConfig) -> None:
    """Raise _Outside where the trial's whole configuration is not the one that these values make here, its length included."""
    ours = config_rows.row(config)
    for name in sorted(n for n in row if n.startswith("config.") and not n.startswith(_NO_MATTER)):
        if row[name] != ours.get(name):
            raise _Outside(
                f"{name.removeprefix('config.')} {row[name]!r} there, {ours.get(name)!r} here"
            )


def _within(space: SearchSpace, costs: Mapping[str, int]) -> None:
    """Raise _Outside where the student costs more than a proposal of this space may."""
    for name, limit in space.constraints.limits.items():
        if name in COSTS and costs[name] > limit:
            raise _Outside(
                f"its student's {OBJECTIVES[name].heading} {costs[name]:,}, beyond"
                f" constraints.{name} {limit:,}"
            )


def _same_teachers(
    row: Mapping[str, Any], config: TrainConfig, described: Mapping[str, Any]
) -> None:
    """Raise _Outside where a teacher that the trial asked is another file than ours; or, where ours is yet to be trained, of another recipe."""
    for role in config.asked_teachers:
        teacher, made_by = config.teachers.of(role), recipe_run(config, role)
        there = ((described.get("teachers") or {}).get(role) or {}).get("path", "")
        if made_by is not None and Path(there).parent.name != folder_of(made_by, Path()).name:
            raise _Outside(f"its {role} teacher was made otherwise")
        if made_by is None and row[f"config.teachers.{role}.sha256"] != (
            teacher.sha256 or fingerprint(Path(str(teacher.path)))
        ):
            raise _Outside(f"its {role} teacher was another file")


def _measured_alike(
    row: Mapping[str, Any], space: SearchSpace, config: TrainConfig, short: int
) -> bool:
    """Whether a stopped trial was trained and judged as one that stands on this ladder's rung would be."""
    if short >= len(space.ladder):
        return True  # below the first rung: less than anything of ours
    rung = space.ladder[-1 - short]
    judged = rung.validation(config.validation)
    return (row["fidelity.training_attack_steps"], row["fidelity.validation_attack_steps"]) == (
        rung.attack(config.attack).steps,
        judged.attack.steps,
    )


def kept(study: Path) -> WarmStart:
    """What this study was started with; nothing where it began cold."""
    file = study / FILE
    if not file.exists():
        return WarmStart([])
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return WarmStart(
            [Observation(**{**seen, "values": tuple(seen["values"])}) for seen in found["seen"]],
            Path(found["from"]),
        )
    except (ValueError, KeyError, TypeError):
        raise StudyError(
            f"{file}: is damaged; delete it, and the search goes on without its warm start"
        ) from None


def keep(study: Path, warm: WarmStart) -> None:
    """Record it, before the first trial."""
    replace_file(
        study / FILE,
        json.dumps({"from": str(warm.earlier), "seen": [asdict(s) for s in warm.seen]}),
    )
