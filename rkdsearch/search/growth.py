"""Growth of a study: changes of its space under which its rows stay true.

A space may gain choices, values, parameters, baselines, rungs and length, and lose baselines.
Trials of before had no chance to be among what is new, so each change is accepted with a sentence
about what it means. What rows forbid is refused with the reason.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from rkdsearch import config as run
from rkdsearch.config.fidelity import Fidelity, fidelity_at
from rkdsearch.space.space import PROTECTED, SearchSpace

_NO_CHANGE = "trials of both could not be compared"


class ForbiddenChange(Exception):  # noqa: N818 - the caller makes a StudyError of it
    """Reason why the rows of a study forbid a change of its space, as the end of a sentence."""


def accepted(name: str, was: object, now: object, space: SearchSpace) -> str:
    """Sentence about what a changed entry of `must_match` means. Raises ForbiddenChange.

    `was` and `now` are None where the entry is not there. The sentence is empty where another entry
    says it.
    """
    if name == "first":
        return _first(_list(was), _list(now), space)
    if name == "ladder":
        return _ladder(_list(was), _list(now))
    if name.startswith("search."):
        return _parameter(was, now)
    if name.startswith("fixed."):
        dotted = name.removeprefix("fixed.")
        # its parameter is judged under `search.`
        if now is None and dotted in {parameter.name for parameter in space.parameters}:
            return ""
        if dotted.startswith(tuple(PROTECTED)):
            raise ForbiddenChange(_NO_CHANGE)
        raise ForbiddenChange(
            f"earlier trials keep the old value, and {_NO_CHANGE}; to have several, search it:"
            f" a `choice` for {dotted} under `search`"
        )
    raise ForbiddenChange(_NO_CHANGE)


def typed(name: str, value: object, space: SearchSpace) -> object:
    """An entry of `must_match` with typed values, as this version writes it."""
    if name.startswith("fixed."):
        return run.typed(name.removeprefix("fixed."), value, space.method_names)
    if name == "first":
        return [run.typed_leaves(entry, space.method_names) for entry in _list(value)]
    if name.startswith("search.") and isinstance(value, dict):
        names, dotted = space.method_names, name.removeprefix("search.")
        described = _range(value["range"])
        if "choices" in described:
            described["choices"] = [run.typed(dotted, c, names) for c in described["choices"]]
        conditions = {
            parent: [run.typed(parent, allowed, names) for allowed in found]
            for parent, found in value.get("when", {}).items()
        }
        return {"range": described, "when": conditions}
    return value


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


# ------------------------------------------------------------------------------------- parameters


def _range(text: str) -> dict[str, Any]:
    """Kind and values of a distribution by its `repr`, which is all that a study has of it."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    values = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    return {"kind": call.func.id, **values}


def _parameter(was: object, now: object) -> str:
    if now is None or not isinstance(now, dict):
        raise ForbiddenChange("earlier trials have many values of it; go on searching it")
    if was is None:
        return "is searched now: earlier trials keep the value that they had"
    assert isinstance(was, dict), "a parameter is described by its range and its conditions"
    wider = _wider(was["range"], now["range"])
    when = _weaker(was.get("when", {}), now.get("when", {}))
    grown = " and ".join(text for text in (wider, when) if text)
    return f"{grown}: earlier trials had no chance there"


def _wider(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Growth of a range in words, empty where it is the same. Raises ForbiddenChange."""
    narrower = ForbiddenChange("earlier trials would lie outside: it may only gain values")
    if was["kind"] != now["kind"]:
        raise ForbiddenChange("the sampler's model knows one kind of range")
    if "choices" in was:
        if not set(map(repr, was["choices"])) <= set(map(repr, now["choices"])):
            raise narrower
        added = [choice for choice in now["choices"] if choice not in was["choices"]]
        return f"gained {', '.join(map(str, added))}" if added else ""
    if was["log"] != now["log"] or was["step"] != now["step"]:
        raise ForbiddenChange(
            "`log` and `step` must not change: earlier values would lie between steps"
        )
    offset = (was["low"] - now["low"]) / was["step"] if was["step"] else 0.0
    if now["low"] > was["low"] or now["high"] < was["high"] or abs(offset - round(offset)) > 1e-8:
        raise narrower
    if (was["low"], was["high"]) == (now["low"], now["high"]):
        return ""
    return f"was [{was['low']}, {was['high']}], is [{now['low']}, {now['high']}]"


def _weaker(was: Mapping[str, Iterable[Any]], now: Mapping[str, Iterable[Any]]) -> str:
    """Words for a condition that holds more often, empty if unchanged. Raises ForbiddenChange."""
    if not set(now) <= set(was) or any(
        not set(map(repr, was[parent])) <= set(map(repr, now[parent])) for parent in now
    ):
        raise ForbiddenChange("earlier trials have it where `when` now rules it out")
    return "" if was == now else "exists in more runs"


# ------------------------------------------------------------------------- baselines and the ladder


def _settings(entry: Mapping[str, Any]) -> str:
    return repr(sorted((k, v) for k, v in entry.items() if k != "label"))


def _first(was: list[Any], now: list[Any], space: SearchSpace) -> str:
    """Baselines by their settings: appended, removed, in another order, or under another label."""
    old = {_settings(entry): entry["label"] for entry in was}
    new = {_settings(entry): entry["label"] for entry in now}
    if list(old) != list(new) and space.scheduler.brackets > 1:
        raise ForbiddenChange(
            "with scheduler.brackets > 1 a trial's first rung follows from its number, which counts"
            " the baselines; add a configuration with `rkdsearch enqueue`"
        )
    added = [label for settings, label in new.items() if settings not in old]
    gone = [label for settings, label in old.items() if settings not in new]
    renamed = [
        f"{old[settings]} is now {label}"
        for settings, label in new.items()
        if old.get(settings, label) != label
    ]
    parts = [f"baselines {', '.join(added)} are trained next, within --trials"] if added else []
    if gone:
        parts.append(
            f"baselines {', '.join(gone)} are not in the space any more: their rows stay, labelled"
            " so, and no other run of theirs begins"
        )
    return "; ".join([*parts, *renamed] or ["in another order"])


def _ladder(was: list[Any], now: list[Any]) -> str:
    """A longer full run; or rungs that were put between others, with the same caps."""
    old, new = [Fidelity(**rung) for rung in was], [Fidelity(**rung) for rung in now]
    length = old[-1].epochs
    if new[-1].epochs > length:
        return (
            f"has full runs of {new[-1].epochs} epochs, and had {length}: earlier trials keep their"
            f" rows of {length} epochs, and are the front until a longer one has finished;"
            " baselines and contenders are trained again at full length"
        )
    if new[-1].epochs < length:
        raise ForbiddenChange(
            "a shorter full run is never on the front beside longer ones: leave the last rung, or"
            " put one before it"
        )
    if gone := [str(rung.epochs) for rung in old if rung.epochs not in {r.epochs for r in new}]:
        raise ForbiddenChange(
            f"trials wait to be promoted from the rung at {gone[0]} epochs; put it back"
        )
    for epoch in range(1, length + 1):
        if not _alike(fidelity_at(old, epoch), fidelity_at(new, epoch)):
            raise ForbiddenChange(
                f"epoch {epoch} of earlier trials had other caps, so they could not be compared;"
                " give a new rung the caps of the next one"
            )
    added = [str(r.epochs) for r in new if r.epochs not in {rung.epochs for rung in old}]
    return (
        f"gained rungs at {', '.join(added)} epochs: trials that are beyond are ranked there by"
        " what they had reached"
    )


def _alike(one: Fidelity, other: Fidelity) -> bool:
    """True where both have the same caps."""
    return one.model_copy(update={"epochs": other.epochs}) == other
