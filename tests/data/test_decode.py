import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from nlvc.data import UnreadablePhotoError
from nlvc.data.decode import decode, size, to_rgb

# Three rows, two columns, all six pixels and all eighteen samples different.
RGB = np.arange(18, dtype=np.uint8).reshape(3, 2, 3) * 13


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width, height, depth, colour_type, rows):
    """A PNG by hand, for what Pillow cannot write; `rows` are the bytes of each row."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def grey_as_rgb(grey):
    return np.stack([grey] * 3, axis=-1)


@pytest.mark.parametrize("format, options", [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_pixels_back(format, options):
    photo = decode(encode(Image.fromarray(RGB), format, **options))
    assert photo.dtype == np.uint8
    np.testing.assert_array_equal(photo, RGB)


@pytest.mark.parametrize("format", ["JPEG", "AVIF", "WEBP"])
def test_lossy_formats_come_close(format):
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (64, 48, 3))
    photo = decode(encode(Image.fromarray(ramp), format, quality=95))
    assert photo.shape == (64, 48, 3)
    assert np.abs(photo.astype(int) - ramp).max() <= 8


def test_a_path_bytes_and_an_open_file_are_the_same_photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(Image.fromarray(RGB)))
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), file):
            np.testing.assert_array_equal(decode(source), RGB)
    assert size(path) == (3, 2)


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encode(Image.fromarray(RGB), exif=exif)), UPRIGHT[orientation](RGB))


@pytest.mark.parametrize("block", [b"Exif\0\0garbage!!", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"])
def test_a_broken_exif_block_does_not_cost_the_photo(block):
    np.testing.assert_array_equal(decode(encode(Image.fromarray(RGB), exif=block)), RGB)


def test_converting_leaves_the_callers_image_alone():
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(to_rgb(image), np.rot90(RGB, -1))
    np.testing.assert_array_equal(np.asarray(image), RGB)


def test_grey_and_bilevel_become_three_equal_channels():
    grey = RGB[:, :, 0]
    np.testing.assert_array_equal(decode(encode(Image.fromarray(grey))), grey_as_rgb(grey))
    bits = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(decode(encode(Image.fromarray(bits))), grey_as_rgb(bits * np.uint8(255)))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_of_16_bit_grey_the_upper_8_bits_are_taken(format):
    grey = np.array([[0, 255, 256], [511, 32768, 65535]], dtype=np.uint16)
    photo = decode(encode(Image.fromarray(grey), format))
    np.testing.assert_array_equal(photo, grey_as_rgb(np.array([[0, 0, 1], [1, 128, 255]], dtype=np.uint8)))


def test_of_16_bit_colour_the_upper_8_bits_are_taken():
    colour = np.array([[[0, 255, 256], [511, 32768, 65535]]], dtype=">u2")
    photo = decode(png(2, 1, 16, 2, [row.tobytes() for row in colour]))
    np.testing.assert_array_equal(photo, [[[0, 0, 1], [1, 128, 255]]])


def test_32_bit_samples_pass_only_while_their_range_is_16_bits():
    fits = np.array([[0, 256, 65535]], dtype=np.int32)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(fits), "TIFF"))[0, :, 0], [0, 1, 255])
    for value in (-1, 65536):
        data = encode(Image.fromarray(np.full((1, 1), value, dtype=np.int32)), "TIFF")
        with pytest.raises(UnreadablePhotoError, match="32-bit samples"):
            decode(data)


def test_floating_point_samples_are_refused():
    with pytest.raises(UnreadablePhotoError, match="floating-point"):
        decode(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


def test_palette():
    image = Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8), "L")
    image.putpalette([10, 20, 30, 200, 100, 50])
    np.testing.assert_array_equal(decode(encode(image)), [[[10, 20, 30], [200, 100, 50], [200, 100, 50]]])


def test_alpha_is_laid_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    np.testing.assert_array_equal(decode(encode(Image.fromarray(rgba))), expected)


def test_every_other_kind_of_transparency_is_laid_over_white():
    grey_alpha = Image.fromarray(np.array([[[7, 255], [7, 0]]], dtype=np.uint8), "LA")
    np.testing.assert_array_equal(decode(encode(grey_alpha)), [[[7] * 3, [255] * 3]])
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "L")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    np.testing.assert_array_equal(decode(encode(palette, transparency=1)), [[[10, 20, 30], [255] * 3]])
    key_colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    np.testing.assert_array_equal(decode(encode(key_colour, transparency=(4, 5, 6))), [[[1, 2, 3], [255] * 3]])


def test_cmyk():
    cmyk = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    photo = to_rgb(Image.fromarray(cmyk, "CMYK"))
    np.testing.assert_array_equal(photo, [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]])


def test_the_first_of_several_pages_is_taken():
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    np.testing.assert_array_equal(decode(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])), RGB)


def corrupt_png():
    data = bytearray(encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def truncated_jpeg():
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "data", [corrupt_png(), truncated_jpeg(), b"", b"not a picture", encode(Image.fromarray(RGB))[:20]]
)
def test_broken_data_gives_one_clear_line(data):
    with pytest.raises(UnreadablePhotoError, match=r"^[^\n]{5,}$"):
        decode(data)


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadablePhotoError, match="No such file"):
        decode(tmp_path / "missing.png")


def test_pillows_own_size_limit_does_not_apply_and_stays_as_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(RGB))), RGB)
    with pytest.raises(UnreadablePhotoError):
        decode(b"not a picture")
    assert Image.MAX_IMAGE_PIXELS == 2


def test_200_megapixels_pass_and_one_row_more_does_not():
    assert size(png(20000, 10000, 8, 2, [])) == (10000, 20000)
    for reader in (size, decode):
        with pytest.raises(UnreadablePhotoError, match="20000 x 10001 is 200.02 megapixels; the limit is 200"):
            reader(png(20000, 10001, 8, 2, []))
