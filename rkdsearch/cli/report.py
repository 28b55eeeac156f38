"""`rkdsearch report STUDY`: one offline HTML page."""

from pathlib import Path


def report(study: Path, *, out: Path | None = None) -> None:
    """Write one offline HTML page about a study: running, finished, copied or empty.

    Parameters
    ----------
    study
        The study's folder.
    out
        Where the page goes; by default STUDY/report.html.
    """
    from rkdsearch.report import page

    print(page.build(study, out))
