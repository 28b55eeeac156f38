"""`rkdsearch report STUDY`: an offline HTML page."""

from pathlib import Path


def report(study: Path, *, out: Path | None = None) -> Path:
    """Write an offline HTML page about a study.

    Parameters
    ----------
    study
        Folder of the study; it may be running, finished, copied or empty.
    out
        File of the page; default: STUDY/report.html.
    """
    from rkdsearch.reporting import page

    path = page.build(study, out)
    print(path)
    return path
