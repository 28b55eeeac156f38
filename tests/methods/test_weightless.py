"""Images of loss weight 0 pass the student, for BatchNorm and the record, without a gradient."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.methods import Method, Student
from rkdsearch.methods.adaad import AdaAD
from rkdsearch.methods.adaiad import AdaIAD
from rkdsearch.methods.ard import ARD
from rkdsearch.methods.ciard import CIARD
from rkdsearch.methods.iad import IAD
from rkdsearch.methods.saad import SAAD
from tests.methods.laws import Bench, batches_tracked
from tests.methods.oracle import Oracle

WARM, LATER = 0, 9  # epochs of ten


def clean_forward(method: Method, epoch: int) -> tuple[bool, int]:
    """True if the clean logits carry a gradient; and the batches that BatchNorm has counted."""
    bench = Bench(method)
    found = []

    def look(_: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        if inputs[0] is bench.x:
            found.append(logits.grad_fn is not None)

    bench.student.register_forward_hook(look)
    loss = bench.loss(epoch=epoch)
    torch.autograd.backward(loss.total)
    # through x', as DDP wants it
    assert all(p.grad is not None for p in bench.student.parameters())
    (followed,) = found
    return followed, batches_tracked(bench.student)


@pytest.mark.parametrize(
    ("weightless", "weighty"),
    [
        ((ARD(), LATER), (ARD(soft_label_weight=0.9), LATER)),
        ((AdaAD(), LATER), (AdaAD(adversarial_weight=0.9), LATER)),
        ((SAAD(), LATER), (SAAD(natural_weight=0.1), LATER)),
        ((AdaIAD(), WARM), (AdaIAD(), LATER)),
        ((AdaIAD(), WARM), (AdaIAD(soft_label_weight=0.9), WARM)),
        ((IAD(), WARM), (IAD(), LATER)),
        ((IAD(), WARM), (IAD(soft_label_weight=0.9), WARM)),
        (
            (IAD(self_target="detached"), LATER),
            (IAD(self_target="detached", soft_label_weight=0.9), LATER),
        ),
    ],
    ids=[
        "ard",
        "adaad",
        "saad",
        "adaiad-warm-up",
        "adaiad-label",
        "iad-warm-up",
        "iad-label",
        "iad-detached",
    ],
)
def test_clean_images_are_followed_back_where_they_weigh_something(
    weightless: tuple[Method, int], weighty: tuple[Method, int]
) -> None:
    (dead, dead_batches), (alive, alive_batches) = (
        clean_forward(*weightless),
        clean_forward(*weighty),
    )
    assert (dead, alive) == (False, True)
    assert dead_batches == alive_batches


def test_a_student_without_batchnorm_takes_weightless_images_in_a_forward_of_their_own() -> None:
    class Independent(nn.Linear):
        independent = True

    network, x = Independent(2, 3), torch.rand(4, 2)
    student = Student(network)
    first, silent, last = student.logits(x, 2 * x, 3 * x, weights=(1.0, 0.0, 0.5))
    assert (first.requires_grad, silent.requires_grad, last.requires_grad) == (True, False, True)
    for logits, images in ((first, x), (silent, 2 * x), (last, 3 * x)):
        torch.testing.assert_close(logits, network(images))


def test_the_push_of_ciard_softens_bfloat16_logits_in_single_precision() -> None:
    class Rounded(Student):
        """Logits of seven bits, given in bfloat16 or in more."""

        dtype = torch.bfloat16

        @override
        def __call__(self, x: Tensor) -> Tensor:
            return super().__call__(x).bfloat16().to(self.dtype)

    class Lifted(Rounded):
        dtype = torch.float32

    oracle = Oracle.load("ciard")
    pushes = []
    for kind in (Rounded, Lifted):
        step = oracle.step(companions={"robust": oracle.network("T")})
        pushes.append(
            CIARD().loss(replace(step, student=kind(step.student.network))).terms["push"].item()
        )
    assert pushes[0] == pytest.approx(pushes[1], abs=1e-7)
    assert pushes[0] > 0
