"""Keeping freed memory, which makes training on a CPU up to twice as fast."""

import ctypes
import sys

# Names of malloc.h; mallopt has no Python binding.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Asks the GNU allocator not to give large blocks back to the system; elsewhere it does nothing.

    XLA takes and frees hundreds of megabytes of scratch in every step on a CPU. By default each goes back to the
    system at once and comes back as fresh pages, whose faults can cost as much as the arithmetic.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 << 20)
