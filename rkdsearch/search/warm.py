"""A warm start: what an earlier study measured is shown to the sampler before our own trials.

It is kept in `<study>/warm_start.json`, so that a search that is taken up again proposes what it would have proposed.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rkdsearch.errors import StudyError
from rkdsearch.results.store import Store, replace_file
from rkdsearch.search import ledger
from rkdsearch.search.folder import example
from rkdsearch.search.ladder import Leg
from rkdsearch.search.searcher import Seen
from rkdsearch.search.space import SearchSpace

FILE = "warm_start.json"


def prepare(study: Path, earlier: Path | None, space: SearchSpace, *, existed: bool) -> list[Seen]:
    """What the sampler is shown first. Raises StudyError where a search that began cold is to be warmed, or nothing can be learned."""
    seen = kept(study)
    if earlier is None or seen:
        return seen
    if existed:
        raise StudyError(f"{study}: has begun without --warm-start and must go on so; leave it out, or name another folder with --study")
    seen = from_study(earlier, space)
    keep(study, earlier, seen)
    return seen


def from_study(earlier: Path, space: SearchSpace) -> list[Seen]:
    """Its finished and stopped trials that lie in the space, in ordinal order.

    A stopped trial is as many rungs short as this ladder has beyond its share of a full run. Raises StudyError where there is nothing to
    learn: no trials, none inside the space, or another exam or other images, whose accuracies do not compare.
    """
    store = Store(earlier)
    if not (earlier / "trials").is_dir():
        raise StudyError(f"{earlier}: --warm-start needs a study, and there are no trials")
    described = store.description()
    config = example(space)
    for name, ours in (("exam", config.validation.attack.model_dump(mode="json")), ("data", config.data.model_dump(mode="json"))):
        if described.get(name) != ours:
            raise StudyError(
                f"{earlier}: --warm-start needs the same {name}, got {json.dumps(described.get(name))} there, {json.dumps(ours)} here"
            )
    found = []
    for row in ledger.Rows(store).trials:
        seen = _seen(row, space) if row["status"] in ("finished", "stopped", "paused") and row["origin"] != "replicate" else None
        if seen is not None:
            found.append(seen)
    if not found:
        raise StudyError(f"{earlier}: --warm-start found no finished or stopped trial that lies in this space")
    return found


def _seen(row: dict[str, Any], space: SearchSpace) -> Seen | None:
    params = space.searched(json.loads(row["sampled"] or "{}"))
    values = [row.get(f"metric.{name}") for name in space.objectives]
    if params is None or any(v is None for v in values):
        return None
    short = 0
    if row["status"] != "finished":
        share = row["fidelity.epochs"] / row["fidelity.of_epochs"]
        short = max(1, sum(rung.epochs / space.epochs > share for rung in space.ladder))
        if not _measured_alike(row, space, short):
            return None
    return Seen(params, "measured", tuple(float(v) for v in values if v is not None), short)


def _measured_alike(row: dict[str, Any], space: SearchSpace, short: int) -> bool:
    """Whether a stopped trial was trained and judged as one that stands on this ladder's rung would be."""
    if short >= len(space.ladder):
        return True  # below the first rung: less than anything of ours
    config = space.config(json.loads(row["sampled"] or "{}"))
    (stage,) = Leg((space.ladder[-1 - short],)).stages
    judged = stage.validation(config.validation)
    return (row["fidelity.training_attack_steps"], row["fidelity.validation_attack_steps"]) == (
        stage.attack(config.attack).steps,
        judged.attack.steps,
    )


def kept(study: Path) -> list[Seen]:
    """What this study was started with; nothing where it began cold."""
    file = study / FILE
    if not file.exists():
        return []
    try:
        return [Seen(**{**seen, "values": tuple(seen["values"])}) for seen in json.loads(file.read_text(encoding="utf-8"))["seen"]]
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{file}: is damaged; delete it, and the search goes on without its warm start") from None


def keep(study: Path, earlier: Path, seen: list[Seen]) -> None:
    """Record it, before the first trial."""
    replace_file(study / FILE, json.dumps({"from": str(earlier), "seen": [asdict(s) for s in seen]}))
