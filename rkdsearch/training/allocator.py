"""glibc's allocator, set to keep large blocks. No number changes, only the time to get memory.

glibc maps every block above 32 MB afresh and returns it at once. So each activation of a CIFAR
network is page-faulted in at every layer of every step: half a million faults in one step of
MobileNet-V2. With these settings the process reuses such blocks, and keeps its peak memory.
"""

import ctypes
import os
import platform

VARIABLE = "RKDSEARCH_ALLOCATOR"  # `default` leaves glibc's own settings

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt's names, from malloc.h
_MIB = 1 << 20
_SETTINGS = ((_MMAP_THRESHOLD, 1024 * _MIB), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * _MIB))


def keep_memory() -> bool:
    """Let this process keep the blocks that it frees; returns whether it does.

    False, with nothing changed, without glibc on Linux or where the variable is `default`.
    """
    if os.environ.get(VARIABLE) == "default" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    accepted = [mallopt(name, value) for name, value in _SETTINGS]
    return accepted == [1] * len(_SETTINGS)
