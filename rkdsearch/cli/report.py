"""`rkdsearch report STUDY`: an offline HTML page."""

from pathlib import Path


def report(study: Path, *, out: Path | None = None) -> None:
    """Write an offline HTML page about a study.

    Parameters
    ----------
    study
        Folder of the study; it may be running, finished, copied or empty.
    out
        File of the page; default: STUDY/report.html.
    """
    from rkdsearch.reporting import page

    print(page.build(study, out))
