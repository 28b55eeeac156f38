"""`rkdsearch space`: look at a search space before any compute is spent."""

from pathlib import Path

from cyclopts import App

from rkdsearch.cli.options import AllowImport

app = App(name="space", help="Check, show or sample a search space.", help_format="plaintext")


@app.command
def check(*files: Path, allow_import: AllowImport = ()) -> None:
    """Prove that every corner of these spaces is a legal run: both ends of every parameter, and 100 random samples."""
    from rkdsearch import plugins
    from rkdsearch.cli.progress import said
    from rkdsearch.errors import SpaceError
    from rkdsearch.search.space import SearchSpace

    if not files:
        raise SpaceError("space check: name one or more files")
    plugins.allow_import(*allow_import)
    for file in files:
        space = SearchSpace.load(file)
        said(f"{file}: {space.check()} configurations built, all legal; {len(space.parameters)} parameters")


@app.command
def show(file: Path) -> None:
    """Print a space as it is read: fixed values, parameters with their conditions, ladder, published settings."""
    from rkdsearch.cli.progress import said
    from rkdsearch.search.space import SearchSpace

    space = SearchSpace.load(file)
    said("fixed")
    for name, value in space.fixed.items():
        said(f"  {name} = {value}")
    said("searched")
    for parameter in space.parameters:
        when = " and ".join(f"{parent} in {list(allowed)}" for parent, allowed in parameter.when.items())
        said(f"  {parameter.name}: {parameter.distribution}" + (f" where {when}" if when else ""))
    said("first")
    for first in space.first:
        said(f"  {first.label}: {dict(first.overrides)}")
    for line in space.ladder_lines(None):
        said(line)


@app.command
def sample(file: Path, *, count: int = 3, seed: int = 0) -> None:
    """Print random configurations of a space, as YAML."""
    import numpy as np

    from rkdsearch.cli.progress import said
    from rkdsearch.search.space import SearchSpace, dump

    space, rng = SearchSpace.load(file), np.random.default_rng(seed)
    for number in range(count):
        said(f"# sample {number}\n{dump(space.sample(rng))}")
