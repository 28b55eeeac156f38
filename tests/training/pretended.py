"""Pretended accelerators: tensors that say `pretended:0` or `pretended:1`, computed by the CPU.

They keep the laws of a real device: an operation takes tensors of one device, and random numbers
from a generator of that device; a number that the host reads, a shape that depends on values, and a
copy from memory of the host make the host wait. Everything else is as on the CPU, so that a run
here equals the run there. `torch.tensor(..., device=...)`, which waits too, fails here. `begin`
changes the process for good: it belongs into a process of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from typing_extensions import override

KIND = "pretended"
_INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
# Their result's shape depends on values, which the host has to read.
_MEASURED = {
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.unique_dim.default,
    torch.ops.aten.repeat_interleave.Tensor,
    torch.ops.aten.bincount.default,
}


class Module:
    """`torch.pretended`, the part of it that is asked for; device 1 is the current one."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 1

    def device_count(self) -> int:
        return 2

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        pass


class OnDevice(torch.Tensor):
    """A tensor of a pretended device; its values are `inner`'s, a tensor of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls: type, inner: torch.Tensor, device: torch.device) -> "OnDevice":
        wrapped = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        wrapped.inner = inner
        return wrapped

    @override
    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch's own reads memory of the CPU

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of `Devices`")


class Devices(TorchDispatchMode):
    """Computes for the pretended devices; lists what makes the host `waits` while `watched`."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.devices: set[torch.device] = set()
        self._watched = False
        self._patch = pytest.MonkeyPatch()
        self._generators: list[tuple[torch.Generator, torch.device]] = []
        self._plain = torch.Generator

    def generator(self, device: Any = "cpu") -> torch.Generator:
        """A generator of the CPU that is known to have been asked for on `device`."""
        made = self._plain()
        self._generators.append((made, torch.device(device)))
        return made

    def __enter__(self) -> "Devices":
        from accelerate import Accelerator

        self._patch.setattr(Accelerator, "device", torch.device(KIND, 0))
        self._patch.setattr(torch, "Generator", self.generator)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patch.undo()
        super().__exit__(*error)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._watched = True
        try:
            yield
        finally:
            self._watched = False

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        found = {t.device for t in tensors if isinstance(t, OnDevice)}
        # A device is given the host's indices, and the host waits until they are there.
        indices = [t for t in tree_leaves(args[1:2]) if isinstance(t, torch.Tensor)]
        indices = indices if func in _INDEXED else []
        given = {id(t) for t in indices}
        host = [t for t in tensors if not isinstance(t, OnDevice) and id(t) not in given]
        asked = kwargs.get("device")
        if asked is not None:
            asked = torch.device(asked)
            if asked.type == KIND and asked.index is None:
                asked = torch.device(KIND, Module().current_device())
            kwargs["device"] = torch.device("cpu") if asked.type == KIND else asked
        if not found and (asked is None or asked.type != KIND):
            return func(*args, **kwargs)
        place = asked or next(iter(found))
        if func in _COPIES:
            place = tensors[0].device if func is torch.ops.aten.copy_.default else place
            if place.type == "cpu":
                self._waits(func, "to the host")
            elif host and not _non_blocking(func, args, kwargs):
                self._waits(func, "from the host")
        # Where a device is asked for, as `new_empty` may be, the others only give shapes.
        elif asked is None and (len(found) > 1 or any(t.dim() > 0 for t in host)):
            raise AssertionError(
                f"{func} meets tensors of {sorted({str(t.device) for t in tensors})}"
            )
        if not all(isinstance(t, OnDevice) for t in indices):
            self._waits(func, "from the host")
        if func in _MEASURED or any(t.dtype in {torch.bool, torch.uint8} for t in indices):
            self._waits(func, "a shape")
        drawn_from = getattr(kwargs.get("generator"), "_cdata", None)  # Python's object is another
        for made, device in self._generators:
            if made._cdata == drawn_from and device != place:
                raise AssertionError(f"{func} meets a generator of {device} on {place}")
        inner = tree_map(lambda t: t.inner if isinstance(t, OnDevice) else t, (args, kwargs))
        result = func(*inner[0], **inner[1])
        if place.type != KIND:
            return result
        if not isinstance(result, torch.Tensor | tuple | list | None):
            self._waits(func, "a number")
        self.devices.add(place)
        result = tree_map(
            lambda t: OnDevice(t, place) if isinstance(t, torch.Tensor) else t, result
        )
        return return_and_correct_aliasing(func, args, kwargs, result)

    def _waits(self, func: Any, why: str) -> None:
        if self._watched:
            self.waits.append(f"{func}: {why}")


def _non_blocking(func: Any, args: Any, kwargs: Any) -> bool:
    if func is torch.ops.aten.copy_.default:
        return bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
    return bool(kwargs.get("non_blocking", False))


def begin() -> Devices:
    """Register the devices with torch; before the process's first backward pass."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(KIND, Module())
    # A tensor's `inner` does not follow an assignment to its `data`.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    return Devices()
