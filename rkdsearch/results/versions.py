"""Older schema versions of the tables, read as the current one.

Version 1 is of releases before 0.2; version 2 had no checks behind flags (ADR 15), and `seed` for
`attack_seed` in `evaluations`. For releases 0.x columns may be renamed with a mapping here
(ADR 13); from 1.0 on no column is renamed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

VERSION_KEY = "rkdsearch.schema_version"  # in the metadata of every Parquet file

_OBJECTIVE = "config.validation.attack.objective"

# table -> name in version 1 -> name in version 2
_COLUMNS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "trials": {"sampled": "hyperparameters", "metric.images": "fidelity.validation_images"},
        "epochs": {"leg": "segment"},
        "rungs": {
            "rung": "epochs",
            "attack_steps": "validation_attack_steps",
            "images": "validation_images",
        },
        "evaluations": {"steps": "test_attack_steps"},
    }
)
# Columns of numbers that became JSON text: `image_size` is [H, W] where images are not square.
_TEXT_SINCE_2 = ("config.data.image_size",)
_DESCRIPTION = MappingProxyType({"exam": "validation_attack", "laws": "must_match"})
# of a rung of `ladder`, in study.json; a search space may still have the old names
RUNG = MappingProxyType(
    {"attack_steps": "training_attack_steps", "validation_steps": "validation_attack_steps"}
)


def upgraded(table: str, found: "pa.Table") -> "pa.Table":
    """One file of a table with the column names and values of the current version."""
    for name in _TEXT_SINCE_2:
        at = found.schema.get_field_index(name)
        if at >= 0 and pa.types.is_integer(found.schema.field(at).type):
            found = found.set_column(at, name, found[name].cast(pa.string()))
    version = (found.schema.metadata or {}).get(VERSION_KEY.encode(), b"1")
    if version in (b"1", b"2") and table == "evaluations":
        # flags were the warnings of AutoAttack's package; nobody had looked for signs of our own
        newer = {"flags": "warnings", "seed": "attack_seed"}
        known = set(found.column_names)
        renamed = {old: new for old, new in newer.items() if new not in known}
        found = found.rename_columns([renamed.get(name, name) for name in found.column_names])
    if version != b"1":
        return found
    new = _COLUMNS.get(table, {})  # a table that came later has one set of names
    found = found.rename_columns([new.get(name, name) for name in found.column_names])
    if table == "trials" and "origin" in found.column_names:
        at, origin = found.column_names.index("origin"), found["origin"]
        baseline = pc.if_else(pc.equal(origin, "first"), "baseline", origin)
        found = found.set_column(at, "origin", baseline)
    if table == "trials" and _OBJECTIVE not in found.column_names:
        # Version 1 knew one validation attack: PGD on the cross-entropy. Columns `config.*` are in
        # order of name.
        names = found.column_names
        behind = (i for i, n in enumerate(names) if n.startswith("config.") and n > _OBJECTIVE)
        before = [i for i, n in enumerate(names) if n.startswith("config.") and n < _OBJECTIVE]
        at = next(behind, before[-1] + 1 if before else len(names))
        found = found.add_column(at, _OBJECTIVE, pa.array(["cross_entropy"] * len(found)))
    return found


def upgraded_description(found: dict[str, Any]) -> dict[str, Any]:
    """The content of `study.json` with the names of the current version."""
    found = _with_teachers(found)
    if "schema_version" in found:
        return _with_radii(found)
    renamed = {_DESCRIPTION.get(name, name): value for name, value in found.items()}
    for place in (renamed, renamed.get("must_match")):
        if isinstance(place, dict) and isinstance(ladder := place.get("ladder"), list):
            place["ladder"] = [upgraded_rung(rung) for rung in ladder]
    if isinstance(attack := renamed.get("validation_attack"), dict):
        renamed["validation_attack"] = {"objective": "cross_entropy", **attack}
    return _with_radii(renamed)


def _with_teachers(found: dict[str, Any]) -> dict[str, Any]:
    """The same without what describes no teacher, in a file that somebody else has written."""
    if "teachers" not in found:
        return found
    known = found["teachers"].items() if isinstance(found["teachers"], dict) else ()
    teachers = {
        role: facts
        for role, facts in known
        if isinstance(facts, dict) and isinstance(facts.get("path", ""), str)
    }
    return {**found, "teachers": teachers}


def _with_radii(found: dict[str, Any]) -> dict[str, Any]:
    """The same with the radius of every L2 ball that a space left out: it was linf's 8/255."""
    laws = found.get("must_match")
    if not isinstance(laws, dict):
        return found
    balls = [
        name.removeprefix("fixed.").removesuffix("norm")
        for name, value in laws.items()
        if name.startswith("fixed.") and name.endswith("attack.norm") and value == "l2"
    ]
    radii = {f"fixed.{ball}eps": 8 / 255 for ball in balls if f"search.{ball}eps" not in laws}
    return {**found, "must_match": {**radii, **laws}}


def upgraded_rung(found: object) -> object:
    """A rung of `ladder` with the names of the current version; anything but a mapping as it is."""
    if not isinstance(found, dict):
        return found
    return {RUNG.get(name, name): value for name, value in found.items()}
