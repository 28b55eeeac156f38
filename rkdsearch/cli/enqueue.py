"""`rkdsearch enqueue`: add a configuration to a search."""

from rkdsearch.cli.options import AllowImport, LocalPath


def enqueue(
    study: LocalPath, *values: str, label: str = "", allow_import: AllowImport = ()
) -> None:
    """Add a configuration to a running or finished search, in addition to its --trials.

    A running search trains it next; a finished one at its next `tune --resume`. It climbs the
    rungs like every other proposal.

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
    from rkdsearch.search import study_file
    from rkdsearch.search.queue import enqueue as add
    from rkdsearch.space.space import values_of

    plugins.allow_import(*allow_import)
    space = study_file.space_of(study)
    overrides = study_file.enqueuable(space, parsed(values))
    _, outside = space.coordinates(values_of(space.config(overrides)))
    study_file.refuse_duplicate(study, space, overrides, label)
    entry = add(study, overrides, label)
    said = f"{study}: enqueued as {entry.name}: {overrides}"
    if outside:
        said += f"; {' and '.join(outside)}: the sampler will not learn from it"
    say(said)
