import re
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.space.check import check_space, notices
from tests.search.files import SMALL, load_space


def test_the_check_builds_both_ends_of_every_parameter_first_and_samples(tmp_path: Path) -> None:
    assert check_space(load_space(tmp_path), samples=10) == 1 + 3 + 2 + 2 + 10


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"search": {**SMALL["search"], "optimizer.lr": {"float": [0.1, 11.0]}}},
            "search.optimizer.lr at 11.0: optimizer.lr must be <= 10, got 11.0",
        ),
        (
            {"fixed": {**SMALL["fixed"], "optimizer.momentun": 0.9}},
            "unknown field optimizer.momentun; did you mean 'momentum'?",
        ),
        (
            {"search": {"method.name": {"choice": ["natural", "tradse"]}}, "first": []},
            "search.method.name at 'tradse'",
        ),
        (
            {"search": {**SMALL["search"], "method.consistency_weight": {"float": [1, 2]}}},
            "unknown field method.consistency_weight",
        ),
        (
            {"first": [{"label": "X", "method.name": "natural", "optimizer.lr": -1}]},
            "first[0] (X): optimizer.lr must be > 0, got -1",
        ),
        (
            {
                "search": {
                    "method.name": {"choice": ["natural", "trades"]},
                    "optimizer.name": {
                        "choice": ["sgd", "adamw"],
                        "when": {"method.name": "natural"},
                    },
                    "method.consistency_weight": {
                        "float": [1, 2],
                        "when": {"optimizer.name": "sgd", "method.name": "trades"},
                    },
                },
                "first": [],
            },
            "search.method.consistency_weight: its conditions",
        ),
        (
            {
                "first": [
                    {"label": "late", "method.name": "natural", "training.seed": 2**31 - 3},
                ],
                "replicates": {"seeds": 3},
            },
            "(late): training.seed must be <= 2147483644, because its replicates have the 3 seeds",
        ),
    ],
)
def test_a_corner_that_breaks_a_law_is_found_before_any_training(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpaceError, match=re.escape(sentence)):
        check_space(load_space(tmp_path, **changes), samples=5)


def test_no_rung_may_stand_inside_a_methods_warm_up(tmp_path: Path) -> None:
    teacher = {"teachers.robust.path": "teacher.pt", "method.name": "iad", "method.warm_up": 0.5}
    space = load_space(
        tmp_path,
        fixed={"data.name": "digits", **teacher},
        search={"optimizer.lr": {"float": [0.01, 0.3]}},
        first=[],
    )
    sentence = (
        "warm_up 0.5 of 4 epochs is 2, and a rung stands at 2; shorten the warm-up or raise the"
        " rung"
    )
    with pytest.raises(SpaceError, match=re.escape(sentence)):
        check_space(space, samples=1)


def test_a_student_that_does_not_fit_the_images_is_found_where_its_cost_is_asked(
    tmp_path: Path,
) -> None:
    changes = {"fixed": {"data.name": "digits", "method.name": "natural"}, "first": []}
    search = {"student.name": {"choice": ["mlp", "torchvision:alexnet"]}}
    sentence = (
        "search.student.name at 'torchvision:alexnet': network name: torchvision's networks see 3"
        " channels, the images have 1"
    )
    with pytest.raises(SpaceError, match=re.escape(sentence)):
        check_space(
            load_space(tmp_path, search=search, constraints={"parameters": 1e8}, **changes),
            samples=2,
        )


@pytest.mark.parametrize("download", [False, True])
def test_a_space_with_a_cost_passes_the_check_without_its_images(
    tmp_path: Path, download: bool
) -> None:
    fixed = {
        "data": {"name": "cifar10", "root": str(tmp_path / "nowhere"), "download": download},
        "method.name": "natural",
    }
    space = load_space(
        tmp_path,
        fixed=fixed,
        first=None,
        search={"optimizer.lr": {"float": [0.01, 0.3]}},
        constraints={"parameters": 1e8},
    )
    assert check_space(space, 2)
    assert not (tmp_path / "nowhere").exists(), "it asked the network for them"


def test_without_a_scheduler_rungs_may_stand_anywhere(tmp_path: Path) -> None:
    fixed = {
        "data.name": "digits",
        "teachers.robust.path": "teacher.pt",
        "method.name": "iad",
        "method.warm_up": 0.5,
    }
    search = {"averaging.name": {"choice": ["none", "swa"]}, "optimizer.lr": {"float": [0.01, 0.3]}}
    space = load_space(tmp_path, fixed=fixed, search=search, first=[], scheduler={"name": "none"})
    assert check_space(space, samples=3) == 2 + 2 + 3


def test_no_rung_may_stand_before_weights_are_averaged(tmp_path: Path) -> None:
    search = {"averaging.name": {"choice": ["none", "ema", "swa"]}}
    fixed = {"data.name": "digits", "method.name": "trades"}
    sentence = (
        "where swa is the student itself: averaging.start 0.5 of 4 epochs is 2, and a rung stands"
        " at 2; average from earlier on or raise"
    )
    with pytest.raises(SpaceError, match=re.escape(sentence)):
        check_space(load_space(tmp_path, fixed=fixed, search=search, first=[]), samples=1)
    early = {**fixed, "averaging.start": 0.1}
    assert check_space(load_space(tmp_path, fixed=early, search=search, first=[]), samples=1) == 4
    late = {**fixed, "averaging.start": 0.5}
    ema = {**search, "averaging.name": {"choice": ["none", "ema"]}}
    assert check_space(load_space(tmp_path, fixed=late, search=ema))


def test_what_is_outside_the_space_or_has_no_effect_in_some_runs_is_said(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        search={
            "method.name": {"choice": ["natural", "trades"]},
            "attack.eps": {"float": [0.05, 0.2]},
            "attack.steps": {"choice": [2, 10]},
        },
        fixed={"data.name": "digits"},
        first=[{"label": "A", "method.name": "trades", "attack.eps": "64/255", "attack.steps": 2}],
    )
    assert check_space(space, samples=20)
    assert notices(space, samples=20) == [
        (
            "first[0] (A): attack.eps 0.25098039215686274 is outside [0.05, 0.2]: it is trained,"
            " but the sampler does not learn from it"
        ),
        *(
            f"search.attack.{name}: has no effect where method.name is natural, which attacks no"
            " image: add `when: {method.name: [trades]}`"
            for name in ("eps", "steps")
        ),
    ]


@pytest.mark.parametrize(
    ("search", "fixed", "sentence"),
    [
        (
            {"training.label_smoothing": {"float": [0.0, 0.2]}},
            {"method.name": "rslad", "teachers.robust.path": "teacher.safetensors"},
            (
                "search.training.label_smoothing: has no effect in any run: method.name is rslad,"
                " whose loss has no hard-label term; leave it out"
            ),
        ),
        (
            {"averaging.decay": {"float": [0.9, 0.99]}},
            {"method.name": "natural"},
            "averaging.name is none, and ema alone has it; leave it out",
        ),
        (
            {"schedule.factor": {"float": [0.1, 0.5]}},
            {"method.name": "natural", "schedule.name": "cosine"},
            "schedule.name is cosine, which has no milestones; leave it out",
        ),
        (
            {"attack.batchnorm": {"choice": ["eval", "train"]}},
            {"method.name": "pgd_at", "student.name": "small_cnn"},
            "student.name is small_cnn, which has no BatchNorm; leave it out",
        ),
    ],
)
def test_a_parameter_that_changes_no_run_is_refused(
    tmp_path: Path, search: dict[str, Any], fixed: dict[str, Any], sentence: str
) -> None:
    space = load_space(tmp_path, search=search, fixed={"data.name": "digits", **fixed}, first=[])
    with pytest.raises(SpaceError, match=re.escape(sentence)):
        check_space(space, samples=2)


def test_limits_that_no_student_keeps_are_known_before_any_training(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        search={"student.width": {"int": [2, 4]}},
        fixed={"data.name": "digits", "student.name": "small_cnn", "method.name": "natural"},
        constraints={"parameters": 700},
        first=[],
    )
    with pytest.raises(
        SpaceError, match=r"no student of this space is within 700: the smallest.* has 746; raise"
    ):
        check_space(space, samples=2)


def test_one_baseline_under_two_labels_is_refused(tmp_path: Path) -> None:
    twice = [
        {"label": "A", "method.name": "natural"},
        {"label": "B", "method.name": "natural", "optimizer.lr": 0.1},
    ]
    with pytest.raises(SpaceError, match=r"first\[1\] \(B\) is the same run as first\[0\] \(A\)"):
        check_space(load_space(tmp_path, first=twice), samples=2)


def test_a_rung_inside_the_warm_up_of_the_rate_is_named(tmp_path: Path) -> None:
    ladder = [{"epochs": 2}, {"epochs": 4}, {"epochs": 20}]
    fixed = {**SMALL["fixed"], "schedule": {"name": "cosine", "warm_up": 0.1}}
    assert (
        "schedule.warm_up 0.1 of 20 epochs ends after the rung at 2: it compares runs at a part of"
        " their learning rate; raise the rung, or shorten the warm-up"
    ) in notices(load_space(tmp_path, fixed=fixed, ladder=ladder))
    fixed["schedule"]["warm_up"] = 0.05
    assert notices(load_space(tmp_path, fixed=fixed, ladder=ladder)) == []


def test_a_training_attack_in_another_norm_than_the_validation_attack_is_named(
    tmp_path: Path,
) -> None:
    fixed = {**SMALL["fixed"], "validation.attack": {"norm": "l2", "eps": 0.5}}
    first = ["trades", {"label": "A", "method.name": "pgd_at", "attack.eps": 0.1}]
    first.append({"label": "B", "method.name": "natural"})  # attacks no image
    assert notices(load_space(tmp_path, fixed=fixed, first=first), samples=5) == [
        (
            "attack.norm is linf and validation.attack.norm is l2 in first[1] (A), searched trials:"
            " trained in one ball and measured in another, whose eps are no common measure; set"
            " attack.norm to l2, unless that is meant"
        )
    ]
    same = {**fixed, "attack": {"norm": "l2", "eps": 0.5, "steps": 2}}
    del same["attack.steps"]
    assert notices(load_space(tmp_path, fixed=same, first=first), samples=5) == []


def test_beliefs_in_methods_that_are_not_searched_have_no_effect(tmp_path: Path) -> None:
    beliefs = {"name": "tpe", "beliefs": "medium"}
    searched = {**SMALL["search"], "method.name": {"choice": ["natural", "pgd_at"]}}
    del searched["method.consistency_weight"]
    found = notices(load_space(tmp_path, sampler=beliefs, search=searched), samples=2)
    assert any(
        "sampler.beliefs medium: has no effect, no baseline under `first` has a method that is"
        " searched" in notice
        for notice in found
    )


def test_a_setting_of_the_search_without_an_effect_is_named(tmp_path: Path) -> None:
    beliefs = {"name": "tpe", "beliefs": "medium"}
    assert notices(load_space(tmp_path, sampler=beliefs), samples=2) == []
    assert notices(load_space(tmp_path, sampler=beliefs, first=[]), samples=2) == [
        (
            "sampler.beliefs medium: has no effect, there is no baseline under `first`; name one,"
            " or set it to none"
        )
    ]
    metric = {"metric": {"clean_accuracy": 1.0}}
    assert notices(load_space(tmp_path, scheduler={"name": "asha", **metric}), samples=2) == []
    assert notices(load_space(tmp_path, scheduler=metric), samples=2) == [
        (
            "scheduler.metric: has no effect where scheduler.name is moasha, asha alone ranks by"
            " one number; take asha, or leave it out"
        )
    ]


def test_fixed_values_that_no_run_reads_are_named(tmp_path: Path) -> None:
    fixed = {
        **SMALL["fixed"],
        "averaging": {"decay": 0.5},
        "schedule": {"name": "cosine", "milestones": [0.1], "factor": 0.1},
        "training.label_smoothing": 0.1,
    }
    assert notices(load_space(tmp_path, fixed=fixed), samples=2) == [
        (
            "fixed.averaging.decay: has no effect in any run: averaging.name is none, and ema alone"
            " has it; leave it out"
        ),
        (
            "fixed.schedule.milestones: has no effect in any run: schedule.name is cosine, which"
            " has no milestones; leave it out"
        ),
    ]


def test_a_teacher_that_no_run_learns_from_is_named(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "teachers.robust.path": "robust.safetensors"}
    (notice,) = notices(load_space(tmp_path, fixed=fixed), samples=6)
    assert notice.startswith("fixed.teachers.robust.path: has no effect in any run: method.name is")
    assert notice.endswith("which learns from no robust teacher; leave it out")


def test_a_fixed_value_that_one_run_reads_is_meant_for_it(tmp_path: Path) -> None:
    # trades, a baseline alone, attacks images; the searched students do not
    space = load_space(
        tmp_path,
        search={"optimizer.lr": {"float": [0.01, 0.3]}},
        fixed={**SMALL["fixed"], "method.name": "natural"},
        first=[{"label": "TRADES", "method.name": "trades", "optimizer.lr": 0.1}],
    )
    assert notices(space, samples=2) == []
