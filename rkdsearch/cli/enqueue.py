"""`rkdsearch enqueue`: add a configuration to a search."""

from contextlib import suppress

from rkdsearch.cli.options import AllowImport, LocalPath


def enqueue(
    study: LocalPath, *values: str, label: str = "", allow_import: AllowImport = ()
) -> None:
    """Add a configuration to a running or finished search, in addition to its --trials.

    A running search trains it before further proposals, after the baselines; a finished one at its
    next `tune --resume`. It climbs the rungs like every other proposal.

    Parameters
    ----------
    study
        Folder of the study.
    values
        Hyperparameters as section.field=value; others have the space's fixed or default values.
    label
        Its name in the report.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.cli.options import parsed
    from rkdsearch.errors import DataError
    from rkdsearch.search import study_file
    from rkdsearch.search.feasibility import Feasibility
    from rkdsearch.search.queue import enqueue as add
    from rkdsearch.space.space import values_of

    plugins.allow_import(*allow_import)
    space = study_file.space_of(study)
    overrides = study_file.enqueuable(space, parsed(values))
    config, feasibility = space.config(overrides), Feasibility(space, {})
    _, outside = space.coordinates(values_of(config))
    study_file.refuse_duplicate(study, space, overrides, label)
    entry = add(study, overrides, label)
    said = f"{study}: enqueued as {entry.name}: {overrides}"
    if left := space.not_given(overrides):
        of_run = values_of(config)
        said += f"; not given, at a run's defaults: {', '.join(f'{n} {of_run[n]}' for n in left)}"
    if outside:
        said += f"; {' and '.join(outside)}: the sampler will not learn from it"
    with suppress(DataError):  # the images may be on another machine
        if (excess := feasibility.exceeded_limit(feasibility.costs(config))) is not None:
            said += (
                f"; its student has {excess.count:,} {excess.heading}, constraints.{excess.cost}"
                f" allows {excess.limit:,}: it is trained, and cannot be on the front"
            )
    say(said)
