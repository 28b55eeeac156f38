"""Growth of a study: changes of its space under which its rows stay true.

A space may gain choices, values, parameters, baselines and rungs. Trials of before had no chance to
be among what is new, so each change is accepted with a sentence about what it means.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from rkdsearch import config as run
from rkdsearch.space.space import SearchSpace

_CAPS = ("training_attack_steps", "validation_attack_steps", "validation_images")


def accepted(name: str, was: object, now: object, space: SearchSpace) -> str | None:
    """Sentence about what a changed entry of `must_match` means; None where rows forbid it.

    `was` and `now` are None where the entry is not there. The sentence is empty where another entry
    says it.
    """
    if name == "first":
        return _first(_list(was), _list(now), space)
    if name == "ladder":
        return _ladder(_list(was), _list(now))
    if name.startswith("search."):
        return _parameter(was, now)
    if name.startswith("fixed.") and now is None:
        # its parameter is judged under `search.`
        searched = {parameter.name for parameter in space.parameters}
        return "" if name.removeprefix("fixed.") in searched else None
    return None


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


def _parameter(was: object, now: object) -> str | None:
    if now is None or not isinstance(now, dict):
        return None  # a parameter that is not searched any more
    if was is None:
        return "is searched now: earlier trials keep the value that they had"
    assert isinstance(was, dict), "a parameter is described by its range and its conditions"
    wider = _wider(was["range"], now["range"])
    when = _weaker(was.get("when", {}), now.get("when", {}))
    if wider is None or when is None:
        return None
    grown = " and ".join(text for text in (wider, when) if text)
    return f"{grown}: earlier trials had no chance there"


def _wider(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Growth of a range in words; None where it lost a value, empty where it is the same."""
    if was["kind"] != now["kind"]:
        return None
    if "choices" in was:
        if not set(map(repr, was["choices"])) <= set(map(repr, now["choices"])):
            return None
        added = [choice for choice in now["choices"] if choice not in was["choices"]]
        return f"gained {', '.join(map(str, added))}" if added else ""
    same = was["log"] == now["log"] and was["step"] == now["step"]
    if not same or now["low"] > was["low"] or now["high"] < was["high"]:
        return None
    offset = (was["low"] - now["low"]) / was["step"] if was["step"] else 0.0
    if abs(offset - round(offset)) > 1e-8:
        return None
    if (was["low"], was["high"]) == (now["low"], now["high"]):
        return ""
    return f"was [{was['low']}, {was['high']}], is [{now['low']}, {now['high']}]"


def _weaker(was: Mapping[str, Iterable[Any]], now: Mapping[str, Iterable[Any]]) -> str | None:
    """Words for a condition that holds more often; None where it does not, empty if unchanged."""
    if not set(now) <= set(was):
        return None
    if any(not set(map(repr, was[parent])) <= set(map(repr, now[parent])) for parent in now):
        return None
    return "" if was == now else "exists in more runs"


# ------------------------------------------------------------------------- baselines and the ladder


def _settings(entry: Mapping[str, Any]) -> str:
    return repr(sorted((k, v) for k, v in entry.items() if k != "label"))


def _first(was: list[Any], now: list[Any], space: SearchSpace) -> str | None:
    """Baselines by their settings: appended, in another order, or under another label."""
    old, new = [_settings(entry) for entry in was], [_settings(entry) for entry in now]
    if not set(old) <= set(new) or (new[: len(old)] != old and space.scheduler.brackets > 1):
        return None
    if set(old) != set(new) and space.scheduler.brackets > 1:
        return None  # the bracket of a searched trial depends on its number
    added = [
        entry["label"] for entry, settings in zip(now, new, strict=True) if settings not in old
    ]
    labels = {settings: entry["label"] for entry, settings in zip(was, old, strict=True)}
    renamed = [
        f"{labels[settings]} is now {entry['label']}"
        for entry, settings in zip(now, new, strict=True)
        if settings in old and labels[settings] != entry["label"]
    ]
    parts = [f"baselines {', '.join(added)} are trained next"] if added else []
    return "; ".join([*parts, *renamed, *([] if added or renamed else ["in another order"])])


def _ladder(was: list[Any], now: list[Any]) -> str | None:
    """Rungs that were put between others, where no attack is capped and the length is the same."""
    capped = any(rung.get(cap) for rung in (*was, *now) for cap in _CAPS)
    if capped or not was or not now or was[-1] != now[-1] or any(rung not in now for rung in was):
        return None
    added = [str(rung["epochs"]) for rung in now if rung not in was]
    return (
        f"gained rungs at {', '.join(added)} epochs: trials that are beyond are ranked there by"
        " what they had reached"
    )
