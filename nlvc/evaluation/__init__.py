"""How good a codec is on real photos: measures of files that really decode, curves, and reports a person can read."""

import importlib

_HOMES = {
    "available": "baselines",
    "rivals": "baselines",
    "Estimate": "bjontegaard",
    "PairedRates": "bjontegaard",
    "bd_psnr": "bjontegaard",
    "bd_rate": "bjontegaard",
    "paired_bd_rate": "bjontegaard",
    "judge": "codecs",
    "measure": "codecs",
    "model_codec": "codecs",
    "RoundTripError": "coded",
    "code_photos": "coded",
    "Comparison": "comparisons",
    "SetResults": "comparisons",
    "compare": "comparisons",
    "set_results": "comparisons",
    "command_codec": "external",
    "Contender": "measuring",
    "PhotoSet": "measuring",
    "Store": "measuring",
    "measure_all": "measuring",
    "photo_set": "measuring",
    "bits_per_pixel": "metrics",
    "ms_ssim": "metrics",
    "psnr": "metrics",
    "Curve": "points",
    "Curves": "points",
    "Point": "points",
    "mean_curves": "points",
    "photo_curves": "points",
    "read_points": "points",
    "write_points": "points",
    "Published": "published",
    "read_published": "published",
    "Row": "report",
    "save_picture": "report",
    "table": "report",
    "write_rows": "report",
    "Codec": "trip",
    "CodecFailure": "trip",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
