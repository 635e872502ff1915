"""Exif, colour profile and XMP through every format of pictures: the same bytes where it has a place for them."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, features
from PIL.ExifTags import GPS, IFD, Base

from nlvc import coding
from nlvc.data import read_metadata, save_options
from nlvc.data.metadata import EXIF, PROFILE, XMP

BLOCKS = ("PNG", "JPEG", "WEBP")
"""Formats that hold Exif as a block."""
TAKEN_APART = ("TIFF", "AVIF")
PICTURE = Image.fromarray(np.arange(8 * 6 * 3, dtype=np.uint8).reshape(6, 8, 3))
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
a_part = pytest.param("AVIF", marks=needs_avif)


def exif_block(orientation=6):
    """Exif as a camera writes it: also the size of its own file, which is wrong in any other."""
    exif = Image.Exif()
    exif[Base.Orientation], exif[Base.Make], exif[Base.ImageWidth] = orientation, "Maker", 4000
    exif.get_ifd(IFD.Exif).update({Base.ExposureTime: (1, 50), Base.MakerNote: b"its own\0affair"})
    exif.get_ifd(IFD.GPSInfo).update({GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (47.0, 22.5, 3.25)})
    return exif.tobytes()


METADATA = {
    EXIF: exif_block(),
    PROFILE: bytes(range(256)) * 3,
    XMP: '<x:xmpmeta xmlns:x="adobe:ns:meta/">é</x:xmpmeta>'.encode(),
}


def saved(image, format_, metadata):
    file = io.BytesIO()
    image.save(file, format_, **save_options(metadata, format_))
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def values(block):
    """What an Exif block says, apart from where it says it."""
    exif = Image.Exif()
    exif.load(block)
    parts = {part: dict(exif.get_ifd(part)) for part in (IFD.Exif, IFD.GPSInfo)}
    return {tag: value for tag, value in exif.items() if tag not in parts}, parts


def test_the_names_are_those_of_the_chunks():
    assert set(METADATA) == set(coding.METADATA)


# --- Formats with blocks ---


@pytest.mark.parametrize("source", BLOCKS)
@pytest.mark.parametrize("target", BLOCKS)
def test_blocks_pass_from_format_to_format_bit_for_bit(source, target):
    metadata = read_metadata(opened(saved(PICTURE, source, METADATA)))
    assert metadata == METADATA
    picture = opened(saved(PICTURE, target, metadata))
    assert read_metadata(picture) == METADATA
    # Others find them too, and pixels are as they were stored: whoever looks at the orientation turns them.
    assert picture.size == (8, 6) and ImageOps.exif_transpose(picture).size == (6, 8)
    assert picture.getexif().get_ifd(IFD.GPSInfo)[GPS.GPSLatitude] == (47.0, 22.5, 3.25)


@pytest.mark.parametrize("format_", [*BLOCKS, "TIFF", a_part])
@pytest.mark.parametrize("names", [(), (EXIF,), (PROFILE,), (XMP,), (EXIF, XMP), (PROFILE, XMP)])
def test_what_is_not_there_is_not_made_up(format_, names):
    metadata = {name: METADATA[name] for name in names}
    assert read_metadata(opened(saved(PICTURE, format_, metadata))).keys() == metadata.keys()


@settings(max_examples=40)
@given(
    format_=st.sampled_from([*BLOCKS, "TIFF"]),
    profile=st.binary(min_size=1, max_size=400),
    xmp=st.binary(min_size=1, max_size=400).filter(lambda xmp: b"tiff:Orientation" not in xmp),
    orientation=st.integers(1, 8),
)
def test_blocks_may_hold_any_bytes(format_, profile, xmp, orientation):
    """Also what is not text, and zeros at both ends."""
    metadata = {EXIF: exif_block(orientation), PROFILE: profile, XMP: xmp}
    found = read_metadata(opened(saved(PICTURE, format_, metadata)))
    assert (found[PROFILE], found[XMP]) == (profile, xmp)
    if format_ != "TIFF":
        assert found[EXIF] == metadata[EXIF]


@pytest.mark.parametrize("format_", BLOCKS)
def test_large_blocks(format_):
    """JPEG has segments of 64 KiB: a profile is cut into several, the others have to fit in one."""
    metadata = {EXIF: exif_block() + bytes(60_000), PROFILE: bytes(range(250)) * 800,
                XMP: b"<x/>" + b" " * 65_000}  # fmt: skip
    assert read_metadata(opened(saved(PICTURE, format_, metadata))) == metadata


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("format_", [*BLOCKS, "TIFF", a_part])
@pytest.mark.parametrize("broken", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01", b"Exif\0\0"])
def test_a_broken_exif_does_not_cost_the_photo(format_, broken):
    data = saved(PICTURE, format_, {**METADATA, EXIF: broken})
    picture = opened(data)
    found = read_metadata(picture)
    assert (found[PROFILE], found[XMP]) == (METADATA[PROFILE], METADATA[XMP])
    assert picture.size == (8, 6)
    if format_ in BLOCKS and len(broken) > 6:
        assert found[EXIF] == broken


# --- TIFF and AVIF ---


@pytest.mark.parametrize("format_", ["TIFF", a_part])
def test_exif_that_is_taken_apart_says_the_same_afterwards(format_):
    metadata = {**METADATA, EXIF: exif_block(orientation=1)}
    picture = opened(saved(PICTURE, format_, metadata))
    found = read_metadata(picture)
    assert picture.size == (8, 6)
    assert (found[PROFILE], found[XMP]) == (METADATA[PROFILE], METADATA[XMP])
    tags, parts = values(found[EXIF])
    before, before_parts = values(metadata[EXIF])
    assert parts == before_parts and parts[IFD.GPSInfo]
    assert tags[Base.Make] == before[Base.Make] == "Maker"
    # From here on nothing changes any more.
    assert read_metadata(opened(saved(PICTURE, format_, found))) == found


def test_the_size_in_exif_is_not_that_of_a_tiff():
    """Pillow would believe it, and write a file that nobody can read."""
    picture = opened(saved(PICTURE, "TIFF", METADATA))
    picture.load()
    assert values(read_metadata(picture)[EXIF])[0].keys() == {Base.Make}
    np.testing.assert_array_equal(picture, np.rot90(PICTURE, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", [*BLOCKS, "TIFF", a_part])
def test_a_picture_is_upright_wherever_it_passes(format_, orientation):
    """Pillow turns TIFF while it reads, all others are turned by whoever looks at them."""
    upright = ImageOps.exif_transpose(opened(saved(PICTURE, "PNG", {EXIF: exif_block(orientation)})))
    first = opened(saved(PICTURE, format_, {EXIF: exif_block(orientation)}))
    metadata = read_metadata(first)
    second = opened(saved(Image.fromarray(np.asarray(first)), "PNG", metadata))
    assert ImageOps.exif_transpose(second).size == upright.size
    if format_ in ("PNG", "TIFF"):
        np.testing.assert_array_equal(ImageOps.exif_transpose(second), upright)


def test_a_tiff_holds_no_places_in_another_file():
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif).update({Base.ExposureTime: 0.5, IFD.Interop: {1: "R98"}})
    assert IFD.Interop in values(exif.tobytes())[1][IFD.Exif]
    by_pillow = io.BytesIO()
    PICTURE.save(by_pillow, "TIFF", exif=exif.tobytes())
    for data in (saved(PICTURE, "TIFF", {EXIF: exif.tobytes()}), by_pillow.getvalue()):
        assert values(read_metadata(opened(data))[EXIF])[1][IFD.Exif] == {Base.ExposureTime: 0.5}


def test_a_tiff_says_nothing_of_how_it_is_stored():
    file = io.BytesIO()
    PICTURE.save(file, "TIFF", compression="tiff_lzw")
    assert read_metadata(opened(file.getvalue())) == {}
    file = io.BytesIO()
    PICTURE.save(file, "TIFF", compression="tiff_lzw", software="a scanner", dpi=(300, 300))
    tags, parts = values(read_metadata(opened(file.getvalue()))[EXIF])
    assert tags == {Base.Software: "a scanner", Base.XResolution: 300, Base.YResolution: 300, Base.ResolutionUnit: 2}
    assert not any(parts.values())


# --- Other places ---


def test_formats_without_a_place_for_them():
    for format_ in ("BMP", "PPM"):
        assert read_metadata(opened(saved(PICTURE, format_, METADATA))) == {}


def test_a_picture_that_is_no_file_has_none():
    assert read_metadata(PICTURE) == {}


def test_blocks_behind_the_pixels_of_a_png():
    data = saved(PICTURE, "PNG", {EXIF: METADATA[EXIF]})
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    last = data.rindex(b"IEND") - 4
    moved = data[:at] + data[end:last] + data[at:end] + data[last:]
    assert "exif" not in opened(moved).info
    assert read_metadata(opened(moved)) == {EXIF: METADATA[EXIF]}


def test_exif_as_a_text_in_a_png():
    """Before PNG had a chunk for it, ImageMagick wrote it so."""
    block = METADATA[EXIF]
    digits = "\n".join(block.hex()[at : at + 72] for at in range(0, 2 * len(block), 72))
    for text, expected in [(f"\nexif\n{len(block):8}\n{digits}\n", {EXIF: block}), ("\nexif\n 3\nxyz", {}), ("", {})]:
        info = PngImagePlugin.PngInfo()
        info.add_text("Raw profile type exif", text, zip=True)
        file = io.BytesIO()
        PICTURE.save(file, "PNG", pnginfo=info)
        assert read_metadata(opened(file.getvalue())) == expected


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("L", True), ("1", True), ("RGB", True), ("RGBA", True), ("P", True), ("CMYK", False), ("LAB", False)],
)
def test_a_profile_is_kept_where_colours_are(mode, kept):
    """CMYK is coded as RGB: its profile would now speak of other numbers."""
    picture = PICTURE.convert("RGB").convert(mode) if mode != "LAB" else Image.new("LAB", (8, 6))
    file = io.BytesIO()
    picture.save(file, "TIFF", icc_profile=METADATA[PROFILE])
    assert read_metadata(opened(file.getvalue())) == ({PROFILE: METADATA[PROFILE]} if kept else {})


def test_the_profile_of_grey_with_alpha_is_not_one_of_rgb():
    for picture, options in [(PICTURE.convert("LA"), {}), (PICTURE.convert("L"), {"transparency": 3})]:
        file = io.BytesIO()
        picture.save(file, "PNG", icc_profile=METADATA[PROFILE], **options)
        assert read_metadata(opened(file.getvalue())) == {}
