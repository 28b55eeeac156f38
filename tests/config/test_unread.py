"""Fields that nothing reads in a run."""

from typing import Any

import pytest

from rkdsearch import config as run
from rkdsearch.config.unread import unread_settings

RUN = {"data.name": "digits", "student": {"name": "small_cnn"}, "method.name": "natural"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule.name": "cosine"},
        {"schedule.name": "constant", "averaging.name": "ema"},
        {"method.name": "ard", "teachers.robust.path": "t.safetensors"},
        {"method.name": "pgd_at", "attack": {"steps": 0}, "student": {"name": "resnet18"}},
    ],
)
def test_defaults_that_nothing_reads_are_not_told(changes: dict[str, Any]) -> None:
    assert unread_settings(run.build({**RUN, **changes})) == []


def test_each_value_of_the_users_that_nothing_reads_is_told_with_its_reason() -> None:
    given = {
        "schedule": {"name": "cosine", "milestones": [0.2], "factor": 0.3},
        "attack.steps": 3,
        "training.batchnorm_across": "synchronised",
        "teachers.natural.path": "t.safetensors",
    }
    assert unread_settings(run.build({**RUN, **given})) == [
        "attack.steps 3: has no effect, because method.name is natural, which attacks no image",
        (
            "teachers.natural.path t.safetensors: has no effect, because method.name is natural,"
            " which learns from no natural teacher"
        ),
        (
            "schedule.milestones [0.2]: has no effect, because schedule.name is cosine, which has"
            " no milestones"
        ),
        (
            "schedule.factor 0.3: has no effect, because schedule.name is cosine, which has no"
            " milestones"
        ),
        (
            "training.batchnorm_across synchronised: has no effect, because student.name is"
            " small_cnn, which has no BatchNorm"
        ),
    ]
