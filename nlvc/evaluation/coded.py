"""Photos coded for real: files on disk, decoded again, and what that cost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nlvc.evaluation.metrics import bits_per_pixel, ms_ssim, psnr
from nlvc.evaluation.report import Row, save_picture
from nlvc.files import remove_leftovers, write_whole
from nlvc.image_codec import Model, analyse, decompress


class RoundTripError(RuntimeError):
    """A file did not decode to the encoder's own reconstruction."""


def code_photos(
    model: Model, photos: Iterable[np.ndarray], names: Sequence[str], folder: Path, picture: Path | None = None
) -> list[Row]:
    """Writes FOLDER/NAME.nlvc for each uint8 photo (H, W, 3), decodes it again, and measures.

    picture: where to save original | reconstruction | bits per level of the first photo. Raises RoundTripError if a
    file does not decode to exactly the encoder's reconstruction.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    rows, count = [], Counter(Path(name).stem for name in names)
    for photo, name in zip(photos, names, strict=True):
        # Photos of one name in several folders, or with several suffixes, must not share a file.
        stem = Path(name).stem if count[Path(name).stem] == 1 else name.replace("/", "-")
        coded = analyse(photo, model=model)
        path = folder / f"{stem}.nlvc"
        write_whole(path, coded.data)
        if not np.array_equal(decompress(path.read_bytes(), model=model), coded.reconstruction):
            raise RoundTripError(f"{path} does not decode to what was encoded; please report it")
        height, width = photo.shape[:2]
        pixels = height * width
        rows.append(
            Row(
                stem, width, height, len(coded.data), bits_per_pixel(len(coded.data), height, width),
                float(sum(bits.sum() for bits in coded.level_bits)) / pixels, psnr(photo, coded.reconstruction),
                ms_ssim(photo, coded.reconstruction), tuple(float(bits.sum()) / pixels for bits in coded.level_bits),
            )  # fmt: skip
        )
        if picture and len(rows) == 1:
            config = model.config
            title = f"{stem}: L={config.L}, {config.prior} prior, {rows[0].bpp:.3f} bpp, {rows[0].psnr:.2f} dB"
            strides = np.cumprod(config.level_strides)
            save_picture(picture, photo, coded.reconstruction, coded.level_bits, title, strides.tolist())
    return rows
