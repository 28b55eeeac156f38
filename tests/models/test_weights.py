from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rkdsearch import models
from rkdsearch.errors import TeacherError
from rkdsearch.models import ModelConfig, build
from rkdsearch.models.weights import fit
from tests.tasks import square

State = dict[str, Tensor]


def network(classes: int = 3, mean: tuple[float, ...] | None = None) -> nn.Module:
    config = ModelConfig(
        name="wide_resnet",
        depth=10,
        width=1,
        mean=mean,
        std=None if mean is None else (0.5, 0.5, 0.5),
    )
    return build(config, square(classes=classes, channels=3, size=8)).eval()


def below(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def trades(state: State) -> State:
    """TRADES' WRN carries a block that no image passes."""
    return {
        **state,
        "sub_block1.layer.0.conv1.weight": torch.rand(16, 16, 3, 3),
        "sub_block1.layer.0.bn1.bias": torch.rand(16),
    }


def old(state: State) -> State:
    """Torch before 0.4.1 counted no batches."""
    return {
        name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(
    "published",
    [
        dict,
        below("module."),
        below("module.model."),
        below("1."),
        trades,
        lambda state: below("module.")(trades(state)),
        old,
        lambda state: {name: tensor.half().float() for name, tensor in state.items()},
        lambda state: {"n_averaged": torch.tensor(3), **below("module.")(state)},
        lambda state: below("model.")(state) | below("attacker.model.")(state),
    ],
    ids=[
        "bare",
        "DataParallel",
        "two wrappers",
        "Sequential",
        "TRADES",
        "TRADES in DataParallel",
        "old torch",
        "half",
        "AveragedModel",
        "robustness",
    ],
)
def test_weights_under_a_wrappers_names_are_the_networks_own(
    published: Callable[[State], State],
) -> None:
    theirs, ours = network(), network()
    for tensor in theirs.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    fit(ours, published(theirs.state_dict()), "teacher.pt")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize(
    ("prefix", "names", "shape"),
    [
        ("model.", ("mu", "sigma"), (1, 3, 1, 1)),
        ("module.model.", ("module.mean", "module.std"), (3, 1, 1)),
        ("1.", ("0.mean", "0.std"), (3,)),
        ("", ("normalize.mean", "normalize.std"), (1, 3, 1, 1)),
        ("module.model.", ("module.normalizer.new_mean", "module.normalizer.new_std"), (3, 1, 1)),
        ("module.1.", ("module.0.means", "module.0.sds"), (3,)),
    ],
)
def test_a_wrappers_normalisation_moves_inside(
    prefix: str, names: tuple[str, str], shape: tuple[int, ...]
) -> None:
    theirs, ours = network(), network()
    mean, std = torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.5, 0.25, 2.0])
    constants = {names[0]: mean.reshape(shape), names[1]: std.reshape(shape)}
    fit(ours, {**constants, **below(prefix)(theirs.state_dict())}, "teacher.pt")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(
        ours(x), theirs((x - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1))
    )
    assert models.normalisation(ours) == ((0.25, 0.5, 0.75), (0.5, 0.25, 2.0))


def test_a_networks_own_mean_is_not_taken_for_a_wrappers() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.mean, self.std = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))

    ours = Shifted()
    fit(
        ours,
        below("module.")({**ours.state_dict(), "mean": torch.tensor([3.0, 4.0])}),
        "teacher.pt",
    )
    assert ours.mean.tolist() == [3.0, 4.0]
    assert models.normalisation(ours) is None


def test_two_normalisations_must_agree() -> None:
    wrapped = {
        "mu": torch.full((1, 3, 1, 1), 0.4),
        "sigma": torch.full((1, 3, 1, 1), 0.5),
        **below("model.")(network().state_dict()),
    }
    with pytest.raises(
        TeacherError,
        match=(
            r"mean \(0.4, 0.4, 0.4\).*the config gives mean \(0.3, 0.3, 0.3\).*leave the config's"
            r" mean and std out"
        ),
    ):
        fit(network(mean=(0.3, 0.3, 0.3)), wrapped, "teacher.pt")
    agreeing = network(mean=(0.4, 0.4, 0.4))
    fit(agreeing, wrapped, "teacher.pt")
    assert len(agreeing._forward_pre_hooks) == 1  # normalised once, not twice


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "law"),
    [
        (
            without("fc.bias"),
            "teacher.pt: does not fit into WideResNet: lacks fc.bias. Name the network",
        ),
        (lambda state: {**state, "head.weight": torch.rand(2)}, "also has head.weight"),
        (
            lambda state: {**state, "fc.weight": torch.rand(100, 64)},
            r"shapes differ: fc.weight is \(100, 64\), wanted \(3, 64\)",
        ),
        (
            lambda state: {f"encoder.{i}.w": torch.rand(2) for i in range(9)},
            r"lacks conv1.weight, .* and 33 more; also has encoder.0.w, .* and 3 more",
        ),
        (
            lambda state: {**state, "fc.bias": torch.tensor([1.0, float("nan"), 0.0])},
            "weights must be finite, got NaN or infinity in fc.bias",
        ),
    ],
)
def test_what_does_not_fit_is_refused_whole(spoil: Callable[[State], State], law: str) -> None:
    ours = network()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(TeacherError, match=law):
        fit(ours, spoil(network().state_dict()), "teacher.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_madrys_attacker_is_left_with_its_normalisation() -> None:
    theirs, ours = network(), network()
    constants = {
        f"module.{place}.new_{name}": torch.full((3, 1, 1), value)
        for place in ("normalizer", "attacker.normalize")
        for name, value in (("mean", 0.4), ("std", 0.2))
    }
    state = theirs.state_dict()
    copies = below("module.model.")(state) | below("module.attacker.model.")(state)
    fitted = fit(ours, {**constants, **copies}, "madry.pt")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs((x - 0.4) / 0.2))
    assert fitted.prefix == "module.model."
    assert len(fitted.left) == len(state) + 2
    assert "left unread: module.attacker.normalize.new_mean, " in fitted.described


def test_two_networks_in_one_file_are_named_and_not_guessed() -> None:
    state = below("student.")(network().state_dict()) | below("teacher.")(network().state_dict())
    with pytest.raises(TeacherError, match=r"under student\. and teacher\.; choose one by the"):
        fit(network(), state, "both.pt")


def test_a_spare_head_is_named_and_left_where_it_is_asked_for() -> None:
    theirs, ours = network(), network()
    state = below("module.")({**theirs.state_dict(), "rot.weight": torch.zeros(4, 64)})
    law = r"also has rot\.weight\. Name .*such as teachers\.robust\.ignore=\[rot\.\]"
    with pytest.raises(TeacherError, match=law):
        fit(ours, state, "heads.pt")
    assert fit(ours, state, "heads.pt", ignore=["rot."]).left == ("module.rot.weight",)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_file_that_almost_fits_is_told_by_the_entries_that_differ() -> None:
    state = below("module.")({"n_averaged": torch.tensor(1), **network().state_dict()})
    del state["module.fc.bias"]
    state["module.fc.offset"] = torch.zeros(3)
    with pytest.raises(TeacherError) as caught:
        fit(network(), state, "renamed.pt")
    assert "lacks fc.bias; also has fc.offset. Name" in str(caught.value)
