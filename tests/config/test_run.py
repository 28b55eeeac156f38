import json
from typing import Any

import pytest

from rkdsearch import config as configs
from rkdsearch import methods
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError

TEACHER = {"path": "teacher.safetensors"}
BOTH = {"robust": TEACHER, "natural": TEACHER}


def built(**values: Any) -> TrainConfig:
    return configs.build({"method": {"name": "rslad"}, "teachers": BOTH, **values})


def test_an_eps_may_be_written_as_the_field_writes_it() -> None:
    config = built(**{"attack.eps": "8/255", "validation.attack.eps": " 4 / 255 "})
    assert (config.attack.eps, config.validation.attack.eps) == (8 / 255, 4 / 255)


@pytest.mark.parametrize("ball", ["attack", "validation.attack"])
def test_an_eps_of_8_is_refused_where_8_255_is_meant(ball: str) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^config: {ball}: eps is in pixels of \[0, 1\]: 8/255 is 0\.0314; got 8$",
    ):
        built(**{f"{ball}.eps": 8})
    assert (
        built(**{f"{ball}.eps": 1}).fingerprint()
        != built(**{f"{ball}.eps": 8, f"{ball}.norm": "l2"}).fingerprint()
    )


def test_an_inner_problem_that_uses_a_teacher_needs_one() -> None:
    with pytest.raises(
        ConfigError,
        match=(
            r"attack\.objective 'teacher_clean' needs a robust teacher, and there is none: set"
            r" teachers\.robust"
        ),
    ):
        configs.build({"method.name": "pgd_at", "attack.objective": "teacher_clean"})


def test_a_run_needs_the_teachers_of_its_method_and_of_its_inner_problem() -> None:
    assert built(method={"name": "natural"}).teacher_roles == ()
    assert built(method={"name": "iad", "form": "iad2"}).teacher_roles == ("robust", "natural")
    assert built(
        method={"name": "pgd_at"}, **{"attack.objective": "teacher_clean"}
    ).teacher_roles == ("robust",)
    assert built(**{"attack.objective": "teacher_adversarial"}).teacher_roles == ("robust",)
    assert built(
        method={"name": "kd", "teacher": "natural"}, **{"attack.objective": "student_clean"}
    ).teacher_roles == ("natural",)


def test_start_and_batchnorm_default_to_the_methods_paper() -> None:
    for name in methods.names():
        paper, config = methods.load(name).attack_defaults, built(method={"name": name})
        assert (config.attack.start, config.attack.batchnorm) == (paper.start, paper.batchnorm)
    assert built(**{"attack.start": "none"}).attack.start == "none"


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({"method": {"name": "trades"}}, "trades"),
        ({"attack.objective": "student_clean"}, "rslad"),
        (
            {"method": {"name": "trades"}, "attack.objective": "student_clean"},
            "trades",
        ),
    ],
)
def test_an_attack_that_compares_the_student_with_itself_may_not_begin_at_x(
    values: dict[str, Any], method: str
) -> None:
    with pytest.raises(ConfigError, match=f"'none' here.*'{method}'.*gaussian, uniform"):
        built(**values, **{"attack.start": "none"})
    assert built(**values, **{"attack.start": "none", "attack.steps": 0}).attack.steps == 0
    assert built(**values, **{"attack.start": "gaussian"}).attack.start == "gaussian"


def test_trades_with_another_inner_problem_may_begin_at_x() -> None:
    config = built(
        method={"name": "trades"}, **{"attack.start": "none", "attack.objective": "label"}
    )
    assert config.attack.start == "none"


def test_a_teachers_recipe_may_not_begin_at_x_either() -> None:
    recipe = {"method": {"name": "trades"}, "attack": {"start": "none"}}
    with pytest.raises(ConfigError, match=r"teachers.robust.recipe.*'none' here"):
        built(teachers={"robust": {"recipe": recipe}})


@pytest.mark.parametrize("ball", ["attack", "validation.attack"])
def test_an_l2_ball_needs_a_radius_and_keeps_no_radius_of_linf(ball: str) -> None:
    with pytest.raises(ConfigError, match=f"{ball}.*eps is required where norm is l2"):
        built(**{f"{ball}.norm": "l2"})
    assert built(**{f"{ball}.norm": "l2", f"{ball}.eps": "128/255"}).to_dict()


def test_an_l2_ball_of_a_teachers_recipe_needs_a_radius_too() -> None:
    recipe = {"method": {"name": "pgd_at"}, "attack": {"norm": "l2"}}
    with pytest.raises(ConfigError, match="eps is required where norm is l2"):
        built(teachers={"robust": {"recipe": recipe}})


def test_a_stored_run_with_an_l2_ball_keeps_its_radius() -> None:
    stored = built(**{"attack.norm": "l2", "attack.eps": 8 / 255}).to_dict()
    assert configs.build(stored).attack.eps == 8 / 255


def test_a_file_that_is_there_is_the_teacher_and_its_recipe_no_part_of_the_run() -> None:
    recipe = {"recipe": {"method": {"name": "pgd_at"}}}
    with_both = built(teachers={"robust": {**TEACHER, **recipe}, "natural": TEACHER})
    assert with_both.fingerprint() == built().fingerprint()


@pytest.mark.parametrize("name", methods.names())
def test_a_run_comes_back_from_its_values(name: str) -> None:
    config = built(method={"name": name})
    again = configs.build(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_a_fingerprint_is_of_the_values_and_of_nothing_else() -> None:
    assert built(**{"optimizer.lr": 0.2}).fingerprint() != built().fingerprint()
    # the default, said aloud
    assert built(**{"optimizer.lr": 0.1}).fingerprint() == built().fingerprint()
    # has no effect on training
    assert built(**{"teachers.robust.trained_on": "train"}).fingerprint() == built().fingerprint()
    # A new field or default changes this number: `config/stored.py` must then say what an earlier
    # run had, or no earlier checkpoint can be continued.
    assert built().fingerprint()[:16] == "dbf1e6d4a60c6811"


def test_where_a_runs_files_lie_is_no_part_of_it_where_something_else_says_what_they_are() -> None:
    here, there = ({"data": {"name": "cifar10", "root": root}} for root in ("data", "/mnt/data"))
    assert built(**here).fingerprint() == built(**there).fingerprint()
    known, moved = (
        {"teachers": {"robust": {"path": p, "sha256": "ab" * 32}, "natural": TEACHER}}
        for p in ("a.pt", "/b/a.pt")
    )
    assert built(**known).fingerprint() == built(**moved).fingerprint()
    capitals = {"teachers": {"robust": {"path": "a.pt", "sha256": "AB" * 32}, "natural": TEACHER}}
    assert built(**capitals).fingerprint() == built(**known).fingerprint()
    other = {"teachers": {"robust": {"path": "a.pt", "sha256": "cd" * 32}, "natural": TEACHER}}
    assert built(**other).fingerprint() != built(**known).fingerprint()
    assert built(**{"training.device": "cpu"}).fingerprint() == built().fingerprint()
    assert (
        built(**{"teachers.robust.path": "other.pt"}, teachers={"natural": TEACHER}).fingerprint()
        != built().fingerprint()
    )
    unasked = built(teachers={"robust": TEACHER, "natural": {"path": "elsewhere.pt"}})
    assert unasked.fingerprint() == built().fingerprint()
    one, two = ({"data": {"name": f"folder:{path}"}} for path in ("cats", "dogs"))
    assert built(**one).fingerprint() != built(**two).fingerprint()


def test_a_share_of_extra_images_that_rounds_to_none_is_refused() -> None:
    given = {
        "method.name": "natural",
        "data.name": "cifar10",
        "data.extra": "more.npz",
        "data.extra_fraction": 0.003,
    }
    assert configs.build({**given, "training.batch_size": 256}).data.extra_fraction == 0.003
    with pytest.raises(
        ConfigError,
        match=(
            r"data\.extra_fraction: 0\.003 of a batch of 128 is no image; raise it or"
            r" training\.batch_size"
        ),
    ):
        configs.build({**given, "training.batch_size": 128})
