"""File format of a search space: the names in its YAML, and the file that it `extends`.

    fixed:   any TrainConfig field, by dotted name or nested
    search:  searched parameters by dotted name, see `parameter.py`
    first:   baselines, trained before all others, to full length; `{study: FOLDER}` stands for the
             front of an earlier study

No expressions, no interpolation, no tags. `space.py` checks the values against each other.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rkdsearch import config as run
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import ConfigError, SpaceError, did_you_mean
from rkdsearch.local_path import home_path, refused_url
from rkdsearch.results.objectives import USUAL, Name
from rkdsearch.results.versions import RUNG, upgraded_rung
from rkdsearch.section import Section
from rkdsearch.space import shipped
from rkdsearch.space.baselines import GRID, PUBLISHED, PUBLISHED_FIELDS
from rkdsearch.space.parameter import ParameterFile
from rkdsearch.space.settings import (
    Constraints,
    Replicates,
    Resources,
    SamplerConfig,
    SchedulerConfig,
)

PARAMETER = {field.alias or name for name, field in ParameterFile.model_fields.items()}
EXAMPLES = {"fixed": "data.name: digits", "search": "attack.steps: {int: [1, 10]}"}


class SpaceFile(Section):
    """A search space as it stands in YAML."""

    extends: str | None = None
    fixed: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, ParameterFile] = Field(default_factory=dict)
    first: list[dict[str, Any] | str] = Field(default_factory=list)
    objectives: list[Name] = Field(default_factory=lambda: list(USUAL))
    constraints: Constraints = Constraints()
    ladder: list[Fidelity] = Field(min_length=1)
    sampler: SamplerConfig = SamplerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    replicates: Replicates = Replicates()
    resources: Resources = Resources()
    seed: int = Field(0, ge=0, lt=2**31)


def read(file: Path, notice: Callable[[str], None] = lambda _: None) -> SpaceFile:
    """A space file, merged over the file that it `extends`, which may extend another.

    `notice` is given a sentence for each old name. Raises SpaceError where a name is unknown or a
    value has the wrong type.
    """
    return parsed(_merged(file, notice, ()), str(file))


def parsed(merged: Mapping[str, Any], place: str) -> SpaceFile:
    """Merged values, with their types. Raises SpaceError, which begins with `place`."""
    try:
        return SpaceFile.model_validate(merged)
    except ValidationError as error:
        raise SpaceError(run.sentence(error, SpaceFile, place)) from None


def _merged(
    file: Path, notice: Callable[[str], None], children: tuple[Path, ...]
) -> dict[str, Any]:
    """The values of a file over those of its ancestors. `children` are the files that extend it."""
    values = _read(file, notice)
    if "extends" not in values:
        return values
    named = values.pop("extends")
    if not isinstance(named, str) or not named.strip():
        raise SpaceError(
            f"{file}: extends names one search space, such as base.yaml or {shipped.PREFIX}digits,"
            f" got {named!r}; a file may extend one that extends another"
        )
    parent = shipped.located(named, file.parent)
    above = (*children, file)
    if parent.resolve() in [one.resolve() for one in above]:
        chain = " extends ".join(one.name for one in (*above, parent))
        raise SpaceError(f"{file}: {chain}: a file must not extend itself; take one `extends` out")
    inherited = _merged(parent, notice, above)
    extended = _extended(inherited, values, file)
    _tell_of_kept_data(inherited, values, extended, notice, file)
    return extended


def _tell_of_kept_data(
    parent: Mapping[str, Any],
    child: Mapping[str, Any],
    extended: Mapping[str, Any],
    notice: Callable[[str], None],
    file: Path,
) -> None:
    """Say what a child that names other images keeps of its parent's section `data`."""
    before, own, now = (
        run.flatten_tree(run.nest(values.get("fixed", {}))) for values in (parent, child, extended)
    )
    kept = [
        f"{name} {value}"
        for name, value in now.items()
        if name.startswith("data.") and name not in own and name in before
    ]
    if kept and before.get("data.name") != now.get("data.name"):
        notice(f"{file}: other images keep {', '.join(kept)} of the file that this one extends")


def _read(file: Path, notice: Callable[[str], None]) -> dict[str, Any]:
    try:
        values = run.read_yaml(file)
    except ConfigError as error:
        raise SpaceError(str(error)) from None
    for name in values:
        if name not in SpaceFile.model_fields:
            raise SpaceError(f"{file}: {run.unknown_field(str(name), SpaceFile.model_fields)}")
    for section, example in EXAMPLES.items():
        if values.get(section, {}) is None:  # nothing stands below its name
            values[section] = {}
        if not isinstance(inside := values.get(section, {}), dict):
            raise SpaceError(
                f"{file}: {section} must hold names and values, such as `{example}`, got {inside!r}"
            )
    if "search" in values:
        values["search"] = _dotted(values["search"])
        _refuse_values(values["search"], file, nulls="extends" in values)
    _refuse_both(values, file)
    if isinstance(values.get("first"), list):
        values["first"] = _located(values["first"], file)
    rungs = values.get("ladder")
    if isinstance(rungs, list):
        values["ladder"] = _renamed(rungs, file, notice)
    return values


def _refuse_values(search: Mapping[str, Any], file: Path, *, nulls: bool) -> None:
    """Raise SpaceError where a searched field has a value in place of a range or a choice.

    `nulls` take a parent's parameters out of the search.
    """
    for name, described in search.items():
        if not isinstance(described, dict) and not (nulls and described is None):
            raise SpaceError(
                f"{file}: search.{name} must be a range or a choice, such as"
                f" {{float: [0.1, 0.3]}}, got {described!r}; a value of every run stands under"
                " `fixed`"
            )


def _refuse_both(values: Mapping[str, Any], file: Path) -> None:
    """Raise SpaceError where one file fixes what it searches.

    A child may search what its parent fixed: that value holds where none is searched.
    """
    fixed = run.flatten_tree(values.get("fixed", {}))
    for name, described in values.get("search", {}).items():
        if name in fixed and described is not None:
            raise SpaceError(f"{file}: {name} is both fixed and searched; leave one out")


def _dotted(search: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Searched parameters by dotted name, where the file nests them in sections."""
    found: dict[str, Any] = {}
    for name, described in search.items():
        inside = described if isinstance(described, dict) else {}
        sections = all(v is None or isinstance(v, dict) for v in inside.values())
        sections |= not section and name in run.TrainConfig.model_fields
        if inside and sections and "when" not in inside and not inside.keys() <= PARAMETER:
            found |= _dotted(inside, f"{section}{name}.")
        else:
            found[f"{section}{name}"] = described
    return found


def _located(first: list[Any], file: Path) -> list[Any]:
    """Baselines with the whole path of each earlier study (`earlier.py`)."""
    found: list[Any] = []
    for number, entry in enumerate(first):
        named = isinstance(entry, dict) and all(isinstance(name, str) for name in entry)
        if not named and not isinstance(entry, str):
            raise SpaceError(
                f"{file}: first[{number}] must be the name of a method, such as rslad, or names and"
                f" values, such as {{published: rslad, optimizer.lr: 0.03}}, got {entry!r}"
            )
        if isinstance(entry, dict) and "study" in entry:
            named = entry["study"]
            if set(entry) != {"study"} or not isinstance(named, str) or not named.strip():
                raise SpaceError(
                    f"{file}: first[{number}]: `study` names a folder and stands alone, as in"
                    f" {{study: studies/digits}}, got {dict(entry)}"
                )
            if (refusal := refused_url(named)) is not None:
                raise SpaceError(f"{file}: first[{number}].study: {refusal}")
            found.append({"study": str((file.parent / home_path(named)).absolute())})
        else:
            found.append(entry)
    return found


def _renamed(rungs: list[Any], file: Path, notice: Callable[[str], None]) -> list[Any]:
    """The ladder with the names of the current version."""
    for old, new in RUNG.items():
        named = [rung for rung in rungs if isinstance(rung, dict) and old in rung]
        if any(new in rung for rung in named):
            raise SpaceError(f"{file}: ladder: {old} is an old name of {new}; leave {old} out")
        if named:
            notice(f"{file}: ladder: {old} is now named {new}; the old name is still read")
    return [upgraded_rung(rung) for rung in rungs]


def _extended(parent: dict[str, Any], child: dict[str, Any], file: Path) -> dict[str, Any]:
    """The child's names over the parent's, in every section.

    The lists `first`, `ladder` and `objectives` are replaced whole. A parameter that the child
    fixes or sets to null is no longer searched. What the child searches, and its parent fixed, has
    the parent's value where none is searched: in baselines, and where a `when` does not hold.
    """
    values = {**parent, **child}
    for section in ("constraints", "sampler", "scheduler", "replicates", "resources"):
        if isinstance(parent.get(section), dict) and isinstance(child.get(section), dict):
            values[section] = {**parent[section], **child[section]}
    own, searched = child.get("search", {}), parent.get("search", {})
    try:
        fixed_now = run.flatten_tree(run.nest(child.get("fixed", {})))
        above = run.flatten_tree(run.nest(parent.get("fixed", {})))
        values["fixed"] = run.merge(
            _of_one_name(above, searched, own, fixed_now), fixed_now, str(file)
        )
    except ConfigError as error:
        raise SpaceError(str(error)) from None
    if "first" not in child and isinstance(first := parent.get("first"), list):
        before = {
            k: v for k, v in above.items() if k in PUBLISHED_FIELDS and own.get(k) is not None
        }
        values["first"] = [_as_fixed(entry, before) for entry in first]
    search = _searched(searched, own, fixed_now, str(file))
    search = _narrowed(
        _parents_first(search), set(own), run.flatten_tree(run.nest(values["fixed"]))
    )
    # nothing uses an inherited prior any more
    values["search"] = search if _believes(values) else _without_priors(search, own)
    if isinstance(sampler := values.get("sampler"), dict):
        known = {*values["search"], *((child.get("sampler") or {}).get("minimum_per") or {})}
        values["sampler"] = _with_minimum_of(known, sampler)
    return values


def _searched(
    searched: Mapping[str, Any],
    own: Mapping[str, Any],
    fixed_now: Collection[str],
    file: str,
) -> dict[str, Any]:
    """The parent's parameters and the child's own, without those that the child took away.

    Raises SpaceError where it takes away what the parent does not search.
    """
    for name, described in own.items():
        below = any(known == name or known.startswith(f"{name}.") for known in searched)
        if described is None and not below:
            raise SpaceError(
                f"{file}: search.{name}: null takes a parameter out of the search, and the file"
                " that this one extends does not search it; "
                + did_you_mean(name, searched, "leave it out")
            )
    gone = tuple(f"{name}." for name, described in own.items() if described is None)
    return {
        name: described
        for name, described in {**searched, **own}.items()
        if described is not None
        and (name in own or (name not in fixed_now and not name.startswith(gone)))
    }


def _without_priors(search: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """The parameters, of which those that are not the child's `own` lose their prior."""
    return {
        name: {key: value for key, value in described.items() if key != "prior" or name in own}
        if isinstance(described, dict)
        else described
        for name, described in search.items()
    }


def _with_minimum_of(known: Collection[str], sampler: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler's settings, with minima of known parameters only."""
    minimum = sampler.get("minimum_per")
    if not isinstance(minimum, dict):
        return dict(sampler)
    kept = {name: least for name, least in minimum.items() if name in known}
    return {**sampler, "minimum_per": kept}


def _as_fixed(entry: object, before: Mapping[str, Any]) -> object:
    """An inherited published setting, with what the parent had fixed of it."""
    given = {PUBLISHED: entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or PUBLISHED not in given:
        return entry
    named = {name.removeprefix(f"{GRID}.") for name in run.flatten_tree(given)}
    added = {name: value for name, value in before.items() if name not in named}
    return {**given, **added} if added else entry


def _of_one_name(
    above: dict[str, Any],
    searched: Mapping[str, Any],
    own: Mapping[str, Any],
    fixed_now: Mapping[str, Any],
) -> dict[str, Any]:
    """A parent's fixed values, such that another `name` in the child discards the section's rest.

    `searched` is what the parent searches, `own` what the child does. A name that the parent left
    to its default is written out; under a name that the parent searched, and the child gives
    others, nothing is left.
    """
    renamed = {k: _choices(v) for k, v in own.items() if v is not None}
    renamed |= {k: [v] for k, v in fixed_now.items()}
    for name, now in renamed.items():
        section = name.removesuffix("name")
        if (
            name in above
            or not section.endswith(".")
            or not any(k.startswith(section) for k in above)
        ):
            continue
        if before := _choices(searched.get(name)):
            if not any(value in before for value in now):
                above = {k: v for k, v in above.items() if not k.startswith(section)}
        elif (default := run.default(name)) is not None:
            above = {**above, name: default}
    # of several methods that the parent searched, some may not have the field
    return {
        name: value
        for name, value in above.items()
        if not (name.startswith("method.") and "method.name" not in above and _when(own.get(name)))
    }


def _choices(described: object) -> list[Any]:
    choices = described.get("choice") if isinstance(described, dict) else None
    return choices if isinstance(choices, list) else []


def _when(described: object) -> dict[str, Any]:
    when = described.get("when") if isinstance(described, dict) else None
    return when if isinstance(when, dict) else {}


def _believes(values: Mapping[str, Any]) -> bool:
    sampler = values.get("sampler")
    confidence = sampler.get("beliefs", "none") if isinstance(sampler, dict) else "none"
    return bool(values.get("first")) and confidence != "none"


def _narrowed(search: dict[str, Any], own: set[str], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Inherited parameters without those that can no longer exist in the child.

    A condition keeps only the values that are still possible; a parameter with an empty condition
    goes. So a child that searches fewer methods need not name the parameters of the others.
    """
    kept: dict[str, Any] = {}
    for name, described in search.items():
        if name in own or not _when(described):
            kept[name] = described
            continue
        when: dict[str, Any] = {}
        for parent, allowed in _when(described).items():
            asked = allowed if isinstance(allowed, list) else [allowed]
            above = kept.get(parent)
            if isinstance(above, dict):
                choices = _choices(above) or asked  # of a range, all may still be possible
            else:
                choices = [fixed[parent]] if parent in fixed else []
            when[parent] = [value for value in asked if value in choices]
        if all(when.values()):
            kept[name] = {**described, "when": when}
    return kept


def _parents_first(search: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, each after those that its `when` names.

    A child's parameter may stand before an inherited one that depends on it, or after it.
    """
    ordered: dict[str, Any] = {}

    def place(name: str, below: tuple[str, ...] = ()) -> None:
        described = search[name]
        for parent in _when(described):
            if parent in search and parent not in below:
                place(parent, (*below, name))
        ordered.setdefault(name, described)

    for name in search:
        place(name)
    return ordered
