"""What a picture file holds beside its pixels: Exif (orientation, position, camera), colour profile and XMP.

The blocks are carried along byte for byte and not understood. Pixels stay as they are stored, so that the orientation
in Exif is still right afterwards. TIFF has no Exif block but tags of its own, which Pillow turns the pixels by; a block
is made of those that describe the picture, and taken apart again.
"""

from PIL import Image, PngImagePlugin
from PIL.ExifTags import IFD

EXIF, PROFILE, XMP = "eXIF", "iCCP", "xMPP"
_PREFIX = b"Exif\0\0"
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_TIFF_XMP = 700
# From ImageDescription to Copyright, and Windows' own. All others say how a TIFF file stores its pixels: cameras put
# some of them into Exif too, and in another file they would be wrong.
_DESCRIPTIVE = (270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 316, 33432, *range(40091, 40096))


def read_metadata(image: Image.Image) -> dict[str, bytes]:
    """The blocks of an opened picture by the names that `.nlvc` files use. Exif begins with "Exif", 0, 0."""
    image.load()  # PNG may hold them behind the pixels
    exif = image.info.get("exif") or (_described(image.getexif()) if image.format == "TIFF" else _imagemagick(image))
    if exif and not exif.startswith(_PREFIX):  # WebP
        exif = _PREFIX + exif
    found = {EXIF: exif, XMP: image.info.get("xmp")}
    if not _changes_colours(image):
        found[PROFILE] = image.info.get("icc_profile")
    return {name: bytes(block) for name, block in found.items() if block}


def save_options(metadata: dict[str, bytes], format_: str) -> dict:
    """What Pillow's `save` takes to write the blocks into a file of that format; those it has no place for are lost."""
    exif, xmp, options = metadata.get(EXIF), metadata.get(XMP), {}
    # These two take Exif apart, and a broken one must not cost the photo.
    if format_ == "TIFF":
        exif = _described(_parsed(exif), xmp)
    elif format_ == "AVIF" and not _parsed(exif):
        exif = None
    if xmp and format_ == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add(b"iTXt", _PNG_XMP + xmp)
    elif xmp:
        options["xmp"] = xmp
    if exif:
        options["exif"] = exif
    if PROFILE in metadata:
        options["icc_profile"] = metadata[PROFILE]
    return options


def _changes_colours(image: Image.Image) -> bool:
    """Whether it is coded as another kind of colours than its profile speaks of: CMYK as RGB, or grey as RGBA."""
    grey = image.mode in ("1", "L")
    return image.has_transparency_data if grey else image.mode not in ("P", "PA", "RGB", "RGBA", "RGBX")


def _described(source: Image.Exif, xmp: bytes | None = None) -> bytes:
    """An Exif block of what describes the picture, and nothing of how it is stored. Empty if there is nothing."""
    kept = Image.Exif()
    try:
        for tag in _DESCRIPTIVE:
            if tag in source:
                kept[tag] = source[tag]
        parts = {part: dict(source.get_ifd(part)) for part in (IFD.Exif, IFD.GPSInfo)}
        # A place in the old file.
        parts[IFD.Exif].pop(IFD.Interop, None)
        for part, tags in parts.items():
            if tags:
                kept.get_ifd(part).update(tags)
        if xmp:
            kept[_TIFF_XMP] = xmp
        return kept.tobytes() if len(kept) or any(parts.values()) else b""
    except Exception:  # Pillow raises almost anything on a broken block
        return b""


def _parsed(block: bytes | None) -> Image.Exif:
    """The block as Pillow understands it; empty if it does not."""
    exif = Image.Exif()
    try:
        exif.load(block or b"")
        exif.tobytes()
    except Exception:
        return Image.Exif()
    return exif


def _imagemagick(image: Image.Image) -> bytes:
    """The Exif of PNG files by older versions of ImageMagick: lines of a name, a size and hexadecimal digits."""
    try:
        return bytes.fromhex("".join(image.info.get("Raw profile type exif", "").split("\n")[3:]))
    except ValueError:
        return b""
