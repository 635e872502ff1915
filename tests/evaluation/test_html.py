"""Curves compared, drawn, and put on one page that needs nothing else."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from nlvc.evaluation import plots
from nlvc.evaluation.comparisons import aligned, compare, decibels, means_table, rates_table, set_results
from nlvc.evaluation.crops import Crop, Showcase
from nlvc.evaluation.html import report
from nlvc.evaluation.points import Point
from nlvc.evaluation.published import read_published
from nlvc.evaluation.trip import Codec

PHOTOS = 4


def curve(codec, cheaper=1.0, levels=(), photos=PHOTOS):
    """Points of a made-up codec, which needs that share of the rate."""
    points = []
    for photo in range(photos):
        for setting, bpp in enumerate((0.2, 0.4, 0.8, 1.6)):
            bpp *= cheaper * (1 + 0.1 * photo)
            rate = tuple(bpp * share for share in levels)
            psnr = 30 + 5 * math.log2(bpp / cheaper / 0.2)
            similarity = 1 - 0.05 / (1 + setting)
            points.append(Point("kodak", f"{photo}.png", 64, 64, codec, setting, int(512 * bpp), bpp, psnr, similarity,
                                0.1, 0.2, 50.0, rate))  # fmt: skip
    return points


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "kodak.json"
    curves = {
        "vtm": {"bpp": [1.6, 0.2, 0.4], "psnr": [45, 30, 35], "ms_ssim": [0.99, 0.9, 0.95], "source": "<them>"},
        "far": {"bpp": [0.1, 0.2], "psnr": [5, 7]},
    }
    path.write_text(json.dumps(curves))
    return path


@pytest.fixture
def found(published):
    points = [*curve("ours", 0.8, levels=(0.7, 0.2)), *curve("jpeg"), *curve("webp", 0.9, photos=3)]
    return set_results("kodak", PHOTOS, ["ours"], ["jpeg", "webp", "gone"], points, read_published(published))


def test_curves_and_what_they_lack(found):
    assert (found.models, found.rivals) == (("ours",), ("jpeg", "webp"))
    assert found.lacking == ("the curve of webp on kodak lacks 1 of 4 photos", "gone has coded no photo of kodak")
    assert len(found.means["ours"].settings) == 4


def test_comparisons(found):
    by_anchor = {each.anchor: each for each in compare(found)}
    assert list(by_anchor) == ["jpeg", "webp", "vtm", "far"]
    assert by_anchor["jpeg"].of_means.value == pytest.approx(-20, abs=0.5)
    assert by_anchor["jpeg"].mean.value == pytest.approx(-20) and by_anchor["jpeg"].photos == 4
    assert by_anchor["webp"].photos == 3 and by_anchor["webp"].mean.value == pytest.approx(100 * (8 / 9 - 1))
    assert by_anchor["vtm"].published and by_anchor["vtm"].mean is None and math.isnan(by_anchor["vtm"].of_means.low)
    assert "share 0.00 dB" in by_anchor["far"].why
    text = aligned(rates_table(compare(found)), left=2)
    assert "vtm (published)" in text and "-20.0 %" in text and len(text.splitlines()) == 6
    assert re.search(r"^ours +3 +1\.\d{4}", aligned(means_table(found)), re.MULTILINE)


def test_models_are_compared_with_each_other():
    points = [*curve("ours"), *curve("theirs", 2)]
    found = set_results("kodak", PHOTOS, ["ours", "theirs"], [], points, {})
    assert [(each.model, each.anchor) for each in compare(found)] == [("ours", "theirs"), ("theirs", "ours")]


def test_decibels():
    np.testing.assert_allclose(decibels(np.array([0.9, 0.99, 1])), [10, 20, math.inf])


def test_published_curves(published):
    curves = read_published(published, ["vtm"])
    assert list(curves) == ["vtm"] and curves["vtm"].bpp.tolist() == [0.2, 0.4, 1.6]
    assert curves["vtm"].psnr.tolist() == [30, 35, 45] and curves["vtm"].ms_ssim.tolist() == [0.9, 0.95, 0.99]
    with pytest.raises(ValueError, match=r"kodak\.json: no curve 'vvc': there are vtm, far"):
        read_published(published, ["vvc"])
    for text in ("[]", "{", '{"a": {"bpp": [1, 2], "psnr": [3]}}', '{"a": {"psnr": [3]}}', '{"a": 1}'):
        published.write_text(text)
        with pytest.raises(ValueError, match=r"^\S*kodak\.json: "):
            read_published(published)


class References(HTMLParser):
    """Everything that a page asks for from elsewhere, and its open tags."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name.split(":")[-1] in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(found, tmp_path):
    pytest.importorskip("matplotlib")
    svg = plots.save_curves(found, tmp_path)
    assert {path.name for path in tmp_path.glob("rd-*")} == {"rd-kodak.png", "rd-kodak.svg"}
    crops = Showcase("kodak", "0.png", b"PNG", (Crop("ours", b"PNG", curve("ours")[1]),))
    codec = Codec("ours", (0,), None, None, "a <note>", levels=len)
    page = report([found], [codec], {"kodak": plots.inline(svg)}, [crops], ["<gone> failed"], 2)
    parser = References()
    parser.feed(page)
    parser.close()
    assert parser.open == [] and parser.found
    assert all(reference.startswith(("#", "data:")) for reference in parser.found), parser.found
    assert "http" not in page and "@import" not in page
    assert not set(re.findall(r"url\((.)", page)) - {"#"}
    assert "a &lt;note&gt;" in page and "&lt;gone&gt; failed" in page and "&lt;them&gt;" in page
    assert "0.400 bpp" in page or "0.320 bpp" in page
    assert all(f">{name}<" in svg for name in ("ours", "jpeg", "webp", "vtm"))


def test_what_is_drawn(found):
    lines = {line.name: line for line in plots.lines(found, "ms_ssim")}
    assert list(lines) == ["vtm", "jpeg", "webp", "ours"]  # far has none
    assert lines["vtm"].y[0] == pytest.approx(10) and lines["ours"].kind == "model"


def test_photos_too_small_for_ms_ssim(tmp_path):
    pytest.importorskip("matplotlib")
    points = [point._replace(ms_ssim=math.nan, peak_mib=math.nan) for point in curve("ours")]
    found = set_results("small", PHOTOS, ["ours"], [], points, {})
    assert "no photo is large enough" in plots.save_curves(found, tmp_path)
    assert "-</td>" in report([found], [], {}, [], [], 1)
