"""The classic methods against literal numbers (tests/golden): value and gradients.

Most are confirmed by the authors' own code.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.errors import ConfigError
from rkdsearch.methods import Loss, Method, Step, Teacher, load
from rkdsearch.methods.ardir import ARDIR
from rkdsearch.methods.crdnd import CRDND, NoiseMatrix
from rkdsearch.methods.iad import IAD
from rkdsearch.models import Features
from tests.methods.oracle import Oracle

OFFICIAL_IAD1 = {"parity": "official", "teacher_term": "unweighted"}

CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("natural", "default", "natural", {}),
    ("pgd_at", "default", "pgd_at", {}),
    ("trades", "official_target_not_detached", "trades", {}),
    ("kd", "alpha0.9_tau4", "kd", {"teacher": "robust"}),
    (
        "kd",
        "alpha0.5_tau1",
        "kd",
        {"teacher": "robust", "soft_label_weight": 0.5, "temperature": 1.0},
    ),
    ("ard", "goldblum_default_alpha1_tau30", "ard", {"kl_scale": 1 / 3}),
    (
        "ard",
        "goldblum_alpha0.5_tau5",
        "ard",
        {"kl_scale": 1 / 3, "soft_label_weight": 0.5, "temperature": 5.0},
    ),
    ("ard", "iadrepo_batchmean_alpha1_tau1", "ard", {"temperature": 1.0}),
    (
        "ard",
        "iadrepo_batchmean_alpha0.5_tau5",
        "ard",
        {"soft_label_weight": 0.5, "temperature": 5.0},
    ),
    ("akd", "lambda0.5_tau1", "akd", {}),
    ("akd", "lambda0.9_tau2", "akd", {"soft_label_weight": 0.9, "temperature": 2.0}),
    ("akd2", "vita_ce0.3_std0.1_adv0.6_T2", "akd2", {}),
    (
        "akd2",
        "iadrepo_ce0.25_adv0.5_std0.25_T1",
        "akd2",
        {
            "imitation": "kl",
            "label_weight": 0.25,
            "robust_weight": 0.5,
            "natural_weight": 0.25,
            "temperature": 1.0,
        },
    ),
    ("iad1", "official_tau1", "iad", OFFICIAL_IAD1),
    (
        "iad1",
        "official_tau5_alpha0.8",
        "iad",
        OFFICIAL_IAD1 | {"temperature": 5.0, "soft_label_weight": 0.8},
    ),
    ("iad1", "paper_tau1", "iad", {}),
    ("iad1", "paper_tau1_detached", "iad", {"self_target": "detached"}),
    ("iad2", "official_tau1", "iad", {"form": "iad2", "parity": "official"}),
    ("iad2", "official_tau2", "iad", {"form": "iad2", "parity": "official", "temperature": 2.0}),
    ("rslad", "official_cifar10", "rslad", {"parity": "official", "kl_scale": 1 / 3}),
    ("rslad", "official_cifar100_x10", "rslad", {"parity": "official", "kl_scale": 10 / 3}),
    ("rslad", "textbook_batchmean", "rslad", {}),
    ("crdnd", "default_label_kl", "crdnd", {}),
    ("crdnd", "label_infonce", "crdnd", {"relation": "infonce", "relation_temperature": 0.5}),
    (
        "crdnd",
        "label_cross_infonce",
        "crdnd",
        {"relation": "cross_infonce", "relation_temperature": 0.5},
    ),
    (
        "crdnd",
        "no_compensation_no_relation_is_rslad",
        "crdnd",
        {"compensation": "none", "relation": "none"},
    ),
    ("ardir", "default", "ardir", {}),
    (
        "ardir",
        "alpha0.7_tau2_l2sum",
        "ardir",
        {
            "soft_label_weight": 0.7,
            "temperature": 2.0,
            "representation_weight": 1.0,
            "distance": "l2_sum",
        },
    ),
    ("ardir", "cosine", "ardir", {"representation_weight": 1.0, "distance": "cosine"}),
    ("ardir", "teacher_on_adv", "ardir", {"representation_input": "adversarial"}),
]


@pytest.mark.parametrize(
    ("golden", "variant", "name", "fields"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_the_loss_and_its_gradients_are_the_published_ones(
    golden: str, variant: str, name: str, fields: dict[str, Any]
) -> None:
    Oracle.load(golden).check(variant, load(name)(**fields), epoch=60, epochs=200)


@pytest.mark.parametrize(
    ("golden", "fields", "last"),
    [
        ("iad1", {}, 59),
        ("iad1", OFFICIAL_IAD1, 59),
        ("iad2", {"form": "iad2", "parity": "official"}, 39),
    ],
)
def test_the_warm_up_of_iad_lasts_for_60_of_200_epochs_or_40_in_its_second_form(
    golden: str, fields: dict[str, Any], last: int
) -> None:
    oracle, method = Oracle.load(golden), IAD(**fields)
    oracle.check("warmup_tau1", method, epoch=last, epochs=200)
    with pytest.raises(AssertionError, match="loss"):
        oracle.check("warmup_tau1", method, epoch=last + 1, epochs=200)


def test_every_golden_variant_is_checked() -> None:
    seen = {(golden, variant) for golden, variant, _, _ in CASES}
    elsewhere = {
        ("iad1", "warmup_tau1"),
        ("iad2", "warmup_tau1"),
        ("trades", "trap_target_detached"),
        ("crdnd", "matrix_kl"),
    }
    names = {golden for golden, _ in seen}
    assert {
        (name, variant) for name in names for variant in Oracle.load(name).variants
    } == seen | elsewhere


def test_a_detached_target_in_trades_has_the_right_value_and_the_wrong_gradient() -> None:
    with pytest.raises(AssertionError, match="gradient with respect to S_nat"):
        Oracle.load("trades").check("trap_target_detached", load("trades")())


def test_a_gradient_that_reaches_a_teacher_is_caught() -> None:
    oracle = Oracle.load("rslad")

    class Leaky(Method):
        @override
        def loss(self, step: Step) -> Loss:
            own = load("rslad")().loss(step).total
            return Loss(own + 0.1 * (step.teacher(step.x) - step.teacher(step.x).detach()).sum())

    with pytest.raises(AssertionError, match="gradient with respect to T_nat"):
        oracle.check("textbook_batchmean", Leaky())


def test_a_noise_matrix_carries_the_students_answer_and_learns() -> None:
    oracle = Oracle.load("crdnd")
    expected = oracle.variants["matrix_kl"]
    matrix = NoiseMatrix(3).double()
    with torch.no_grad():
        matrix.weight.copy_(torch.tensor(expected["hyper"]["W"], dtype=torch.float64))
    method = CRDND(compensation="matrix", label_weight=0.0)
    loss = oracle.check("matrix_kl", method, companions={"noise_matrix": matrix})
    again = method.loss(oracle.step(companions={"noise_matrix": matrix}))
    (gradient,) = torch.autograd.grad(again.total, matrix.weight)
    assert loss.total.item() == pytest.approx(0.47301472295373614, abs=1e-9)
    assert gradient.flatten().tolist() == pytest.approx(
        torch.tensor(expected["grad"]["W"], dtype=torch.float64).flatten().tolist(), abs=1e-8
    )


def test_a_noise_matrix_starts_with_95_percent_on_its_diagonal() -> None:
    q = NoiseMatrix(10)(torch.eye(10))
    assert q.diagonal().tolist() == pytest.approx([0.95] * 10)
    assert q.sum(dim=1).tolist() == pytest.approx([1.0] * 10)


@pytest.mark.parametrize(
    ("margin", "moved"), [(0.0, [0.0, 0.0, 0.0, 0.118745]), (0.05, [0.0, 0.0, 0.0, 0.162807])]
)
def test_compensation_moves_only_what_the_teacher_gets_wrong_or_nearly(
    margin: float, moved: list[float]
) -> None:
    oracle = Oracle.load("crdnd")
    step = oracle.step()
    logits = oracle.leaves["T_nat"].detach()
    p, q = logits.softmax(dim=1), CRDND(margin=margin)._compensated(step, logits, step.x)
    label = torch.nn.functional.one_hot(oracle.y, 3)
    assert ((q - p).abs().sum(dim=1) / (label - p).abs().sum(dim=1)).tolist() == pytest.approx(
        moved, abs=1e-6
    )
    assert (q.gather(1, oracle.y[:, None])[3] - q[3, 1]).item() == pytest.approx(margin, abs=1e-12)


def test_negatives_of_other_classes_leave_out_the_other_images_of_the_same_class() -> None:
    oracle = Oracle.load("crdnd")
    u = torch.nn.functional.normalize(oracle.leaves["FS_adv"].detach(), dim=1)
    v = torch.nn.functional.normalize(oracle.leaves["FS_nat"].detach(), dim=1)
    s = ((u @ v.T) / 0.5).tolist()
    # images 0 and 3 are both of class 0
    kept = {0: [0, 1, 2], 1: [0, 1, 2, 3], 2: [0, 1, 2, 3], 3: [1, 2, 3]}
    expected = (
        sum(-s[i][i] + math.log(sum(math.exp(s[i][j]) for j in js)) for i, js in kept.items()) / 4
    )
    method = CRDND(relation="infonce", relation_temperature=0.5, negatives="other_classes")
    assert method.loss(oracle.step()).terms["relation"].item() == pytest.approx(expected, abs=1e-12)


def test_the_three_cases_of_iad_are_right_on_the_attacked_image_on_the_clean_one_on_none() -> None:
    oracle = Oracle.load("iad1")
    right_on_x = (oracle.leaves["T_nat"].argmax(dim=1) == oracle.y).tolist()
    right_on_x_adv = (oracle.leaves["T_adv"].argmax(dim=1) == oracle.y).tolist()
    assert (right_on_x, right_on_x_adv) == ([True, True, True, False], [True, False, False, True])
    # the third: now wrong on both
    changed = Oracle(torch.tensor([0, 2, 0, 0]), oracle.leaves, oracle.variants, oracle.content)
    method = IAD(trust="cases", partial_trust=0.3)
    step = changed.step(epoch=60, epochs=200)
    assert method._trust(step, step.attack.start(step.x, step.noise)).tolist() == [
        1.0,
        0.3,
        0.0,
        1.0,
    ]
    assert method.loss(step).terms["trust"].item() == pytest.approx(2.3 / 4)


def test_trust_is_the_probability_of_the_label_to_a_small_power() -> None:
    oracle = Oracle.load("iad1")
    step = oracle.step()
    trust = IAD()._trust(step, step.attack.start(step.x, step.noise))
    assert trust.tolist() == pytest.approx(
        [0.9461479138905721, 0.9104779055718929, 0.869608995759033, 0.9455472012802458], abs=1e-12
    )


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "iad",
            {"natural_weight": 0.25},
            "natural_weight is used where form is iad2, and form is iad1",
        ),
        (
            "iad",
            {"form": "iad2", "soft_label_weight": 0.5},
            "soft_label_weight is used where form is iad1",
        ),
        (
            "iad",
            {"trust": "cases", "trust_exponent": 0.1},
            "trust_exponent is used where trust is soft",
        ),
        (
            "crdnd",
            {"compensation": "none", "margin": 0.1},
            "margin is used where compensation is label",
        ),
        (
            "crdnd",
            {"relation": "none", "relation_weight": 1.0},
            "relation_weight is used where relation is kl or infonce or cross_infonce",
        ),
        ("ardir", {"last_stages": 2}, "last_stages is used where layers is stages"),
        ("crdnd", {"margin": 1.5}, "less than or equal to 1"),
        ("iad", {"form": ["iad1"], "natural_weight": 0.1}, "Input should be 'iad1' or 'iad2'"),
        ("ard", {"temperature": 0.0}, "greater than 0"),
    ],
)
def test_a_field_that_nothing_would_read_is_refused(
    name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(name)(**fields)


@pytest.mark.parametrize("fields", [{}, {"form": "iad2"}, {"trust": "cases"}])
def test_a_whole_config_survives_a_round_trip(fields: dict[str, Any]) -> None:
    method = IAD(**fields)
    assert IAD(**method.model_dump()) == method == IAD.model_validate_json(method.model_dump_json())


def test_defaults_depend_on_the_form_as_the_papers_do() -> None:
    one, two = IAD(), IAD(form="iad2")
    names = ("soft_label_weight", "label_weight", "robust_weight", "natural_weight", "warm_up")
    assert [one.model_dump()[name] for name in names] == [1.0, None, None, None, 0.3]
    assert [two.model_dump()[name] for name in names] == [None, 0.25, 0.5, 0.25, 0.2]


def test_ardir_asks_for_no_more_stages_than_there_are() -> None:
    three = Features(
        torch.zeros(1, 2),
        {f"stage{i}": torch.zeros(1, 2, 3, 3) for i in (1, 2, 3)}
        | {"penultimate": torch.zeros(1, 2)},
    )
    method = ARDIR(layers="stages", last_stages=4)
    with pytest.raises(ConfigError, match=r"method.last_stages must be <= 3.* got 4; lower it"):
        method._layers(three, three)


def test_label_smoothing_softens_the_hard_label_term_alone() -> None:
    logits, y = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    step = Oracle.load("natural").step(y=y, label_smoothing=0.3)
    # -log softmax = (0.2395, 2.2395, 2.2395): 0.7 of the first, and 0.1 of each of the three
    assert step.label_loss(logits).item() == pytest.approx(
        0.7 * 0.2395447662 + 0.1 * (0.2395447662 + 2 * 2.2395447662), abs=1e-9
    )


def test_weights_outside_their_simplex_are_refused_in_one_sentence() -> None:
    with pytest.raises(
        ValueError, match=r"label_weight \+ robust_weight \+ natural_weight must be <= 1, got 1\.3"
    ):
        IAD(form="iad2", label_weight=0.5, robust_weight=0.6, natural_weight=0.2)
    IAD(form="iad2", label_weight=0.1, robust_weight=0.7, natural_weight=0.2)


def test_the_three_weights_of_akd2_are_free() -> None:
    loss = load("akd2")(
        label_weight=0.5, robust_weight=0.8, natural_weight=0.3, temperature=1.0
    ).loss(Oracle.load("akd2").step())
    parts = 0.5 * loss.terms["label"] + 0.8 * loss.terms["robust"] + 0.3 * loss.terms["natural"]
    assert loss.total.item() == pytest.approx(parts.item(), abs=1e-12)


def test_a_partial_trust_is_not_rounded_to_half_precision() -> None:
    class Bright(nn.Module):
        """Sees class 0 in bright images, class 1 in dark ones."""

        @override
        def forward(self, x: Tensor) -> Tensor:
            brightness = x.mean(dim=(1, 2, 3))
            return torch.stack([brightness, 1 - brightness], dim=1).bfloat16()

    x = torch.full((1, 1, 1, 2), 0.9)
    step = Oracle.load("iad1").step(
        x=x, y=torch.tensor([0]), teachers={"robust": Teacher(Bright())}
    )
    trust = IAD(trust="cases", partial_trust=0.3)._trust(step, 1 - x)
    assert trust.tolist() == pytest.approx([0.3], abs=1e-7)  # 0.30078 in bfloat16
