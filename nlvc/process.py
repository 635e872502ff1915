"""How the process of a command uses its machine. A library has no say in that, so only commands call these."""

import contextlib
import ctypes
import hashlib
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

# Names of malloc.h; mallopt has no Python binding.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Asks the GNU allocator not to give large blocks back to the system; elsewhere it does nothing.

    XLA takes and frees hundreds of megabytes of scratch in every program on a CPU. By default each goes back to the
    system at once and comes back as fresh pages, whose faults can cost as much as the arithmetic: training and the
    encoder run up to twice as fast.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 << 20)


def keep_programs() -> None:
    """Keeps what JAX compiles in the user's cache folder, for the next start of the command.

    JAX_COMPILATION_CACHE_DIR names another folder. There is one for each kind of processor: programs for one may
    not run on another that shares the user's home.
    """
    import jax
    from platformdirs import user_cache_path

    if jax.config.jax_compilation_cache_dir:
        return
    key = f"{version('jaxlib')} {platform.machine()} {_instructions()}"
    folder = user_cache_path("nlvc") / f"programs-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # A kill may leave half an entry, which JAX speaks of at every start, and compiles.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")


def peak_mib() -> float:
    """The largest resident memory of this process so far, MiB; nan where the system does not say."""
    # On Linux ru_maxrss begins with what the process that started this one had, so it is asked for only elsewhere.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _instructions() -> str:
    """What sets this processor apart, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
