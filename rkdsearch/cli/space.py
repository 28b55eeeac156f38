"""`rkdsearch space`: check, show or sample a search space before any compute is spent."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from rkdsearch.cli.options import AllowImport, LocalPath

if TYPE_CHECKING:
    from rkdsearch.space.space import SearchSpace

app = App(name="space", help="Check, show or sample a search space.", help_format="plaintext")


@app.command
def check(*files: LocalPath, allow_import: AllowImport = ()) -> None:
    """Build the run at both ends of every parameter, and 100 random runs: all must be legal.

    Parameters
    ----------
    files
        YAML files of search spaces, or names such as rkdsearch:digits.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.errors import SpaceError

    if not files:
        raise SpaceError("space check: name one or more files")
    plugins.allow_import(*allow_import)
    for file in files:
        space, built = checked(file)
        say(
            f"{file}: {built} configurations checked, all legal; {len(space.parameters)}"
            " hyperparameters"
        )


def checked(file: Path, study: Path | None = None) -> "tuple[SearchSpace, int]":
    """The space in the file, and the number of runs that its check built.

    A `study` that has begun keeps what it has read from earlier studies. Says what is legal and may
    not be meant. Raises SpaceError, which names the file.
    """
    from rkdsearch.cli.console import say
    from rkdsearch.errors import SpaceError
    from rkdsearch.search.study_file import first_of
    from rkdsearch.space.check import check_space, notices
    from rkdsearch.space.space import SearchSpace

    known = first_of(study) if study is not None else ()
    space = SearchSpace.load(file, say, known)
    try:
        built = check_space(space)
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None
    for notice in notices(space):
        say(f"{file}: {notice}")
    return space, built


@app.command(name="list")
def list_shipped() -> None:
    """Print the search spaces that come with rkdsearch, by name, with their first sentence."""
    from rkdsearch.cli.console import say
    from rkdsearch.space.shipped import files

    for name, file in files().items():
        lines = file.read_text(encoding="utf-8").partition("\n#\n")[0].splitlines()
        about = " ".join(line.lstrip("# ") for line in lines)
        say(f"{name:32}  {about.partition('. ')[0].rstrip('.')}")


@app.command
def show(file: LocalPath, *, allow_import: AllowImport = ()) -> None:
    """Print a space as it is read: fixed values, parameters with conditions, baselines, ladder.

    Parameters
    ----------
    file
        YAML file of a search space, or a name such as rkdsearch:digits.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.space.check import notices
    from rkdsearch.space.space import SearchSpace

    plugins.allow_import(*allow_import)
    space = SearchSpace.load(file, say)
    say("fixed")
    searched = {parameter.name for parameter in space.parameters}
    for name, value in space.fixed.items():
        say(f"  {name} = {value}" + (", where none is searched" if name in searched else ""))
    say("searched")
    for parameter in space.parameters:
        when = " and ".join(
            f"{parent} in {list(allowed)}" for parent, allowed in parameter.when.items()
        )
        say(f"  {parameter.name}: {parameter.distribution}" + (f" where {when}" if when else ""))
    say("first")
    for baseline in space.baselines:
        say(f"  {baseline.label}: {dict(baseline.overrides)}")
    for line in [*space.forecast(None), *notices(space)]:
        say(line)


@app.command
def sample(
    file: LocalPath,
    *,
    count: int = 1,
    seed: int = 0,
    whole: bool = False,
    allow_import: AllowImport = (),
) -> None:
    """Print random configurations of a space, as YAML.

    Parameters
    ----------
    file
        YAML file of a search space, or a name such as rkdsearch:digits.
    count
        Number of configurations.
    seed
        Seed of the random draw.
    whole
        Print all fields of one run, as a file for `rkdsearch train` and `rkdsearch teacher`.
    """
    import numpy as np
    import yaml

    from rkdsearch import config as run
    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.errors import SpaceError
    from rkdsearch.space.space import SearchSpace

    plugins.allow_import(*allow_import)
    for name, value, least in (("--count", count, 1), ("--seed", seed, 0)):
        if value < least:
            raise SpaceError(f"space sample: {name} must be >= {least}, got {value}")
    space, rng = SearchSpace.load(file), np.random.default_rng(seed)
    if whole and count != 1:
        raise SpaceError(
            f"--whole prints the file of one run: --count must be 1, got {count}; another --seed"
            " draws another run"
        )
    if whole:
        say(run.written(space.config(space.sample(rng))))
        return
    for number in range(count):
        say(f"# sample {number}\n{yaml.safe_dump(space.sample(rng), sort_keys=False)}")
