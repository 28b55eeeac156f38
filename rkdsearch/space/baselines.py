"""Baselines of a space: entries of `first`, published settings by name, grids of a few values.

    first:
      - rslad                                     # as published, at this space's eps
      - {published: ard, grid: {optimizer.lr: [0.1, 0.03, 0.01]}}
      - {label: "IAD-I, released", method.name: iad, ...}

A published setting has its paper's loss and weights, 10 attack steps of eps / 4 in the ball of the
validation attack, a learning rate of 0.1 and a weight decay of 2e-4, except what `DEPARTURES` has.
What the space fixes stays as it is fixed, and the label says so.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from rkdsearch import config as run
from rkdsearch import methods
from rkdsearch.config import AttackConfig, ValidationAttack
from rkdsearch.errors import ConfigError, SpaceError

LABEL, PUBLISHED, GRID = "label", "published", "grid"
STUDY = "study"  # where it comes from, see `earlier.py`
USUAL: Mapping[str, Any] = {
    "attack.steps": 10,
    "attack.relative_step_size": 0.25,
    "optimizer.lr": 0.1,
    "optimizer.weight_decay": 2e-4,
}
PUBLISHED_FIELDS = ("attack.norm", "attack.eps", *USUAL)  # of every published setting
# By method, from the authors' scripts. ARD averages its divergence over classes, which are ten in
# the paper: times its temperature of 30, squared, a sum would be ten times as steep. TRADES takes
# steps of 0.007 in a ball of 0.031.
DEPARTURES: Mapping[str, Mapping[str, Any]] = {
    "adaad": {"optimizer.weight_decay": 5e-4},
    "adaiad": {"optimizer.weight_decay": 5e-4},
    "akd2": {"optimizer.weight_decay": 5e-4},
    "dgad": {"optimizer.weight_decay": 5e-4},
    "ard": {"method.kl_scale": 0.1},
    "trades": {"attack.relative_step_size": 0.2258},
}


@dataclass(frozen=True)
class Baseline:
    """A configuration listed under `first`: trained before all others, to full length.

    `overrides` are values over `fixed`, by dotted name. Baselines of one `family` are one setting
    at the values of a grid, of which the best counts. `place` is the entry in the file.
    """

    label: str
    overrides: Mapping[str, Any]
    family: str
    place: str


def baselines(
    entries: Iterable[Mapping[str, Any] | str],
    fixed: Mapping[str, Any],
    searched: Sequence[str],
    parameters: Collection[str] = (),
) -> Iterator[Baseline]:
    """The baselines of a file's `first`; `searched` are the methods of the search.

    `parameters` are the names of all that is searched: of these a published setting has its own
    value, whatever a parent had fixed.

    Raises SpaceError for a method that is unknown and for two equal labels, ConfigError for a name
    that is given twice.
    """
    places: dict[str, str] = {}
    for number, entry in enumerate(entries):
        place = f"first[{number}]"
        values: dict[str, Any] = {PUBLISHED: entry} if isinstance(entry, str) else dict(entry)
        label, grid = values.pop(LABEL, None), values.pop(GRID, {})
        name = values.pop(PUBLISHED, None)
        values.pop(STUDY, None)
        overrides = run.flatten_tree(run.nest(values, place))
        if name is not None:
            _refuse_another_method(str(name), [overrides, grid], place)
            paper = _published(str(name), fixed, place)
            kept = fixed.keys() - {"method.name", *parameters}
            published = {k: v for k, v in paper.items() if k not in kept}
            whole = _defaults_of(str(name)) | paper
            changed = {
                k: v
                for k, v in run.typed_leaves(overrides, [str(name), *searched]).items()
                if v != whole.get(k, fixed.get(k))
            }
            own = {*overrides, *(grid if isinstance(grid, dict) else {})}
            label = label or _label_of(str(name), _held(whole, fixed, kept - own) | changed)
            overrides = run.flatten_tree(run.merge(published, overrides, place))
        family = str(label or f"first {number}")
        if (other := places.setdefault(family, place)) != place:
            raise SpaceError(
                f"{place}: its label {family!r} is that of {other} too; rows and the report name a"
                " baseline by its label: give one of them another `label`"
            )
        method = str(overrides.get("method.name", fixed.get("method.name")))
        if isinstance(grid, dict) and "method.name" in grid:
            raise SpaceError(
                f"{place}.grid: only the best point of a grid is a baseline, so of several methods"
                " one would be left; give each method an entry of its own"
            )
        for known in _points(grid, [method, *searched], place):
            given = run.flatten_tree(run.merge(overrides, known, place))
            typed = run.typed_leaves(given, [method, *searched])
            if (other := places.setdefault(point := family + _said(known), place)) != place:
                raise SpaceError(
                    f"{place}: the label {point!r} of a point of its grid is that of {other} too;"
                    " rows and the report name a baseline by its label: give one of them another"
                    " `label`"
                )
            yield Baseline(point, typed, family, place)


def _published(name: str, fixed: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The published setting of a method, whatever the space fixes."""
    try:
        methods.load(name)
    except ConfigError as error:
        raise SpaceError(f"{place}: {error}") from None
    fields, ball = ValidationAttack.model_fields, {}
    for part in ("norm", "eps"):
        ball[part] = fixed.get(f"validation.attack.{part}", fields[part].default)
    values = {"attack.eps": ball["eps"], **USUAL, **DEPARTURES.get(name, {})}
    if name == "ard" and fixed.get("data.name") == "cifar100":
        values["method.kl_scale"] = 0.01  # the mean over its hundred classes
    if ball["norm"] != AttackConfig.model_fields["norm"].default:  # else studies of before differ
        values["attack.norm"] = ball["norm"]
    return {"method.name": name, **values}


def _refuse_another_method(name: str, given: Iterable[object], place: str) -> None:
    """Raise SpaceError where an entry gives a published setting the name of another method."""
    for values in given:
        other = values.get("method.name", name) if isinstance(values, dict) else name
        if other != name:
            raise SpaceError(
                f"{place}: published names the method, {name}, and method.name another, {other};"
                f" write `published: {other}`, an entry for each method"
            )


def _defaults_of(name: str) -> dict[str, Any]:
    """The paper's values of the method's own fields."""
    fields = methods.load(name).model_fields.items()
    return {f"method.{field}": info.default for field, info in fields if not info.is_required()}


def _held(
    paper: Mapping[str, Any], fixed: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """Fixed values of a published setting that are not the paper's, as far as its method reads."""
    attacks = methods.load(str(paper["method.name"])).attacks
    return {
        name: fixed[name]
        for name, value in paper.items()
        if name in names and fixed[name] != value and (attacks or not name.startswith("attack."))
    }


def _label_of(name: str, changed: Mapping[str, Any]) -> str:
    """The label of a published setting; `changed` is what is not as published."""
    return f"{name.upper().replace('_', '-')}, published{_said(changed)}"


def _said(values: Mapping[str, Any]) -> str:
    """The values as the end of a label."""
    return "".join(f", {name} {value}" for name, value in values.items())


def _points(grid: object, method_names: Sequence[str], place: str) -> Iterator[dict[str, Any]]:
    """Every combination of a grid's values, by dotted name; one empty one where there is none."""
    if not isinstance(grid, dict) or not all(
        isinstance(name, str) and isinstance(values, list) and values
        for name, values in grid.items()
    ):
        raise SpaceError(
            f"{place}.grid must have a list of values for each name, such as"
            f" {{optimizer.lr: [0.1, 0.03]}}, got {grid!r}"
        )
    typed = {name: [run.typed(name, v, method_names) for v in vs] for name, vs in grid.items()}
    for name, values in typed.items():
        if len(set(map(repr, values))) != len(values):
            raise SpaceError(
                f"{place}.grid.{name}: a value is there twice, and each is one baseline, got"
                f" {grid[name]}; leave one out"
            )
    for point in product(*typed.values()):
        yield dict(zip(typed, point, strict=True))
