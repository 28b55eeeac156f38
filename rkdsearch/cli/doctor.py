"""`rkdsearch doctor`: find what would stop a search, before compute is spent."""

from rkdsearch.cli.options import Address, AllowImport, LocalPath


def doctor(
    space: LocalPath | None = None,
    *,
    study: LocalPath | None = None,
    address: Address = None,
    allow_import: AllowImport = (),
) -> None:
    """Look at this machine or at a cluster's nodes (at most 64); nothing is trained, no file stays.

    Versions, GPUs, and, of a space, its images, teachers and place for a trial. Where a trial has
    several processes, two nodes add a number together. `tune --address` begins with the same look.

    Parameters
    ----------
    space
        YAML file of a search space: what its trials need is looked for too.
    study
        Folder of the results: every node writes and reads a file there.
    """
    from contextlib import ExitStack

    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.cli.space import checked
    from rkdsearch.errors import StudyError
    from rkdsearch.execution import doctor as examination
    from rkdsearch.execution.placement import available_resources
    from rkdsearch.execution.ray_session import shared_token
    from rkdsearch.search import study_file
    from rkdsearch.space.settings import Resources

    plugins.allow_import(*allow_import)
    searched = None if space is None else checked(space)[0]
    if searched is not None:
        study_file.check_files(study, searched)
    resources = Resources() if searched is None else searched.resources
    found, waits = 0, False
    if address is not None and (complaint := shared_token()) is not None:
        found += 1
        say(f"this machine {complaint}")
    with ExitStack() as held:
        held.enter_context(available_resources(resources, address, say))
        reports = (
            [("this machine", examination.here(searched, study))]
            if address is None
            else examination.examine(searched, study)
        )
        for node, report in reports:
            say(f"{node}: {report.facts or 'no answer'}")
            for complaint in report.complaints:
                found += 1
                say(f"  {node} {complaint}")
        if address is not None and searched is not None:
            for sentence in examination.too_small(resources):
                found += examination.fits_no_machine(resources)
                waits = True
                say(f"  {sentence}")
            for complaint in (
                *examination.impossible(resources),
                *examination.nodes_that_cannot_connect(resources),
            ):
                found += 1
                say(f"  {complaint}")
    if found:
        raise StudyError(
            f"doctor: {found} {'problem' if found == 1 else 'problems'} found, see above"
        )
    say("nothing found that would stop a search" + ", once the cluster has grown" * waits)
