"""Every method x every law. A method that passes here can be searched over."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from rkdsearch import methods
from rkdsearch.attacks import Linf
from rkdsearch.methods import Method
from rkdsearch.training import attack_start
from tests.methods import laws, processes
from tests.methods.laws import EPS, Bench

# relative: three significant digits in the logits, and an attack that may take another path
BFLOAT16_TOLERANCE = 0.05


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("--method", None)
    found = [methods.load(name) for name in chosen or methods.names()]
    if "method" in metafunc.fixturenames:
        cases = [(m, s) for m in found for s in laws.settings(m)]
        metafunc.parametrize(
            "method", [m(**s) for m, s in cases], ids=[_name(m, s) for m, s in cases]
        )
    if "found" in metafunc.fixturenames:
        metafunc.parametrize("found", [found], ids=["all"])
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", found, ids=[methods.name_of(m) for m in found])


def _name(method: type[Method], setting: dict[str, Any]) -> str:
    return "-".join([methods.name_of(method), *(f"{k}={v}" for k, v in setting.items())])


def test_the_loss_is_one_finite_number_made_of_detached_terms(method: Method) -> None:
    loss = Bench(method).loss()
    assert loss.total.shape == ()
    assert math.isfinite(loss.total.item())
    assert loss.terms
    assert all(
        math.isfinite(term.item()) and not term.requires_grad for term in loss.terms.values()
    )


def test_the_loss_reaches_every_weight_of_the_student_and_of_its_companions(method: Method) -> None:
    bench = Bench(method)
    torch.autograd.backward(bench.loss().total)
    unreached = [name for name, p in bench.trained().items() if p.grad is None]
    if method.may_skip_parameters:
        unreached = [name for name in unreached if name.startswith("student.")]
    assert not unreached
    gradients = [p.grad for p in bench.trained().values() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)


def test_a_method_says_whether_its_inner_problem_is_flat_at_x(method: Method) -> None:
    bench, probe = Bench(method), attack_start.Probe(Linf(EPS), 2, EPS / 4, "none")
    with suppress(attack_start.Seen):
        bench.loss(attack=probe, epoch=0)
    assert probe.flat == method.flat_at_x


def test_smoothed_labels_change_the_loss_of_a_method_that_reads_labels_and_of_no_other(
    method: Method,
) -> None:
    plain, smoothed = (Bench(method).loss(label_smoothing=share).total for share in (0.0, 0.3))
    same = torch.equal(plain, smoothed)
    if type(method).__module__.startswith("rkdsearch."):
        assert same == (not method.reads_labels)
    else:  # a method of somebody's own may smooth labels itself, and need not say so
        assert same or method.reads_labels


def test_teachers_are_left_as_they_were_without_gradients(method: Method) -> None:
    bench = Bench(method)
    before = {
        name: {k: v.clone() for k, v in t.state_dict().items()}
        for name, t in bench.teachers.items()
    }
    torch.autograd.backward(bench.loss().total)
    for name, teacher in bench.teachers.items():
        assert all(torch.equal(v, before[name][k]) for k, v in teacher.state_dict().items())
        assert not teacher.training
        assert all(p.grad is None for p in teacher.parameters())


def test_an_attack_in_eval_mode_does_not_move_batchnorm_statistics(method: Method) -> None:
    counts = []
    for steps in (1, 4):
        bench = Bench(method, steps=steps)
        bench.loss(batchnorm="eval")
        counts.append(laws.batches_tracked(bench.student))
    assert counts[0] == counts[1]


def test_an_attack_in_train_mode_moves_batchnorm_statistics_at_every_step(
    kind: type[Method],
) -> None:
    few, many = Bench(kind(), steps=1), Bench(kind(), steps=4)
    for bench in (few, many):
        bench.loss(batchnorm="train")
    more = laws.batches_tracked(many.student) - laws.batches_tracked(few.student)
    assert more >= (3 if many.attack.seen else 0)


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_the_student_is_handed_back_in_train_mode_with_trainable_weights(
    kind: type[Method], batchnorm: str
) -> None:
    bench = Bench(kind())
    bench.student.bn2.eval()  # a frozen layer stays frozen
    bench.student.get_parameter("conv1.bias").requires_grad_(False)
    bench.loss(batchnorm=batchnorm)
    assert bench.student.training
    assert bench.student.bn1.training
    assert not bench.student.bn2.training
    assert [name for name, p in bench.student.named_parameters() if not p.requires_grad] == [
        "conv1.bias"
    ]


def test_an_exception_inside_the_attack_leaves_the_student_in_train_mode(
    kind: type[Method],
) -> None:
    bench = Bench(kind())
    bench.loss()
    if not bench.attack.seen:
        pytest.skip("this method does not attack")
    with laws.interrupted(bench.student), pytest.raises(InterruptedError):
        bench.loss(batchnorm="eval")
    assert all(module.training for module in bench.student.modules())
    assert all(p.requires_grad for p in bench.student.parameters())


def test_attacked_images_stay_in_the_ball_and_in_the_pixel_range(method: Method) -> None:
    bench = Bench(method, steps=8)  # 8 steps of eps / 4: the projection has work to do
    bench.loss()
    for x_adv, x in bench.attack.seen:
        assert torch.equal(
            x.view(-1, *bench.x.shape), bench.x.expand(len(x) // len(bench.x), *bench.x.shape)
        )
        assert (x_adv - x).abs().max() <= EPS + 1e-6
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1


def test_kl_scale_is_a_weight_and_no_part_of_a_reported_term(kind: type[Method]) -> None:
    if "kl_scale" not in kind.model_fields:
        pytest.skip("this method has no kl_scale")
    once, thrice = (Bench(kind.model_validate({"kl_scale": scale})).loss() for scale in (1.0, 3.0))
    assert thrice.total != once.total
    assert {name: term.item() for name, term in thrice.terms.items()} == pytest.approx(
        {n: t.item() for n, t in once.terms.items()}, rel=1e-5
    )


def test_the_same_seed_and_fresh_memory_give_the_same_loss(method: Method) -> None:
    assert torch.equal(Bench(method, seed=3).loss().total, Bench(method, seed=3).loss().total)


def test_both_ends_of_every_bounded_field_are_legal(kind: type[Method]) -> None:
    for setting in laws.ends(kind):
        bench = Bench(kind(**setting))
        total = bench.loss().total
        torch.autograd.backward(total)
        gradients = [p.grad for p in bench.student.parameters() if p.grad is not None]
        assert total.isfinite(), setting
        assert all(g.isfinite().all() for g in gradients), setting


def test_the_loss_falls_within_ten_steps_on_a_fixed_batch(method: Method) -> None:
    if not method.stationary_loss:
        pytest.skip("this method's loss moves by itself")
    values = Bench(method).learn(10)
    assert min(values[1:]) < values[0] - 0.01 * abs(values[0])


@pytest.mark.parametrize("n", [1, 3])
def test_the_last_batch_of_an_epoch_may_be_of_any_size(kind: type[Method], n: int) -> None:
    bench = Bench(kind(), n=n)
    total = bench.loss(batch_size=6).total
    torch.autograd.backward(total)
    assert total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in bench.student.parameters())


def test_every_epoch_has_a_loss(kind: type[Method]) -> None:
    for epoch in (0, 5, 9):
        assert Bench(kind()).loss(epoch=epoch).total.isfinite()


def test_bfloat16_networks_give_nearly_the_loss_of_float32(method: Method) -> None:
    exact = Bench(method).loss().total
    half = Bench(method, precision=laws.bfloat16).loss().total
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=BFLOAT16_TOLERANCE, abs=0.02)


def test_double_precision_is_never_lost(method: Method) -> None:
    bench = Bench(method, dtype=torch.float64)
    loss = bench.loss()
    torch.autograd.backward(loss.total)
    assert {loss.total.dtype, *(term.dtype for term in loss.terms.values())} == {torch.float64}
    assert all(p.grad is None or p.grad.dtype == torch.float64 for p in bench.trained().values())


def test_memory_holds_tensors_without_gradients(kind: type[Method]) -> None:
    bench = Bench(kind())
    bench.loss()
    kind().end_epoch(bench.memory, epoch=0, epochs=10, lr_factor=1.0)
    assert not any(value.requires_grad for value in bench.memory.values())


def test_a_setting_survives_json_and_editors_get_a_schema(method: Method) -> None:
    assert set(type(method).model_json_schema()["properties"]) == set(type(method).model_fields)
    assert type(method).model_validate_json(method.model_dump_json()) == method


def test_two_processes_learn_what_one_does_from_the_joined_batch(
    found: list[type[Method]], tmp_path: Path
) -> None:
    methods.allow_import("tests.methods")
    control: processes.Case = ("tests.methods.uncoupled", {})  # breaks this law: it must be seen
    cases = [(methods.name_of(m), s) for m in found for s in laws.settings(m)]
    *differences, (_, seen) = processes.compare([*cases, control], tmp_path)
    assert len(differences) == len(cases)
    assert [(case, difference) for case, difference in differences if difference > 1e-9] == []
    assert seen > 1e-3
