"""What a picture file holds beside its pixels: Exif (orientation, position, camera), colour profile and XMP.

Nothing in here understands any of it: the blocks are carried along byte for byte, and pixels stay as they are stored,
so that the orientation in Exif is still right afterwards.
"""

from PIL import Image, PngImagePlugin

EXIF, PROFILE, XMP = "eXIF", "iCCP", "xMPP"
_PNG_XMP = "XML:com.adobe.xmp"


def read_metadata(image: Image.Image) -> dict[str, bytes]:
    """The blocks of an opened picture by the names that `.nlvc` files use."""
    found = {EXIF: image.info.get("exif"), PROFILE: image.info.get("icc_profile")}
    xmp = image.info.get("xmp") or image.info.get(_PNG_XMP)
    found[XMP] = xmp.encode() if isinstance(xmp, str) else xmp
    return {name: bytes(block) for name, block in found.items() if block}


def save_options(metadata: dict[str, bytes], format_: str) -> dict:
    """What Pillow's `save` takes to write the blocks into a file of that format."""
    options = {}
    if EXIF in metadata:
        options["exif"] = metadata[EXIF]
    if PROFILE in metadata:
        options["icc_profile"] = metadata[PROFILE]
    if XMP in metadata and format_ == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt(_PNG_XMP, metadata[XMP].decode("utf-8", "surrogateescape"))
        options["pnginfo"] = text
    elif XMP in metadata:
        options["xmp"] = metadata[XMP]
    return options
