"""Where photos come from: scikit-image's wheel, a folder, a packed data set, or TensorFlow Datasets.

Every source is brought to the same form, a list of items to be read, which `Photos` decodes and keeps; only a packed
data set beyond memory is read piece by piece, by `PackedPhotos`.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np

from nlvc.data.collection import CACHE_BYTES, Item, Photos
from nlvc.data.decode import SUFFIXES, UnreadablePhotoError, decode, size
from nlvc.data.packed import INDEX, PackedPhotos, read_index
from nlvc.data.splits import SPLITS, names_of_split, pieces, split_part
from nlvc.folders import files_in

# The motorcycles are a stereo pair, so they stay together; the tests are two everyday photos.
EMBEDDED = {
    "train": ("astronaut.png", "motorcycle_left.png", "motorcycle_right.png", "ihc.png", "hubble_deep_field.jpg"),
    "validation": ("rocket.jpg", "retina.jpg"),
    "test": ("chelsea.png", "coffee.png"),
}


def photos(name: str | os.PathLike, split: str, *, cache_bytes: int = CACHE_BYTES) -> Photos | PackedPhotos:
    """The photos of `split` ("train", "validation", "test", or "all" for the three together) of the source `name`:

    "embedded"            nine colour photos from scikit-image's wheel, in a fixed split of 5, 2 and 2
    a folder              its pictures and those of its subfolders (PNG, JPEG, WebP, TIFF, AVIF, ...; hidden files and
                          other suffixes are not looked at). If it has two or three of the subfolders train,
                          validation, test, these are the splits, and "all" is every picture anyway. Otherwise a
                          picture's split follows from a hash of its path inside the folder, about 90 : 5 : 5, so that
                          it stays when other pictures come and go; of three or more pictures each split gets one
    what `nlvc pack` wrote  the same photos in the same splits as the folder that was packed. Beyond `cache_bytes` of
                          pixels they are `PackedPhotos`, which reads of a photo only what a crop touches
    "tfds:NAME[/CONFIG]"  the 'image' feature of that dataset, prepared first if need be, read without TensorFlow

    Where a source lacks a split, its share is cut from another: validation is the last 5 % of train, and a lone
    validation part serves as the test. Pictures that cannot be read are left out, logged, and listed in
    `Photos.skipped`. `cache_bytes` bounds the memory for decoded photos.

    Raises ValueError, one line, for an unknown name or split, too few pictures, or a dataset that cannot be opened.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)} and all")
    name = os.fspath(name)
    skipped: list[tuple[str, str]] = []
    if name == "embedded":
        items = _embedded(split)
    elif name.startswith("tfds:"):
        items = _tfds(name.removeprefix("tfds:"), split)
    elif os.path.isfile(os.path.join(name, INDEX)):
        return _packed(Path(name), split, cache_bytes)
    elif os.path.isdir(name):
        items, skipped = _folder(Path(name), split)
    else:
        raise ValueError(f"no photos called {name!r}: give 'embedded', an existing folder, or 'tfds:NAME'")
    return Photos(items, skipped=skipped, title=f"{name} ({split})", cache_bytes=cache_bytes)


def _embedded(split: str) -> list[Item]:
    from importlib import resources

    try:
        folder = resources.files("skimage") / "data"
    except ModuleNotFoundError as error:
        raise ValueError("the embedded photos are scikit-image's: pip install scikit-image") from error
    names = [name for part in SPLITS if split in (part, "all") for name in EMBEDDED[part]]
    return [Item(name, partial(_read_resource, folder / name)) for name in names]


def _read_resource(resource) -> np.ndarray:
    try:
        encoded = resource.read_bytes()
    except OSError as error:
        raise UnreadablePhotoError("missing from the installed scikit-image") from error
    return decode(encoded)


def _folder(root: Path, split: str) -> tuple[list[Item], list[tuple[str, str]]]:
    everything = pictures_in(root)
    items, skipped = [], []
    for name in names_of_split(everything, split, str(root)):
        try:
            items.append(Item(name, partial(decode, root / name), size(root / name)))
        except UnreadablePhotoError as error:
            skipped.append((name, str(error)))
    return items, skipped


def pictures_in(root: Path) -> list[str]:
    """The paths inside `root`, with slashes, of all files with a suffix of `SUFFIXES`, hidden ones left out.

    Raises ValueError if there are none.
    """
    found = [path.relative_to(root).as_posix() for path in files_in(root, SUFFIXES)]
    if not found:
        raise ValueError(f"no pictures in {root} (looked for {' '.join(sorted(SUFFIXES))})")
    return found


def _packed(root: Path, split: str, cache_bytes: int) -> Photos | PackedPhotos:
    index = read_index(root)
    chosen = set(names_of_split([*index.names, *(name for name, _ in index.skipped)], split, str(root)))
    skipped = [(name, reason) for name, reason in index.skipped if name in chosen]
    numbers = [number for number, name in enumerate(index.names) if name in chosen]
    packed = PackedPhotos(index, numbers, skipped=skipped, title=f"{root} ({split})")
    if 3 * packed.areas.sum() > cache_bytes:
        return packed
    sizes = map(tuple, packed.sizes.tolist())
    items = [Item(name, partial(packed.__getitem__, place), size)
             for place, (name, size) in enumerate(zip(packed.names, sizes, strict=True))]  # fmt: skip
    return Photos(items, skipped=skipped, title=f"{root} ({split})", cache_bytes=cache_bytes)


def _tfds(name: str, split: str) -> list[Item]:
    try:
        import tensorflow_datasets as tfds

        available = {part: len(source) for part, source in tfds.data_source(name).items()}
        available = {part: count for part, count in available.items() if count}
        if not available:
            raise ValueError("it is empty")
        if split == "all":
            part = "+".join(available)
        else:
            part, marks, piece = split_part(available, split)
            total = available[part]
            cut = pieces(total, [round(total * mark / 100) for mark in marks], f"tfds:{name}")[piece]
            part = f"{part}[{cut.start}:{cut.stop}]"
        source = tfds.data_source(name, split=part)
        features = source.dataset_info.features
        pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
        if "image" not in pictures:
            raise ValueError(f"it has no 'image' feature, only {', '.join(features)}")
        # We decode 'image' ourselves, by the one rule for all sources, and the others (masks, say) not at all.
        encoded = {key: tfds.decode.SkipDecoding() for key in pictures}
        source = tfds.data_source(name, split=part, decoders=encoded)
    except Exception as error:  # a builder may raise anything: no such name, no network, TensorFlow wanted, no licence
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"cannot open the TFDS dataset {name!r}: {reason}") from error
    return [Item(f"{part}#{index}", partial(_read_record, source, index)) for index in range(len(source))]


def _read_record(source, index: int) -> np.ndarray:
    return decode(source[index]["image"])
