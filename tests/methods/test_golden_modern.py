"""The modern methods against literal numbers (tests/golden): value, gradients and state.

Most are confirmed by the authors' own code.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.attacks import Linf, Noise
from rkdsearch.errors import ConfigError
from rkdsearch.methods import Student, inner, load
from rkdsearch.methods.absld import ABSLD
from rkdsearch.methods.adaiad import AdaIAD
from rkdsearch.methods.bmtard import BMTARD
from rkdsearch.methods.cgard import CGARD
from rkdsearch.methods.ciard import CIARD
from rkdsearch.methods.dgad import DGAD
from rkdsearch.methods.mtard import MTARD
from rkdsearch.methods.peeraid import PeerAiD
from rkdsearch.methods.saad import SAAD
from tests.attacks.test_variants import ORACLE as ATTACKS
from tests.attacks.test_variants import step as perceptrons
from tests.methods.laws import Bench, Recording, batches_tracked
from tests.methods.oracle import Found, Oracle

OFFICIAL: dict[str, Any] = {"parity": "official", "kl_scale": 1 / 3}

# golden file and method, variant, fields, epoch of 200
CASES: list[tuple[str, str, dict[str, Any], int]] = [
    ("adaad", "official_cifar10_alpha1", {"kl_scale": 1 / 3}, 0),
    ("adaad", "official_cifar10_alpha0.7", {"kl_scale": 1 / 3, "adversarial_weight": 0.7}, 0),
    ("adaad", "official_cifar100_alpha1", {}, 0),
    ("adaad", "official_cifar100_alpha0.7", {"adversarial_weight": 0.7}, 0),
    ("adaiad", "official_tau30_alpha1", {}, 60),
    ("adaiad", "official_tau1_alpha1", {"temperature": 1.0}, 60),
    ("adaiad", "official_tau5_alpha0.8", {"temperature": 5.0, "soft_label_weight": 0.8}, 60),
    ("dgad", "official_resnet", {}, 0),
    ("dgad", "official_mobilenet_branch_bug", {"parity": "official"}, 0),
    ("igdm", "adaad_plus_igdm_alpha1_half", {}, 99),
    ("igdm", "adaad_plus_igdm_alpha20_end", {"gradient_weight": 20.0}, 199),
    ("saad", "official_beta0_gamma1", {}, 99),
    ("saad", "official_beta0.5_gamma2", {"natural_weight": 0.5, "entropy_order": 2.0}, 99),
]


@pytest.mark.parametrize(
    ("name", "variant", "fields", "epoch"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_the_loss_and_its_gradients_are_the_published_ones(
    name: str, variant: str, fields: dict[str, Any], epoch: int
) -> None:
    Oracle.load(name).check(variant, load(name)(**fields), epoch=epoch, epochs=200)


def test_every_golden_variant_is_checked() -> None:
    elsewhere = {
        ("mtard", "official_two_steps"),
        ("bmtard", "official_two_steps"),
        ("absld", "official_aliased_temperatures"),
        ("absld", "paper_separate_official_kl"),
        ("absld", "paper_separate_batchmean"),
        ("absld", "epoch_end_update"),
        ("cgard", "alpha0.7"),
        ("cgard", "alpha0.5"),
        ("cgard", "toy_joint_search"),
        ("peeraid", "official_cifar10"),
        ("peeraid", "official_cifar100"),
        ("ciard", "released_script_step"),
    }
    seen = {(name, variant) for name, variant, _, _ in CASES} | elsewhere
    assert {
        (name, variant) for name in {n for n, _ in seen} for variant in Oracle.load(name).variants
    } == seen


def test_adaiad_trusts_the_teacher_alone_for_60_of_200_epochs() -> None:
    oracle, method = Oracle.load("adaiad"), AdaIAD(temperature=1.0)
    warm, later = (method.loss(oracle.step(epoch=epoch, epochs=200)).terms for epoch in (59, 60))
    assert warm["trust"].item() == 1.0
    assert warm["oneself"].item() == 0.0
    assert warm["robust"].item() == pytest.approx(0.1844343783980746, abs=1e-12)  # AdaAD's loss
    assert later["trust"].item() == pytest.approx(
        (0.9461479138905721 + 0.9104779055718929 + 0.869608995759033 + 0.9455472012802458) / 4
    )


# --- MTARD and B-MTARD


@pytest.mark.parametrize("method", [MTARD(**OFFICIAL), BMTARD(**OFFICIAL)], ids=["mtard", "bmtard"])
def test_two_consecutive_steps_weigh_two_teachers_as_published(method: MTARD | BMTARD) -> None:
    oracle = Oracle.load(type(method).__name__.lower())
    memory: dict[str, Tensor] = {}
    for batch, expected in zip(
        (oracle, oracle.second()), oracle.variants["official_two_steps"]["steps"], strict=True
    ):
        loss = method.loss(batch.step(memory=memory))
        assert loss.total.item() == pytest.approx(expected["loss"], abs=1e-12)
        assert loss.terms["adversarial"].item() / 3 == pytest.approx(expected["kl_adv"], abs=1e-12)
        assert memory["weights"].tolist() == pytest.approx(
            [expected["w_adv"], expected["w_nat"]], abs=1e-12
        )
        batch.check_gradients(
            loss.total, {name.removesuffix("2"): rows for name, rows in expected["grad"].items()}
        )
        if isinstance(method, BMTARD):
            assert memory["temperatures"].tolist() == pytest.approx(
                [expected["temp_adv_after"], expected["temp_nat_after"]], abs=1e-12
            )


@pytest.mark.parametrize("method", [MTARD(**OFFICIAL), BMTARD(**OFFICIAL)], ids=["mtard", "bmtard"])
def test_at_a_tenth_of_the_learning_rate_weights_and_temperatures_move_a_tenth(
    method: MTARD | BMTARD,
) -> None:
    oracle = Oracle.load("mtard")
    moves = []
    for lr_factor in (1.0, 0.1):
        memory: dict[str, Tensor] = {}
        for batch in (oracle, oracle.second()):
            method.loss(batch.step(memory=memory, lr_factor=lr_factor))
        moves.append(
            [
                memory["weights"][1].item() - 0.5,
                memory.get("temperatures", torch.ones(2))[1].item() - 1,
            ]
        )
    assert moves[0][0] == pytest.approx(0.00117, abs=1e-5)
    # the second loss is moved by temperatures
    assert moves[1] == pytest.approx([moves[0][0] / 10, moves[0][1] / 10], rel=0.01)


def test_the_weights_of_two_teachers_stay_fractions_when_losses_vanish() -> None:
    oracle = Oracle.load("mtard")
    one_alike = replace(oracle, leaves=oracle.leaves | {"S_adv": oracle.leaves["T_adv"]})
    both_alike = replace(one_alike, leaves=one_alike.leaves | {"S_nat": oracle.leaves["N_nat"]})
    memory: dict[str, Tensor] = {}
    for batch in (oracle, one_alike):
        MTARD(balance_rate=1.0).loss(batch.step(memory=memory))
    assert memory["weights"].tolist() == pytest.approx([0.0, 1.0], abs=1e-9)
    MTARD(balance_rate=1.0).loss(both_alike.step(memory=memory))
    assert memory["weights"].isfinite().all()
    assert memory["weights"].sum().item() == pytest.approx(1.0)


def test_a_teacher_is_never_cooled_below_1_nor_heated_above_its_limit() -> None:
    oracle, memory = Oracle.load("bmtard"), dict[str, Tensor]()
    for _ in range(3):
        BMTARD(temperature_step=0.4, highest_temperature=1.5).loss(oracle.step(memory=memory))
    assert memory["temperatures"].tolist() == pytest.approx([1.0, 1.5])


# --- ABSLD


def tempered() -> dict[str, Tensor]:
    """The memory of a later epoch: rows adversarial and natural, one temperature a class."""
    return {"temperatures": torch.tensor([[0.8, 1.5, 2.0], [1.2, 0.7, 1.0]], dtype=torch.float64)}


@pytest.mark.parametrize(
    ("variant", "fields"),
    [("official_aliased_temperatures", OFFICIAL), ("paper_separate_batchmean", {})],
    ids=["official", "paper"],
)
def test_soft_labels_are_tempered_by_class(variant: str, fields: dict[str, Any]) -> None:
    Oracle.load("absld").check(variant, ABSLD(**fields), memory=tempered())


def test_the_offset_of_the_released_code_does_not_move_the_gradient() -> None:
    oracle = Oracle.load("absld")
    expected = oracle.variants["paper_separate_official_kl"]
    loss = ABSLD(kl_scale=1 / 3).loss(oracle.step(memory=tempered()))
    oracle.check_gradients(loss.total, expected["grad"])
    assert loss.total.item() == pytest.approx(expected["loss"], abs=2e-5)


@pytest.mark.parametrize(("lr_factor", "share"), [(1.0, 1.0), (0.1, 0.1)])
def test_harder_classes_get_sharper_labels_at_the_end_of_an_epoch(
    lr_factor: float, share: float
) -> None:
    oracle = Oracle.load("absld")
    method, memory, before = ABSLD(), tempered(), tempered()["temperatures"]
    method.loss(oracle.step(memory=memory))
    update = oracle.variants["epoch_end_update"]["update"]
    for row, view in enumerate(("adv", "nat")):
        assert memory["class_errors"][row].tolist() == pytest.approx(
            update[view]["class_ce_sum"], abs=1e-12
        )
    method.end_epoch(memory, epoch=0, epochs=10, lr_factor=lr_factor)
    for row, view in enumerate(("adv", "nat")):
        moved = torch.tensor(update[view]["new_temperature"], dtype=torch.float64) - before[row]
        assert (memory["temperatures"][row] - before[row]).tolist() == pytest.approx(
            (share * moved).tolist(), abs=1e-12
        )
    assert memory["class_errors"].tolist() == [[0.0] * 3] * 2


def test_errors_of_a_class_add_up_over_an_epoch_and_temperatures_stay_in_bounds() -> None:
    oracle, memory = Oracle.load("absld"), dict[str, Tensor]()
    method = ABSLD(class_temperature_step=10.0)
    for _ in range(2):
        method.loss(oracle.step(memory=memory))
    assert memory["class_errors"][0].tolist() == pytest.approx(
        [2 * 2.4603738594182043, 2 * 1.6802696706417346, 2 * 0.9054523519579402]
    )
    method.end_epoch(memory, epoch=0, epochs=10, lr_factor=1.0)
    assert memory["temperatures"].tolist() == [
        [0.5, pytest.approx(1.0226415928), 5.0],
        [pytest.approx(4.9549207749), 5.0, 0.5],
    ]


# --- DGAD


def test_the_shares_of_a_short_last_batch_are_of_the_configured_size() -> None:
    oracle = Oracle.load("dgad")
    loss = DGAD().loss(oracle.step(batch_size=8))
    assert loss.total.item() == pytest.approx(
        0.04991148135099857 / 8 + 0.18209840431173244 * 7 / 8 + 0.04904491863108391, abs=1e-12
    )


def test_a_teacher_that_is_always_wrong_or_always_right_leaves_one_group_empty() -> None:
    oracle = Oracle.load("dgad")
    wrong, right = (oracle.leaves["T_nat"].argmin(dim=1), oracle.leaves["T_nat"].argmax(dim=1))
    for y, empty in ((wrong, "adversarial"), (right, "natural")):
        loss = DGAD().loss(replace(oracle, y=y).step())
        assert loss.terms[empty].item() == 0
        assert loss.total.isfinite()


# --- SAAD


def test_the_teachers_surest_sample_weighs_nothing_when_attacked_and_all_when_clean() -> None:
    oracle = Oracle.load("saad")
    total = SAAD(natural_weight=1.0).loss(oracle.step()).total
    adversarial, natural = torch.autograd.grad(
        total, [oracle.leaves["S_adv"], oracle.leaves["S_nat"]]
    )
    assert adversarial[3].tolist() == [0.0, 0.0, 0.0]  # entropies: 0.95, 1.01, 1.04, 0.94 nats
    assert natural[2].abs().max() < 1e-8
    assert natural[3].abs().max() > 1e-3


# --- CGARD


@dataclass(frozen=True)
class FoundBoth(Found):
    """Finds x_S at 1 and x_T at -1, which the teacher answers with `T_minus`."""

    views: list[float] = field(default_factory=lambda: [1.0, -1.0])

    @override
    def start(self, x: Tensor, noise: Noise) -> Tensor:
        x_adv = x.detach().clone()
        x_adv[:, 0, 0, 0] = self.views.pop(0)
        return x_adv


@pytest.mark.parametrize(
    ("variant", "fields"), [("alpha0.7", {}), ("alpha0.5", {"adversarial_weight": 0.5})]
)
def test_the_student_learns_two_outputs_of_the_teacher_at_its_own_attacked_image(
    variant: str, fields: dict[str, Any]
) -> None:
    Oracle.load("cgard").check(
        variant, CGARD(**fields), attack=FoundBoth(Linf(1.0), steps=0, step_size=1.0)
    )


@dataclass(frozen=True)
class TwoStarts(Recording):
    """Literal Gaussian starts: the second has its images in reverse order."""

    orders: list[int] = field(default_factory=lambda: [1, -1])

    @override
    def start(self, x: Tensor, noise: Noise) -> Tensor:
        unit = torch.tensor(ATTACKS["gauss_unit"], dtype=torch.float64)
        return x + 0.001 * (unit if self.orders.pop(0) == 1 else unit.flip(0))


class Asked(Student):
    """A student that keeps the images that it is asked about."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.seen: list[Tensor] = []

    @override
    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return super().__call__(x)


def test_student_and_teacher_search_jointly_and_a_harmed_teacher_restarts_from_clean() -> None:
    expected = Oracle.load("cgard").variants["toy_joint_search"]
    at, attack = perceptrons("gaussian")
    both = TwoStarts(attack.ball, attack.steps, attack.step_size)
    loss = CGARD().loss(replace(at, attack=both, student=(student := Asked(at.student.network))))
    x_student, x_teacher = (
        torch.tensor(expected[key], dtype=torch.float64)
        for key in ("x_student_adv", "x_teacher_collab")
    )
    assert (student.seen[-1] - x_student).abs().max() < 1e-12
    candidates = [pair.chunk(2)[1] for pair, _ in both.seen]
    reset = torch.tensor(expected["candidate_reset"])
    kept = torch.where(reset[-1][:, None, None, None], at.x, candidates[-1])
    assert (kept - x_teacher).abs().max() < 1e-12
    for before, after, again in zip(candidates, candidates[1:], reset, strict=False):
        origin = torch.where(again[:, None, None, None], at.x, before)
        # one step from where the teacher was put
        assert (after - origin).abs().max() <= attack.step_size + 1e-12
    assert loss.total.isfinite()


def test_cgard_refuses_another_objective_instead_of_ignoring_it() -> None:
    with pytest.raises(
        ConfigError, match=r"attack.objective: cgard searches two images .* got 'label'"
    ):
        CGARD().loss(Oracle.load("cgard").step(inner_problem=inner.label))


# --- PeerAiD


@pytest.mark.parametrize(
    ("variant", "weight"), [("official_cifar10", 0.1), ("official_cifar100", 1.0)]
)
def test_student_and_peer_learn_from_each_other_as_published(variant: str, weight: float) -> None:
    oracle = Oracle.load("peeraid")
    oracle.check(
        variant,
        PeerAiD(kl_scale=1 / 3, peer_student_weight=weight),
        companions={"peer": oracle.network("peer")},
    )


def test_a_peer_has_the_students_architecture_its_own_weights_and_eval_mode_on_clean_images() -> (
    None
):
    bench = Bench(PeerAiD())
    peer = bench.companions["peer"]
    assert [p.shape for p in peer.parameters()] == [p.shape for p in bench.student.parameters()]
    assert not torch.equal(peer.get_parameter("conv1.weight"), bench.student.conv1.weight)
    bench.loss()
    assert batches_tracked(peer) == 1  # x'
    assert batches_tracked(bench.student) == 2  # x' and x
    assert peer.training
    assert all(p.requires_grad for p in peer.parameters())


# --- CIARD


def test_the_push_away_from_the_natural_teachers_mistakes_is_the_published_one() -> None:
    oracle = Oracle.load("ciard")
    loss = oracle.check(
        "released_script_step", CIARD(**OFFICIAL), companions={"robust": oracle.network("T")}
    )
    assert loss.terms["push"].item() / 3 == pytest.approx(0.15279987989823138, abs=1e-12)


def test_after_a_sixth_of_the_run_the_robust_teacher_learns_labels_without_the_student() -> None:
    oracle = Oracle.load("ciard")
    expected = dict(oracle.variants["released_script_step"]["grad"])
    truth = torch.nn.functional.one_hot(oracle.y, 3)
    expected["T_adv"] = ((oracle.leaves["T_adv"].softmax(dim=1) - truth) / 4).tolist()
    for epoch, learned in ((49, None), (50, expected["T_adv"])):
        loss = CIARD(**OFFICIAL).loss(
            oracle.step(epoch=epoch, epochs=300, companions={"robust": oracle.network("T")})
        )
        oracle.check_gradients(loss.total, expected | {"T_adv": learned})


def test_label_smoothing_reaches_the_labels_that_the_robust_teacher_learns() -> None:
    oracle = Oracle.load("ciard")
    plain, smooth = (
        CIARD()
        .loss(
            oracle.step(
                epoch=50,
                epochs=300,
                companions={"robust": oracle.network("T")},
                label_smoothing=share,
            )
        )
        .terms
        for share in (0.0, 0.2)
    )
    assert smooth["adversarial"] == plain["adversarial"]
    assert smooth["retraining"] > plain["retraining"]


def test_without_a_mistake_of_the_natural_teacher_there_is_no_push() -> None:
    oracle = Oracle.load("ciard")
    loss = CIARD().loss(
        replace(oracle, y=oracle.leaves["N_adv"].argmax(dim=1)).step(
            companions={"robust": oracle.network("T")}
        )
    )
    assert loss.terms["push"].item() == 0
    assert loss.total.item() == pytest.approx(
        (loss.terms["adversarial"] + loss.terms["natural"]).item(), abs=1e-12
    )


def test_the_copied_teacher_learns_by_a_schedule_of_its_own_and_the_loaded_one_stays_frozen() -> (
    None
):
    bench = Bench(CIARD())
    companion = CIARD().companions(bench.student, dict(bench.teachers), bench.x[:1])["robust"]
    assert companion.module.training
    assert all(p.requires_grad for p in companion.module.parameters())
    assert not any(p.requires_grad for p in bench.teachers["robust"].parameters())
    assert companion.settings == {"lr": 1e-4, "momentum": 0.1, "weight_decay": 2e-4}
    assert companion.schedule is not None
    rates = [companion.schedule(epoch, 300) for epoch in (0, 48, 50, 174, 299)]
    assert rates == pytest.approx([0.0, 0.0, 0.99996, 0.498752, 0.0], abs=1e-5)


def test_before_it_learns_the_copied_teachers_statistics_move_without_gradients() -> None:
    bench = Bench(CIARD())
    torch.autograd.backward(bench.loss(epoch=0).total)
    copied = bench.companions["robust"]
    assert batches_tracked(copied) == 1
    assert all(p.grad is None for p in copied.parameters())
    assert batches_tracked(bench.teachers["robust"]) == 0


@pytest.mark.parametrize("above", [1e-15, 1e-9, 1e-6, -1e-6, 1e-3, 0.0999, 0.1001])
def test_renyis_entropy_is_steady_around_shannons_order(above: float) -> None:
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 9.0]])
    p = logits.double().softmax(dim=1)
    shannon = -(p * p.log()).sum(dim=1)
    exact = shannon if abs(above) < 1e-8 else -(p ** (1 + above)).sum(dim=1).log() / above
    found = SAAD(entropy_order=1 + above)._entropy(logits)
    assert torch.allclose(found.double(), exact, atol=3e-6, rtol=0)


def test_images_of_a_search_without_steps_are_pixels_too() -> None:
    at, attack = perceptrons("gaussian")
    dark = torch.zeros_like(at.x)  # noise around it is negative for half of the pixels
    student = Asked(at.student.network)
    CGARD().loss(replace(at, x=dark, attack=replace(attack, steps=0), student=student))
    assert student.seen[-1].min() == 0
    assert 0 < student.seen[-1].max() <= 1
