"""A finished run of a stranger's method is read without the method's code."""

import pickle
import sys

from rkdsearch import methods
from rkdsearch.config import build, build_stored

STORED = {
    **build({"method.name": "natural"}).to_dict(),
    "method": {"name": "absent_lab.soft_at", "smoothing": 0.2},
}
TEACHER = {"robust": {"path": "teacher.safetensors"}, "natural": None}


def test_a_method_whose_code_is_not_here_keeps_its_name_and_its_fields() -> None:
    config = build_stored(STORED, "t00001")
    assert methods.name_of(config.method) == "absent_lab.soft_at"
    assert config.to_dict()["method"] == STORED["method"]
    assert (config.teacher_roles, config.method.reconstructed) == ((), None)
    assert "absent_lab" not in sys.modules


def test_its_teachers_are_those_that_the_run_had() -> None:
    config = build_stored({**STORED, "teachers": TEACHER}, "t00001")
    assert config.teacher_roles == ("robust",)


def test_workers_are_given_it_by_its_values() -> None:
    config = build_stored({**STORED, "teachers": TEACHER}, "t00001")
    again = pickle.loads(pickle.dumps(config))
    assert again.to_dict() == config.to_dict()
    assert again.teacher_roles == ("robust",)
