"""The bits: messages, codecs, integer tables and the file. NumPy and Numba, never JAX.

Names are loaded on first use (PEP 562), so that reading a file's header costs neither Numba nor SciPy.
"""

import importlib

_HOMES = {
    "rans": (
        "Message", "MessageError", "empty_message", "push", "pop", "peek", "push_with_finer_precision",
        "pop_with_finer_precision", "flatten", "unflatten", "to_bytes", "from_bytes", "reshape_head", "bits",
    ),
    "codecs": (
        "Codec", "LANES", "non_uniform", "uniform", "categorical", "from_table", "serial", "repeat", "from_generator",
        "substack", "indexed",
    ),
    "tables": ("FAMILIES", "SCALES", "Tables", "ideal_bits", "scale_tables", "tables_from_masses"),
    "bitstream": (
        "ALPHA", "METADATA", "MINOR", "RATE", "BitstreamError", "File", "Header", "pack", "read_header", "unpack",
    ),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name):
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__():
    return sorted([*globals(), *__all__])
