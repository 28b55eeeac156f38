"""`rkdsearch report STUDY`: an offline HTML page."""

from pathlib import Path

from rkdsearch.cli.options import LocalPath


def report(study: LocalPath, *, out: LocalPath | None = None) -> Path:
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
