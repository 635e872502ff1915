"""Photos in, batches out: the wing that knows files, folders and datasets, and nothing of models.

    pack(folder, out)       a large set as tiles in ArrayRecord files, for photos(out, split)
    photos(name, split) --> Photos --> batches(...)          float32 (B, P, P, 3) in [0, 1], endless, resumable
                                   `-> validation_crops(...) float32 (N, P, P, 3) in [0, 1], always the same

Heavy libraries (grain, ArrayRecord, scikit-image, TensorFlow Datasets) are imported by the first call that needs them.
"""

from nlvc.data.decode import SUFFIXES, UnreadablePhotoError, open_picture, to_rgb
from nlvc.data.metadata import read_metadata, save_options
from nlvc.data.packed import DamagedPackError, PackedPhotos
from nlvc.data.packing import pack
from nlvc.data.pipeline import batches, validation_crops
from nlvc.data.sources import Photos, photos
from nlvc.data.splits import SPLITS

__all__ = [
    "SPLITS",
    "SUFFIXES",
    "DamagedPackError",
    "PackedPhotos",
    "Photos",
    "UnreadablePhotoError",
    "batches",
    "open_picture",
    "pack",
    "photos",
    "read_metadata",
    "save_options",
    "to_rgb",
    "validation_crops",
]
