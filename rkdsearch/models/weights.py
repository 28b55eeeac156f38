"""Published weights in our networks.

Wrappers' prefixes are dropped and wrappers' normalisation is moved inside; all else must fit
exactly.
"""

from collections.abc import Iterable, Mapping
from math import isclose

from torch import Tensor, nn

from rkdsearch.errors import TeacherError
from rkdsearch.models.base import Classifier, normalisation, normalise_inside

_MEANS, _STDS = {"mean", "mu"}, {"std", "sigma"}
_SHOWN = 6  # names of each kind that an error lists


def fit(network: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Load `state` into `network`, whole or not at all.

    A prefix that all names share (`module.`, `model.`) is dropped. A wrapper's mean and std become
    the network's own normalisation. Raises TeacherError, which begins with `place`, where names or
    shapes differ, a weight is not finite, or file and config disagree about the normalisation.
    """
    wanted = network.state_dict()
    weights, wrapper = _unwrapped(state, wanted)
    unused = network.unused_in_checkpoints if isinstance(network, Classifier) else ()
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}
    _check_names(network, weights, wanted, place)
    broken = [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise TeacherError(
            f"{place}: weights must be finite, got NaN or infinity in {_some(broken)}; take an"
            " earlier checkpoint of that training"
        )
    _check_normalisation(network, wrapper, place)
    network.load_state_dict(weights)
    if wrapper is not None:
        normalise_inside(network, *wrapper)


_Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def _unwrapped(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], _Normalisation | None]:
    """The weights under the network's own names, and the wrapper's mean and std."""
    short = {name: name for name in state}  # the file's names without their common prefix
    constants = [name for name, tensor in state.items() if _is_constant(name, tensor)]
    while not (ours := {short[name] for name in state if name not in constants}) & wanted.keys():
        prefixes = {name.partition(".")[0] + "." for name in ours}
        if len(prefixes) != 1 or not all("." in name for name in ours):
            return dict(state), None
        (prefix,) = prefixes
        short = {name: shortened.removeprefix(prefix) for name, shortened in short.items()}
    weights = {short[name]: tensor for name, tensor in state.items()}
    extra = [short[name] for name in constants if short[name] not in wanted]
    means = [name for name in extra if _leaf(name) in _MEANS]
    stds = [name for name in extra if _leaf(name) in _STDS]
    if len(means) != 1 or len(stds) != 1:
        return weights, None
    mean, std = weights.pop(means[0]), weights.pop(stds[0])
    return weights, (tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()))


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _is_constant(name: str, tensor: Tensor) -> bool:
    """One number per channel under a wrapper's name: (), (C,), (C, 1, 1) or (1, C, 1, 1)."""
    return (
        _leaf(name) in _MEANS | _STDS
        and tensor.numel() <= max((1, *tensor.shape))
        and tensor.dim() <= 4
    )


def _check_names(
    network: nn.Module, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str
) -> None:
    # Files from before torch 0.4.1 have no batch count, and eval mode needs none.
    missing = [
        name for name in wanted if name not in weights and _leaf(name) != "num_batches_tracked"
    ]
    unexpected = [name for name in weights if name not in wanted]
    reshaped = [
        f"{name} is {tuple(weights[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    faults = [
        f"{kind} {_some(names)}"
        for kind, names in (
            ("lacks", missing),
            ("also has", unexpected),
            ("shapes differ:", reshaped),
        )
        if names
    ]
    if faults:
        raise TeacherError(
            f"{place}: does not fit into {type(network).__name__}: {'; '.join(faults)}. Name the"
            " network, width and depth that made the file, with its number of classes, or write"
            " that network as a class of your own and give its dotted path"
        )


def _check_normalisation(network: nn.Module, wrapper: _Normalisation | None, place: str) -> None:
    configured = normalisation(network)
    if wrapper is None or configured is None:
        return
    if len(wrapper[0]) != len(configured[0]) or not all(
        isclose(ours, theirs, abs_tol=1e-3)
        for ours, theirs in zip(sum(configured, ()), sum(wrapper, ()), strict=True)
    ):
        raise TeacherError(
            f"{place}: carries its own normalisation, mean {_rounded(wrapper[0])} and std"
            f" {_rounded(wrapper[1])}, and the config gives mean {_rounded(configured[0])} and std"
            f" {_rounded(configured[1])}; leave the config's mean and std out"
        )


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
