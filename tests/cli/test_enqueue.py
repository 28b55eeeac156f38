from pathlib import Path

import pytest

from rkdsearch.cli.enqueue import enqueue
from rkdsearch.search import study_file
from tests.search.files import load_space


def test_what_an_enqueued_configuration_will_not_do_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = load_space(tmp_path, constraints={"parameters": 2000}, first=[])
    study_file.describe(tmp_path / "s", space, {})
    enqueue(tmp_path / "s", "method.name=pgd_at", "optimizer.lr=0.2")
    assert capsys.readouterr().out.endswith("{'method.name': 'pgd_at', 'optimizer.lr': 0.2}\n")
    enqueue(tmp_path / "s", "method.name=trades")
    assert capsys.readouterr().out.endswith(
        "{'method.name': 'trades'}; not given, at a run's defaults: optimizer.lr 0.1,"
        " method.consistency_weight 6.0\n"
    )
    enqueue(tmp_path / "s", "method.name=pgd_at", "optimizer.lr=5", "student.width=8")
    said = capsys.readouterr().out
    assert "optimizer.lr 5.0 is outside [0.01, 0.3]: the sampler will not learn from it" in said
    assert (
        "; its student has 3,818 parameters, constraints.parameters allows 2,000: it is trained,"
        " and cannot be on the front\n"
    ) in said
