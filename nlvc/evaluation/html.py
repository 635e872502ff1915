"""One HTML file that holds a whole evaluation: nothing in it comes from anywhere else."""

import base64
import platform
from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np

from nlvc import __version__
from nlvc.evaluation.comparisons import Comparison, SetResults, compare, estimate, means_table, number
from nlvc.evaluation.crops import SIDE, Showcase
from nlvc.evaluation.trip import Codec

STYLE = """
:root { color-scheme: light dark; --ink: #1c1d21; --paper: #fdfdfc; --faint: #6b6e76; --rule: #d9dade; --mark: #eef3fb;
  --good: #17794a; --bad: #b0322b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7ea; --paper: #17181b; --faint: #9a9ea8; --rule: #35373d;
  --mark: #222a38; --good: #5fce95; --bad: #f08a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.5rem 5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; }
h1 { font-size: 1.8rem; margin: 0 0 .3rem; } h2 { margin: 3.5rem 0 .8rem; padding-top: .8rem;
  border-top: 2px solid var(--ink); } h3 { margin: 2.2rem 0 .5rem; }
p, li, figcaption, caption { max-width: 56rem; } .faint, figcaption, caption { color: var(--faint); }
.wide { overflow-x: auto; } svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } caption { text-align: left; padding: .3rem 0; }
th, td { padding: .22rem .8rem .22rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; } th:first-child, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; } tr.model { background: var(--mark); }
.good { color: var(--good); } .bad { color: var(--bad); } small { color: var(--faint); font-size: .82em; }
summary { cursor: pointer; font-weight: 600; padding: .5rem 0; } nav a { margin-right: 1.2rem; } a { color: inherit; }
.crops { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; margin: .5rem 0 2rem; }
figure { margin: 0; } .crops img { width: 100%; image-rendering: pixelated; display: block; border-radius: 3px; }
.crops .model figcaption b { border-bottom: 3px solid currentColor; } figcaption b { color: var(--ink); }
.bar { display: flex; width: 22rem; height: 1rem; border-radius: 2px; overflow: hidden; }
.bar i:nth-child(6n+1) { background: #4f7fd6; } .bar i:nth-child(6n+2) { background: #e39a35; }
.bar i:nth-child(6n+3) { background: #c84e6a; } .bar i:nth-child(6n+4) { background: #7a5cc2; }
.bar i:nth-child(6n+5) { background: #2f9c83; } .bar i:nth-child(6n) { background: #8a8d94; }
"""


def report(
    found: Sequence[SetResults],
    codecs: Sequence[Codec],
    plots: Mapping[str, str],
    showcases: Sequence[Showcase],
    notes: Sequence[str],
    cores: int,
) -> str:
    """The page.

    Args:
      found: what was found on each set.
      codecs: all that took part.
      plots: SVG to stand inside a page, by set; may lack sets.
      showcases: of any of the sets.
      notes: lines on what failed or was left out.
      cores: processors that this process may use.
    """
    sets = [(f"set-{index}", results) for index, results in enumerate(found)]
    links = [f'<a href="#{anchor}">{escape(results.name)}</a>' for anchor, results in sets]
    body = [
        "<header><h1>Rate and distortion</h1>",
        f'<p class="faint">nlvc {escape(__version__)}, Python {platform.python_version()}, {cores} cores, '
        f"{escape(platform.platform())}</p>",
        f'<nav>{"".join(links)}<a href="#codecs">codecs</a><a href="#how">how it was measured</a></nav></header>',
    ]
    if notes:
        lines = "".join(f"<li>{escape(line)}</li>" for line in notes)
        body.append(f'<section><h3 class="bad">What is missing</h3><ul>{lines}</ul></section>')
    for anchor, results in sets:
        own = [showcase for showcase in showcases if showcase.set == results.name]
        body += _set(anchor, results, plots.get(results.name), own)
    body += _codecs(codecs, found)
    body.append(_HOW)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>nlvc: rate and distortion</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


_HOW = """<section><h2 id="how">How it was measured</h2>
<p>Every point is a file that was written and decoded again. bpp is 8 times the bytes of the whole file, divided by its
pixels. PSNR is taken on 8-bit RGB for each photo and then averaged; MS-SSIM likewise, without photos under 161 pixels,
and drawn as &minus;10 log<sub>10</sub>(1 &minus; MS-SSIM).</p>
<p>BD-rate is the mean difference in rate at equal PSNR, over the range that both curves have (PCHIP over the logarithm
of the rate); negative: the model needs less. That of the mean curves is what the field reports; the mean of the
photos' own counts every photo alike. Intervals of 95 % are from a paired bootstrap over the photos; few photos make
them too narrow. Published curves have no photos of their own: they compare with the very set that they are of, all
of it, and may be of other roundings and means. See their notes.</p>
<p>Times are wall seconds from pixels to bytes and back, one photo at a time. A model's first photo of a size is coded
once beforehand, so that compiling does not count. Models use all cores, or the GPU, where there is one; the file
codecs use one thread. Codecs that are commands pay for their start and for reading and writing PNG.</p>
<p>Every codec works in a process of its own. Its memory is the largest resident one of that process so far, in the
order in which photos were measured: Python and the libraries are in it (some 40 MiB for a file codec, JAX and compiling
for a model), but not the measures; of commands only our side is in it, and of a model on a GPU only what the host
holds.</p></section>"""


def _set(anchor: str, found: SetResults, plot: str | None, showcases: Sequence[Showcase]) -> Iterator[str]:
    yield f'<section><h2 id="{anchor}">{escape(found.name)}: {found.photos} photos</h2>'
    if plot:
        yield f'<figure class="wide" role="img" aria-label="rate-distortion curves">{plot}</figure>'
    if comparisons := compare(found):
        yield from _rates(found, comparisons)
    if showcases:
        yield f"<h3>Side by side</h3><p class='faint'>The most detailed {SIDE} pixels of a photo, from files of about "
        yield "one rate; the captions are of the whole photo.</p>"
        for showcase in showcases:
            yield from _showcase(showcase, found)
    yield from _costs(found)
    yield from _levels(found)
    yield "<details><summary>Means at every setting</summary><div class='wide'>"
    heads, *rows = means_table(found)
    yield _table(heads, [(row[0] in found.models, list(map(escape, row))) for row in rows])
    yield "</div></details></section>"


def _rates(found: SetResults, comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield "<h3>BD-rate</h3><div class='wide'>"
    rows = []
    for each in comparisons:
        anchor = escape(each.anchor) + (" <small>published</small>" if each.published else "")
        photos = f"{each.photos}" + (f" <small>{each.apart} apart</small>" if each.apart else "")
        of_means = f"<small>{escape(each.why)}</small>" if each.why else _coloured(each.of_means)
        rows.append((False, [escape(each.model), anchor, of_means, _coloured(each.mean), photos]))
    caption = "In per cent; negative: the model needs less than what it stands against. In brackets 95 % intervals."
    yield _table(["model", "against", "of the mean curves", "mean of the photos'", "photos"], rows, caption) + "</div>"


def _coloured(found) -> str:
    text = estimate(found)
    if text == "-":
        return text
    figure, _, interval = text.partition(" [")
    kind = "good" if found.value < 0 else "bad"
    return f'<span class="{kind}">{figure}</span>' + (f" <small>[{interval}</small>" if interval else "")


def _showcase(showcase: Showcase, found: SetResults) -> Iterator[str]:
    yield f"<h4>{escape(showcase.photo)}</h4><div class='crops'>"
    yield _figure(showcase.original, "original", "")
    for crop in showcase.crops:
        setting = "" if np.isnan(crop.point.setting) else f", setting {crop.point.setting:g}"
        caption = f"{crop.point.bpp:.3f} bpp, {crop.point.psnr:.2f} dB{setting}"
        yield _figure(crop.png, crop.codec, caption, crop.codec in found.models)
    yield "</div>"


def _figure(png: bytes, name: str, caption: str, model: bool = False) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    kind = ' class="model"' if model else ""
    return (f'<figure{kind}><img alt="{escape(name)}" src="{source}"><figcaption><b>{escape(name)}</b> {caption}'
            "</figcaption></figure>")  # fmt: skip


def _costs(found: SetResults) -> Iterator[str]:
    rows = []
    for codec in (*found.models, *found.rivals):
        means = found.means[codec]
        row = [escape(codec)]
        for seconds in (means.encode_s, means.decode_s):
            row += [f"{seconds[0]:.3f}", f"{seconds[-1]:.3f}", f"{seconds.mean():.3f}"]
        peak = found.curves[codec].peak_mib
        rows.append((codec in found.models, [*row, number(np.nan if np.isnan(peak).all() else np.nanmax(peak), 0)]))
    heads = ["codec"]
    heads += [f"{verb} s, {which}" for verb in ("encode", "decode") for which in ("lowest rate", "highest", "mean")]
    yield "<h3>Time and memory</h3><div class='wide'>"
    yield _table([*heads, "peak MiB"], rows, "Mean seconds a photo; the largest memory of all photos and settings.")
    yield "</div>"


def _levels(found: SetResults) -> Iterator[str]:
    rows = []
    for model in found.models:
        means = found.means[model]
        for setting, bpp, levels in zip(means.settings, means.bpp, means.level_bpp, strict=True):
            shares = [*(levels / bpp), 1 - levels.sum() / bpp]
            parts = "".join(f'<i style="width:{100 * share:.2f}%"></i>' for share in shares)
            text = ", ".join(f"z_{level} {share:.1%}" for level, share in enumerate(shares[:-1], start=1))
            cells = [escape(model), "" if np.isnan(setting) else f"{setting:g}", f"{bpp:.4f}"]
            rows.append((False, [*cells, f'<div class="bar">{parts}</div>', f"{text}, rest {shares[-1]:.1%}"]))
    if rows:
        yield "<h3>Bits per level</h3><div class='wide'>"
        yield _table(["model", "setting", "bpp", "from z_1 on", "shares"], rows, "The rest is headers and checksums.")
        yield "</div>"


def _codecs(codecs: Sequence[Codec], found: Sequence[SetResults]) -> Iterator[str]:
    yield '<section><h2 id="codecs">Codecs</h2><div class="wide">'
    rows = [(bool(codec.levels), codec.name, codec.note) for codec in codecs]
    for results in found:
        for name, curve in results.published.items():
            note = "; ".join(filter(None, ["published: " + (curve.source or "source unknown"), curve.note]))
            rows.append((False, name, note))
    lines = "".join(
        f'<tr{_kind(model)}><th scope="row">{escape(name)}</th><td class="text">{escape(note)}</td></tr>'
        for model, name, note in rows
    )
    yield f"<table>{lines}</table></div></section>"


def _table(heads: Sequence[str], rows: Sequence[tuple[bool, list[str]]], caption: str = "") -> str:
    """rows: (whether it is of a model, cells as HTML)."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr{_kind(model)}><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for model, (first, *cells) in rows
    )
    above = f"<caption>{caption}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _kind(model: bool) -> str:
    return ' class="model"' if model else ""
