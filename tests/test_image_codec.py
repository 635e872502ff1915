"""Photos to bytes and back: what is decoded is the encoder's own reconstruction, and costs what the tables say."""

import copy
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nlvc import coding, image_codec
from nlvc.data.planes import PictureError
from nlvc.image_codec import CodecError, analyse, compress, decompress, infer, metadata_of
from nlvc.image_codec.coder import encode, in_units
from nlvc.image_codec.freezing import scale_indices, top_codec_parameters
from nlvc.image_codec.model import MAX_SYMBOL
from nlvc.models import priors
from nlvc.models.factorized import Factorized, init_factorized
from nlvc.models.freeze import SCALE_STEP
from nlvc.models.frozen import LATENT_LIMIT, MEAN_UNITS, SCALE_UNITS
from nlvc.models.nested import SCALE_MIN, bounded

# Every L, prior, conditional, kind of dims, transform and nonlinearity at least once; `slow` has the whole product.
PLAIN = {"transform": "plain", "linear_path": False}
MODELS = {
    1: {"L": 1, "prior": "factorized"},
    2: {},
    3: {"L": 3, "prior": "trainable-logistic", "conditional": "logistic", "activation": "gdn", **PLAIN},
    4: {"L": 4, "prior": "laplace", "conditional": "laplace", "dims": "tapered", **PLAIN},
    5: {"L": 5, "prior": "gaussian", "conditional": "logistic", **PLAIN},
    6: {"L": 6, "prior": "factorized", "dims": "tapered", **PLAIN},
}
# The sizes of a row are continued to one size inside, 256 x 256 and so on: each model is compiled only once.
SMALL = [(1, 1, 3), (17, 33, 3), (64, 64), (33, 17, 4)]
WIDE = [(1, 300, 3), (40, 257), (64, 319, 4)]
HIGH = [(257, 64, 3), (300, 63), (320, 1, 4)]
SIZES = {1: SMALL, 2: SMALL, 3: HIGH, 4: SMALL, 5: WIDE, 6: SMALL}


def picture(*shape, seed=0):
    """Slopes and noise, uint8."""
    rng = np.random.default_rng(seed)
    slopes = sum(np.linspace(0, 100 * rng.random(), n).reshape(-1, *[1] * k) for k, n in enumerate(shape[::-1]))
    return np.clip(slopes + rng.normal(60, 40, shape), 0, 255).astype(np.uint8)


def check_round_trip(model, image):
    """What every coded picture must satisfy. Returns its `Coded`."""
    coded = analyse(image, model=model)
    assert compress(image, model=model) == coded.data
    decoded = decompress(coded.data, model=model)
    assert decoded.dtype == np.uint8
    assert decoded.shape == image.shape
    np.testing.assert_array_equal(decoded, coded.reconstruction)
    if image.shape[2:] == (4,):
        np.testing.assert_array_equal(decoded[:, :, 3], image[:, :, 3])

    file = coding.unpack(coded.data)
    header, (height, width) = file.header, image.shape[:2]
    assert (header.width, header.height) == (width, height)
    assert header.mode == {(): "L", (3,): "RGB", (4,): "RGBA"}[image.shape[2:]]
    assert header.fingerprint == model.fingerprint
    assert header.levels == len(coded.level_bits) == model.config.L
    assert header.tiles == (1, 1)
    assert file.chunks.keys() == ({coding.ALPHA} if image.shape[2:] == (4,) else set())

    total = math.prod(model.config.level_strides)
    continued = -(-height // total) * total, -(-width // total) * total
    assert tuple(bits.shape for bits in coded.level_bits) == model.config.level_shapes(*continued)
    for (size,), bits in zip(file.sizes, coded.level_bits, strict=True):
        assert bits.sum() / 8 <= size <= 1.001 * bits.sum() / 8 + 16
    return coded


@pytest.mark.parametrize("L", MODELS)
def test_every_kind_of_model(untrained, L):
    for seed, shape in enumerate(SIZES[L]):
        check_round_trip(untrained(**MODELS[L]), picture(*shape, seed=seed))


@pytest.mark.slow
@pytest.mark.parametrize("dims", ["common", "tapered"])
@pytest.mark.parametrize("conditional", ["gaussian", "logistic", "laplace"])
@pytest.mark.parametrize("prior", ["logistic", "gaussian", "laplace", "trainable-logistic", "factorized"])
@pytest.mark.parametrize("L", [1, 2, 3, 6])
def test_every_pair(untrained, L, prior, conditional, dims):
    model = untrained(L=L, prior=prior, conditional=conditional, dims=dims, **PLAIN)
    check_round_trip(model, picture(17, 33, 3))


@settings(max_examples=40)
@given(height=st.integers(1, 64), width=st.integers(1, 64), tail=st.sampled_from([(), (3,), (4,)]), data=st.data())
def test_any_small_picture(untrained, height, width, tail, data):
    shape = (height, width, *tail)
    if data.draw(st.booleans(), "flat"):
        image = np.full(shape, data.draw(st.integers(0, 255), "value"), np.uint8)
    else:
        image = np.random.default_rng(data.draw(st.integers(0, 99), "seed")).integers(0, 256, shape, np.uint8)
    check_round_trip(untrained(), image)


def disturbed(model, gains=(1, 1), indices=lambda indices: indices, means=lambda means: means):
    """The same networks with z_1 and z_2 times `gains`, and with other tables and means: nothing is compiled anew."""
    other = copy.copy(model)
    other._analyse = lambda pixels, inside: np.float32(gains[0]) * model._analyse(pixels, inside)
    other._analyse_level = lambda level, z: np.float32(gains[1]) * model._analyse_level(level, z)

    def parameters(level, above):
        mean, index = (np.asarray(part) for part in model._parameters(level, above))
        return means(mean), indices(index)

    other._parameters = parameters
    return other


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    exponents=st.tuples(st.floats(-3, 9), st.floats(-3, 9)),
    shift=st.integers(-63, 63),
    mean_gain=st.integers(-(2**14), 2**14),
)
def test_wild_models(untrained, seed, exponents, shift, mean_gain):
    """Latents far outside their tables and of what the networks take, means and scales far from the usual ones."""
    model = disturbed(
        untrained(),
        [10**exponent for exponent in exponents],
        lambda index: np.clip(index + shift, 0, 63),
        lambda mean: mean * mean_gain,
    )
    # The bounds on the streams test the escapes: they cost what `ideal_bits` says.
    try:
        check_round_trip(model, picture(40, 50, 3, seed=seed))
    except CodecError as error:
        assert "not finite or too large" in str(error)


def test_escapes_do_occur(untrained):
    model = disturbed(untrained(), gains=(1e5, 1))
    image = picture(40, 50, 3)
    check_round_trip(model, image)
    outside, largest = {}, {}

    def observe(level, box, tables, symbols, indices):
        first, size = tables.first[indices], tables.size[indices]
        outside[level] = ((symbols < first) | (symbols >= first + size)).mean()
        largest[level] = np.abs(symbols).max()

    encode(model, image_codec.grid_of(model, 40, 50), image, observe)
    assert outside[1] > 0.2
    assert largest[1] > 5000


@pytest.mark.parametrize("gain", [1e12, 1e38, math.inf, math.nan])
@pytest.mark.parametrize("level", [1, 2])
def test_latents_that_cannot_be_coded(untrained, gain, level):
    model = disturbed(untrained(), gains=(gain, 1) if level == 1 else (1, gain))
    for code in (compress, analyse):
        with pytest.raises(CodecError, match=rf"^z_{level} of this photo is not finite or too large"):
            code(picture(9, 9, 3), model=model)


def learned(mean, scale, channels=4):
    shape = (1, 1, 1, channels)
    return priors.logistic(np.full(shape, mean, np.float32), np.full(shape, scale, np.float32))


@pytest.mark.parametrize("mean", [-1e30, -1e9, 1e6, 1e9, 1e30])
def test_a_learned_prior_that_ran_away_still_codes(untrained, mean):
    model = copy.copy(untrained(L=1, prior="trainable-logistic", **PLAIN))
    tables, indices, means = top_codec_parameters(model.config, learned(mean, 1))
    assert np.all(np.sign(means) == np.sign(mean))
    model._tables = {**model._tables, "top": tables}
    model.arrays = {**model.arrays, "top/indices": indices, "top/means": means}
    check_round_trip(model, picture(9, 9, 3))


def test_a_factorised_prior_is_binned_about_0_as_in_training(untrained):
    config = untrained(L=1, prior="factorized", **PLAIN).config
    factors = init_factorized(jax.random.key(0), config.channels, init_scale=0.3)
    factors["layers"]["3"]["bias"] = factors["layers"]["3"]["bias"] - 2  # the median is 0.6 bins
    prior = Factorized(**factors)
    tables, indices, means = top_codec_parameters(config, prior)
    np.testing.assert_array_equal(means, 0)
    z = np.zeros((1, 1, 1, config.channels), np.float32)
    ideal = coding.ideal_bits(tables, z[0].astype(np.int32), indices)
    np.testing.assert_allclose(ideal, np.asarray(prior.bits(z))[0], rtol=1e-2)


def test_a_prior_that_is_not_finite_is_refused(untrained):
    config = untrained(L=1, prior="trainable-logistic", **PLAIN).config
    with pytest.raises(CodecError, match="not finite"):
        top_codec_parameters(config, learned(np.nan, 1))


def binned(z, means):
    """(symbols of z around means in units, z without what binning loses)."""
    symbols = np.rint(z - means / MEAN_UNITS).astype(np.int32)
    return symbols, (symbols + means / MEAN_UNITS).astype(np.float32)


@pytest.mark.parametrize("prior", [priors.logistic(0.3, 1.0), priors.gaussian(-7.2, 0.2), priors.laplace(100.0, 30.0)])
def test_the_tables_of_the_prior_cost_what_the_prior_says(untrained, prior):
    config = untrained(L=1, prior="trainable-logistic", **PLAIN).config
    prior = prior.replace(mean=np.full((1, 1, 1, 1), prior.mean), scale=np.full((1, 1, 1, 1), prior.scale))
    tables, indices, means = top_codec_parameters(config, prior)
    assert len(tables) == indices.size == means.size == config.channels
    rng = np.random.default_rng(0)
    draws = np.asarray(prior.quantile(rng.random((1, 1000, 1, 1), np.float32)), np.float32)[0]
    symbols, z = binned(draws, means[:1])
    ideal = coding.ideal_bits(tables, symbols, indices[:1]).sum()
    model = float(np.sum(prior.bits(z[None])))
    assert ideal == pytest.approx(model, rel=0.005, abs=2)


@pytest.mark.parametrize("family", priors.FAMILIES)
@pytest.mark.parametrize("scale", [0.11, 1.0, 20.0])
def test_escapes_cost_about_what_training_is_told(family, scale):
    index = np.argmin(np.abs(coding.SCALES - scale))
    symbols = np.array([30, -100, 1000, -30_000, 1_000_000], np.int32)
    ideal = coding.ideal_bits(coding.scale_tables(family), symbols, np.full(5, index, np.int32))
    told = priors.Prior(family, 0.0, np.float32(scale)).coded_bits(symbols.astype(np.float32))
    # In wide tables an escape begins far out, with a longer code for what is near, and a shorter one beyond.
    np.testing.assert_allclose(told, ideal, atol=4.5 if scale < 20 else 10)


LOWEST = -512


@pytest.mark.parametrize("family", priors.FAMILIES)
def test_the_tables_cost_what_the_conditionals_say(family):
    """A log scale and a mean in sixteenths, and the nearest of 64 scales, lose little against exact densities."""
    rng = np.random.default_rng(0)
    mean, p = rng.normal(0, 50, 40_000), rng.random(40_000)
    log_scale = rng.uniform(np.log(SCALE_MIN) - 1, np.log(250), 40_000)
    scale = np.asarray(bounded(log_scale.astype(np.float32)))
    prior = priors.Prior(family, mean.astype(np.float32), scale)
    units = np.rint((log_scale - np.log(SCALE_MIN)) * SCALE_UNITS / SCALE_STEP).astype(int)
    symbols, z = binned(np.asarray(prior.quantile(p.astype(np.float32))), np.rint(mean * MEAN_UNITS))
    ideal = coding.ideal_bits(coding.scale_tables(family), symbols, scale_indices()[units - LOWEST]).sum()
    model = float(np.sum(np.asarray(prior.bits(z))))
    assert 0.999 * model < ideal < 1.005 * model


def test_every_scale_has_the_nearest_table():
    """The list reaches from where the smallest scale holds to the largest, so whatever is cut to it loses nothing."""
    indices = scale_indices()
    assert indices.dtype == np.int32
    assert np.all(np.diff(indices) >= 0)
    assert (indices[0], indices[-1]) == (0, len(coding.SCALES) - 1)
    units = np.arange(len(indices)) + LOWEST
    scales = np.asarray(bounded(np.log(SCALE_MIN) + units.astype(np.float32) * np.float32(SCALE_STEP / SCALE_UNITS)))
    distances = np.abs(np.log(coding.SCALES) - np.log(scales[:, None]))
    np.testing.assert_allclose(distances[np.arange(len(units)), indices], distances.min(1), atol=1e-5)


@given(seed=st.integers(0, 1000))
def test_latents_in_units_are_near_what_was_binned(seed):
    rng = np.random.default_rng(seed)
    means = rng.integers(-(1 << 12), 1 << 12, (30, 40), dtype=np.int32)
    z = rng.normal(0, 300, means.shape)
    symbols, _ = binned(z, means)
    units = in_units(symbols, means)
    assert units.dtype == np.int16
    assert np.abs(units / MEAN_UNITS - z).max() <= 0.5
    np.testing.assert_array_equal(binned(units / MEAN_UNITS, means)[0], symbols)
    far = np.where(means < 0, -MAX_SYMBOL, MAX_SYMBOL)
    np.testing.assert_array_equal(in_units(far, means), np.where(means < 0, -LATENT_LIMIT, LATENT_LIMIT))


@pytest.mark.parametrize("fields", [{}, {"rate": "variable"}], ids=["fixed", "variable"])
def test_a_given_latent_is_what_is_coded(untrained, fields):
    model, image = untrained(**fields), picture(40, 60)
    quality = 30 if fields else None
    latent = infer(image, model=model, quality=quality)
    assert compress(image, model=model, quality=quality, latent=latent) == compress(image, model=model, quality=quality)
    # It alone says what the file has, whatever the picture.
    flat = compress(image, model=model, quality=quality, latent=np.zeros_like(latent))
    np.testing.assert_array_equal(
        decompress(flat, model=model),
        decompress(compress(255 - image, model=model, quality=quality, latent=np.zeros_like(latent)), model=model),
    )
    assert flat != compress(image, model=model, quality=quality)


@pytest.mark.parametrize("change", [lambda z: z[:-1], lambda z: z.astype(np.float64)], ids=["shape", "type"])
def test_a_latent_of_another_picture_is_refused(untrained, change):
    model, image = untrained(), picture(40, 60)
    with pytest.raises(CodecError, match="z_1 of this picture must be float32"):
        compress(image, model=model, latent=change(infer(image, model=model)))


def test_grey_is_the_same_with_a_last_axis(untrained):
    image = picture(17, 33)
    code = compress(image, model=untrained())
    assert compress(image[:, :, None], model=untrained()) == code
    assert decompress(code, model=untrained()).shape == (17, 33)


def test_memory_layout_does_not_matter(untrained):
    model, large = untrained(), picture(40, 60, 4)
    view = large[::2, ::-3]
    view.flags.writeable = False
    assert compress(view, model=model) == compress(view.copy(), model=model)


def pillow(mode, **info):
    """A picture of a Pillow mode."""
    channels = 4 if "A" in mode else 3
    image = Image.fromarray(picture(17, 33, channels)).convert(mode)
    image.info.update(info)
    return image


@pytest.mark.parametrize(
    ("image", "converted"),
    [
        (pillow("L"), "L"),
        (pillow("RGB"), "RGB"),
        (pillow("RGBA"), "RGBA"),
        (pillow("1"), "L"),
        (pillow("P"), "RGB"),
        (pillow("P", transparency=3), "RGBA"),
        (pillow("LA"), "RGBA"),
        (pillow("PA"), "RGBA"),
        (pillow("CMYK"), "RGB"),
        (pillow("YCbCr"), "RGB"),
        (pillow("L", transparency=60), "RGBA"),
        (pillow("RGB", transparency=(60, 60, 60)), "RGBA"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.mode} {value.info.get('transparency', '')}",
)
def test_pillow_modes(untrained, image, converted):
    model = untrained()
    code = compress(image, model=model)
    assert code == compress(np.asarray(image.convert(converted)), model=model)
    assert coding.read_header(code).mode == converted


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pillow_modes_of_more_bits_are_refused(untrained, mode):
    with pytest.raises(PictureError, match=f"8 bits a sample only.* mode {mode}"):
        compress(Image.new(mode, (5, 4)), model=untrained())


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 5, 3), np.float32), "8 bits.* float32"),
        (np.zeros((4, 5, 3), np.uint16), "8 bits.* uint16"),
        (np.zeros((4, 5), bool), "8 bits.* bool"),
        ([[1, 2], [3, 4]], "8 bits.* int"),
        (np.zeros((4, 5, 2), np.uint8), r"shape.* \(4, 5, 2\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"shape.* \(1, 4, 5, 3\)"),
        (np.zeros(5, np.uint8), r"shape.* \(5,\)"),
        (np.uint8(5), r"shape.* \(\)"),
        (np.zeros((0, 5, 3), np.uint8), "1 to 200,000,000 pixels only, got 5x0"),
        (np.broadcast_to(np.uint8(0), (20_001, 10_000)), "1 to 200,000,000 pixels only, got 10000x20001"),
        (np.broadcast_to(np.uint8(0), (1, 10**8)), "100000000x1 is too long and thin"),
    ],
)
def test_pictures_that_are_refused(untrained, image, words):
    with pytest.raises((CodecError, PictureError), match=words):
        compress(image, model=untrained())


@pytest.mark.parametrize(("limit", "fits"), [(34, False), (35, True), (36, True)])
def test_larger_pictures_than_the_caller_allows(untrained, limit, fits):
    image, model = picture(5, 7, 3), untrained()
    code = compress(image, model=model)
    runs = [(compress, image), (analyse, image), (decompress, code), (image_codec.salvage, code)]
    for run, what in runs:
        if fits:
            run(what, model=model, max_pixels=limit)
        else:
            with pytest.raises(CodecError, match="^pictures of 1 to 34 pixels only, got 7x5"):
                run(what, model=model, max_pixels=limit)


BLOCKS = {"eXIF": b"Exif\0\0" + bytes(range(256)), "iCCP": b"profile", "xMPP": "<xmp>é</xmp>".encode()}


@pytest.mark.parametrize("names", [[], ["eXIF"], ["iCCP", "xMPP"], list(BLOCKS)])
@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 4)])
def test_metadata_is_carried_along_byte_by_byte(untrained, names, shape):
    image, model, metadata = picture(*shape), untrained(), {name: BLOCKS[name] for name in names}
    plain, code = compress(image, model=model), compress(image, model=model, metadata=metadata)
    assert metadata_of(code) == metadata
    assert metadata_of(plain) == {}
    assert len(code) == len(plain) + sum(4 + (2 if len(b) > 127 else 1) + len(b) + 4 for b in metadata.values())
    np.testing.assert_array_equal(decompress(code, model=model), decompress(plain, model=model))


@pytest.mark.parametrize("name", ["ALPH", "TOCS", "nope"])
def test_only_metadata_is_metadata(untrained, name):
    with pytest.raises(ValueError, match="alpha|chunk"):
        compress(picture(5, 7, 3), model=untrained(), metadata={name: b"x"})


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_verifying_gives_the_same_file_or_an_error(untrained, shape, monkeypatch):
    image, model = picture(*shape), untrained()
    assert compress(image, model=model, verify=True) == compress(image, model=model)

    def one_off(*arguments, **options):
        pixels = decompress(*arguments, **options)
        pixels[7, 3] ^= 1
        return pixels

    monkeypatch.setattr(image_codec, "decompress", one_off)
    with pytest.raises(CodecError, match="does not decode to what was encoded"):
        compress(image, model=model, verify=True)
