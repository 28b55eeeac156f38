"""Published weights in our networks.

Wrappers' prefixes are dropped and wrappers' normalisation is moved inside; all else must fit
exactly, or be named as spare.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose

import torch
from torch import Tensor, nn

from rkdsearch.errors import TeacherError
from rkdsearch.models.base import Classifier, normalisation, normalise_inside

# Names of one number per channel: ours and robustness libraries' (mu, new_mean), smoothing's (sds).
_MEANS = {"mean", "mu", "means", "new_mean", "pixel_mean"}
_STDS = {"std", "sigma", "sds", "stds", "new_std", "pixel_std"}
_COUNTS = {"n_averaged"}  # torch's AveragedModel counts its updates
_SHOWN = 6  # names of each kind that an error lists


@dataclass(frozen=True)
class Fitted:
    """The part of a file that a network was given: its entries' prefix, and entries left unread."""

    prefix: str
    left: tuple[str, ...]

    @property
    def described(self) -> str:
        """The same for people; empty where the file is the network's and nothing else."""
        prefix = f"read under '{self.prefix}'" if self.prefix else ""
        left = f"left unread: {_some(list(self.left))}" if self.left else ""
        return "; ".join(filter(None, (prefix, left)))


def fit(
    network: nn.Module, state: Mapping[str, Tensor], place: str, *, ignore: Sequence[str] = ()
) -> Fitted:
    """Load `state` into `network`, whole or not at all.

    Wrappers' prefixes (`module.`, `model.`) are dropped. A wrapper's mean and std become the
    network's own normalisation. Entries that begin with one of `ignore` are spare. Raises
    TeacherError, which begins with `place`, where names or shapes differ, a weight is not finite,
    or file and config disagree about the normalisation.
    """
    wanted = network.state_dict()
    prefix, copies = _prefix(state, wanted, place)
    mine = {name: name.removeprefix(prefix) for name in state if name.startswith(prefix)}
    extra = [name for name in state if mine.get(name) not in wanted]
    unused = network.unused_in_checkpoints if isinstance(network, Classifier) else ()
    spare = (*ignore, *unused)
    # A copy of the network, such as the attacker's, is left with all that stands beside it.
    beside = tuple(_parting(prefix, copy) for copy in copies)
    left = [
        name
        for name in extra
        if name.startswith((*spare, *beside))
        or mine.get(name, "").startswith(spare)
        or (_leaf(name) in _COUNTS and state[name].numel() == 1)
    ]
    constants = [name for name in extra if name not in left and _is_constant(name, state[name])]
    wrapper = _normalisation(state, constants)
    taken = {*left, *(constants if wrapper is not None else ())}
    weights = {mine.get(name, name): state[name] for name in state if name not in taken}
    _check_names(network, weights, wanted, place)
    whole = [
        name
        for name, tensor in weights.items()
        if wanted[name].is_floating_point() and not tensor.is_floating_point()
    ]
    if whole:
        raise TeacherError(
            f"{place}: weights must be floating-point numbers, got {weights[whole[0]].dtype}"
            f" in {_some(whole)}; save them before they are quantised"
        )
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
    return Fitted(prefix, tuple(left))


_Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def _prefix(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str
) -> tuple[str, list[str]]:
    """The prefix under which the network's entries stand, and those of its copies.

    Where no prefix has all entries: the one that has most. Raises TeacherError where several
    prefixes have all of them, with different weights.
    """
    found: dict[str, set[str]] = {}
    for name in state:
        starts = [0, *(at + 1 for at, letter in enumerate(name) if letter == ".")]
        for start in starts:
            if name[start:] in wanted:
                found.setdefault(name[:start], set()).add(name[start:])
    needed = {name for name in wanted if _leaf(name) != "num_batches_tracked"}
    whole = sorted((p for p, names in found.items() if names >= needed), key=lambda p: (len(p), p))
    if not whole:
        return max(found, key=lambda p: (len(found[p]), -len(p)), default=""), []
    first, others = whole[0], whole[1:]
    if first and not all(
        torch.equal(state[first + name], state[other + name]) for other in others for name in needed
    ):
        raise TeacherError(
            f"{place}: holds several networks of this kind, under {' and '.join(whole)}; choose one"
            f" by the teacher's key, such as teachers.robust.key={first.removesuffix('.')}"
        )
    return first, others


def _parting(prefix: str, other: str) -> str:
    """`module.attacker.` of `module.attacker.model.`, which parts there from `module.model.`."""
    ours, theirs = prefix.split("."), other.split(".")
    same = next((k for k, part in enumerate(theirs) if ours[k : k + 1] != [part]), len(theirs))
    return ".".join(theirs[: same + 1]).removesuffix(".") + "."


def _normalisation(state: Mapping[str, Tensor], constants: Iterable[str]) -> _Normalisation | None:
    """The one mean and the one std of these entries; None where there are none or several."""
    found: list[tuple[float, ...]] = []
    for kind in (_MEANS, _STDS):
        values = {
            tuple(state[name].flatten().tolist()) for name in constants if _leaf(name) in kind
        }
        if len(values) != 1:
            return None
        found += values
    return found[0], found[1]


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
        spare = (
            f"; entries that may be left out are named by the teacher's ignore, such as"
            f" teachers.robust.ignore=[{unexpected[0].partition('.')[0]}.]"
            if unexpected and not missing and not reshaped
            else ""
        )
        raise TeacherError(
            f"{place}: does not fit into {type(network).__name__}: {'; '.join(faults)}. Name the"
            " network, width and depth that made the file, with its number of classes, or write"
            f" that network as a class of your own and give its dotted path{spare}"
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
