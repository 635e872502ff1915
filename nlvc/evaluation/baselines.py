"""The file codecs in use, as fair rivals in PSNR: each through a library that keeps up with it, if it is installed.

Each has its settings for PSNR rather than for the eye, where there is a choice, 8 bits, and one thread: some encoders
write other files with more threads. Colour is kept at full resolution where a codec can (4:4:4), because PSNR is taken
on RGB; JPEG and WebP are also there as they are used, with 4:2:0.
"""

import functools
import io
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image, features
from PIL import __version__ as pillow_version

from nlvc.evaluation.trip import Codec


def rivals(names: Iterable[str] | None = None) -> list[Codec]:
    """The rivals of these names, or all that are there. Raises ValueError for one that is unknown or not there."""
    if names is None:
        names = [name for name, missing in available().items() if not missing]
    return [_rival(name) for name in names]


def available() -> dict[str, str]:
    """Each rival's name -> "" if it is there, else what to install for it."""
    missing = dict.fromkeys(_RIVALS, "")
    for name in _RIVALS:
        try:
            _rival(name)
        except ValueError as error:
            missing[name] = str(error)
    return missing


def _rival(name: str) -> Codec:
    if name not in _RIVALS:
        raise ValueError(f"no rival {name!r}: there are {', '.join(_RIVALS)}")
    make, needs = _RIVALS[name]
    try:
        return make()
    except ImportError as error:
        raise ValueError(f"{name}: {error}; pip install '{needs}'") from error


def _jpeg(name: str, subsampling: str) -> Codec:
    settings = 3, 6, 10, 15, 22, 32, 45, 60, 75, 85, 92, 96
    note = f"quality, {subsampling}, progressive, optimised"
    options = {"subsampling": subsampling, "progressive": True, "optimize": True}
    return _pillow(name, "JPEG", "libjpeg_turbo", settings, note, _quality, **options)


def _webp() -> Codec:
    settings = 0, 3, 8, 16, 28, 45, 65, 80, 90, 95, 98
    return _pillow("webp", "WEBP", "webp", settings, "quality, method 6", _quality, method=6)


def _jpeg2000() -> Codec:
    # Without mct, Pillow's default, the colours are coded apart, which loses decibels.
    options = {"mct": 1, "irreversible": True, "no_jp2": True}
    settings = 0.05, 0.08, 0.12, 0.18, 0.27, 0.4, 0.6, 0.9, 1.3, 2.0, 3.0
    note = "bits per pixel asked for, irreversible 9/7, ICT, raw codestream"
    return _pillow("jpeg2000", "JPEG2000", "jpg_2000", settings, note, _rate, **options)


def _avif() -> Codec:
    # libavif tunes for the eye unless told otherwise, which costs a tenth of the rate in PSNR; and with more threads
    # it cuts larger photos into tiles.
    options = {"subsampling": "4:4:4", "codec": "aom", "speed": 6, "advanced": {"tune": "psnr"}, "max_threads": 1}
    settings = 1, 10, 20, 30, 42, 55, 68, 82
    return _pillow("avif", "AVIF", "avif", settings, "quality, aom, speed 6, tune=psnr, 4:4:4", _quality, **options)


def _quality(quality: float) -> dict:
    return {"quality": round(quality)}


def _rate(bpp: float) -> dict:
    return {"quality_layers": [24 / bpp]}


def _jpegxl() -> Codec:
    import imagecodecs

    def encode(photo, distance):
        return imagecodecs.jpegxl_encode(photo, distance=distance, effort=7, numthreads=1)

    settings = 25, 18, 13, 9.5, 7, 5, 3.5, 2.4, 1.6, 1.0, 0.6, 0.35
    note = f"{imagecodecs.jpegxl_version()} by imagecodecs {imagecodecs.__version__}: distance, effort 7"
    return Codec("jpegxl", settings, encode, functools.partial(imagecodecs.jpegxl_decode, numthreads=1), note)


def _hevc() -> Codec:
    import pillow_heif

    if "x265" not in (encoder := pillow_heif.libheif_info()["HEIF"]):
        raise ImportError("this pillow-heif has no x265")
    # x265 raises the chroma QP of 4:4:4 by 6, which costs RGB PSNR; -1 is where BPG and HM are. Its rows depend on each
    # other in another way if there are threads to code them.
    options = {"preset": "slow", "tune": "psnr", "x265:cbqpoffs": "-1", "x265:crqpoffs": "-1", "x265:pools": "none"}

    def encode(photo, quality):
        buffer = io.BytesIO()
        picture = pillow_heif.from_pillow(Image.fromarray(photo))
        picture.save(buffer, quality=round(quality), chroma="444", enc_params=options)
        return buffer.getvalue()

    def decode(data):
        return np.asarray(pillow_heif.open_heif(data))

    note = f"{encoder} by pillow-heif {pillow_heif.__version__}: intra, quality, 4:4:4, slow, tune psnr, chroma QP -1"
    return Codec("hevc", (1, 8, 14, 20, 27, 34, 42, 51, 61), encode, decode, note)


def _pillow(
    name: str, form: str, library: str, settings: tuple, note: str, steer: Callable[[float], dict], **options
) -> Codec:
    """A codec of Pillow, whose save takes `options` and what `steer` makes of a setting."""
    if not features.check(library):
        raise ImportError(f"this Pillow has no {library}")

    def encode(photo, setting):
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, form, **steer(setting), **options)
        return buffer.getvalue()

    def decode(data):
        with Image.open(io.BytesIO(data), formats=[form]) as picture:
            return np.asarray(picture.convert("RGB"))

    by = f"{library} {features.version(library)} by Pillow {pillow_version}"
    return Codec(name, settings, encode, decode, f"{by}: {note}")


_RIVALS: dict[str, tuple[Callable[[], Codec], str]] = {
    "jpeg": (functools.partial(_jpeg, "jpeg", "4:2:0"), "pillow"),
    "jpeg-444": (functools.partial(_jpeg, "jpeg-444", "4:4:4"), "pillow"),
    "webp": (_webp, "pillow"),
    "jpeg2000": (_jpeg2000, "pillow"),
    "avif": (_avif, "pillow>=11.3"),
    "jpegxl": (_jpegxl, "imagecodecs"),
    "hevc": (_hevc, "pillow-heif"),
}
"""Name -> what makes the codec, ImportError if it cannot, and the package that it takes."""
