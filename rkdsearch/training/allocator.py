"""How glibc gives memory to tensors. Exact: no number changes, only the time that it takes to get memory.

glibc maps every block above 32 MB afresh and gives it back at once, so each activation of a CIFAR
network is page-faulted in at every layer of every step: half a million faults in one step of
MobileNet-V2. Here such blocks stay with the process and are used again. The process then keeps the
most memory that it ever held.
"""

import ctypes
import os
import platform

VARIABLE = "RKDSEARCH_ALLOCATOR"  # `default` leaves glibc as it is

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt's names, from malloc.h
_MIB = 1 << 20
_SETTINGS = ((_MMAP_THRESHOLD, 1024 * _MIB), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * _MIB))


def keep_memory() -> bool:
    """Let this process keep what it frees. False, and nothing done, where that is not glibc on Linux, or the environment says `default`."""
    if os.environ.get(VARIABLE) == "default" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    answers = [mallopt(name, value) for name, value in _SETTINGS]
    return answers == [1] * len(_SETTINGS)
