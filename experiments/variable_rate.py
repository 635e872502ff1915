"""Real files of a model of variable rate at several qualities, beside models of one rate and curves of other codecs.

    python experiments/variable_rate.py --photos KODAK [--model MODEL] [--twins MODEL ...] [--out FILE]
                                        [--curves FILE.json NAME ...]

Without --model the one that comes with nlvc. bpp counts every byte of the files; PSNR is taken on 8-bit RGB, photo by
photo, and both are averaged over the photos. Curves are JSON, {name: {"bpp": [...], "psnr": [...]}}, averages over the
same photos; each is compared by its BD-rate (PCHIP, on the common range of PSNR; negative: the model needs less).
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import nlvc
from nlvc import data, zoo
from nlvc.coding import unpack
from nlvc.evaluation import bd_rate, bits_per_pixel, psnr
from nlvc.image_codec import Model

QUALITIES = (0, 14, 29, 43, 57, 71, 86, 100)


def point(photo: np.ndarray, model: Model, quality: int | None) -> tuple[float, float, list[float]]:
    """(bpp, PSNR, bpp of z_1, z_2, ...) of one real file."""
    file = nlvc.compress(photo, model=model, quality=quality)
    levels = [bits_per_pixel(sum(sizes), *photo.shape[:2]) for sizes in unpack(file).sizes]
    return bits_per_pixel(len(file), *photo.shape[:2]), psnr(photo, nlvc.decompress(file, model=model)), levels


def measured(photos: list[np.ndarray], models: list[tuple[Model, int | None]]) -> dict[str, list]:
    """The curve of some models at some qualities, a point each, printed and rounded."""
    jobs = [(photo, *which) for which in models for photo in photos]
    with ThreadPoolExecutor(2) as pool:
        points = list(tqdm(pool.map(lambda job: point(*job), jobs), total=len(jobs)))
    curve = {"quality": [quality for _, quality in models], "bpp": [], "psnr": [], "bpp_levels": []}
    print("quality     bpp    PSNR  bpp of z_1, z_2, ...")
    for number, (_, quality) in enumerate(models):
        rates, decibels, levels = zip(*points[number * len(photos) : (number + 1) * len(photos)], strict=True)
        mean = np.mean(levels, axis=0)
        shown = "-" if quality is None else quality
        print(f"{shown:>7} {np.mean(rates):7.4f} {np.mean(decibels):7.2f}  {' '.join(f'{v:.4f}' for v in mean)}")
        for name, value in (("bpp", rates), ("psnr", decibels)):
            curve[name].append(round(float(np.mean(value)), 4))
        curve["bpp_levels"].append(mean.round(4).tolist())
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=zoo.DEFAULT)
    parser.add_argument("--twins", type=Path, nargs="+", default=[], help="models of one rate each, lowest rate first")
    parser.add_argument("--curves", nargs="+", action="append", default=[], metavar=("FILE", "NAME"))
    parser.add_argument("--set", help="key of the curves within their files, if they are for several sets of photos")
    parser.add_argument("--out", type=Path, help="JSON of the points")
    arguments = parser.parse_args()
    model = nlvc.load(arguments.model)
    paths = sorted(path for path in arguments.photos.iterdir() if path.suffix.lower() in data.SUFFIXES)
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    print(f"{len(photos)} photos, model {model.fingerprint}")
    curve, differences = measured(photos, [(model, quality) for quality in QUALITIES]), {}
    others = {}
    if arguments.twins:
        print("models of one rate each")
        others["twins"] = curve["twins"] = measured(photos, [(nlvc.load(path), None) for path in arguments.twins])
    for file, *names in arguments.curves:
        known = json.loads(Path(file).read_text())
        others.update({name: (known[arguments.set] if arguments.set in known else known)[name] for name in names})
    for name, other in others.items():
        differences[name] = round(bd_rate(other["bpp"], other["psnr"], curve["bpp"], curve["psnr"]), 1)
        print(f"BD-rate against {name}: {differences[name]:+.1f} %")
    if arguments.out:
        arguments.out.write_text(json.dumps({**curve, "bd_rate": differences}, indent=1) + "\n")


if __name__ == "__main__":
    main()
