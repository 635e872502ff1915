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
from nlvc.image_codec import CodecError, analyse, compress, decompress
from nlvc.models import priors

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
# The sizes of a row are continued to one size inside, 64 x 64 and so on: each model is compiled only once.
SMALL = [(1, 1, 3), (17, 33, 3), (64, 64), (33, 17, 4)]
WIDE = [(1, 300, 3), (40, 257), (64, 319, 4)]
HIGH = [(65, 64, 3), (128, 63), (100, 1, 4)]
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

    header, payload, alpha = coding.unpack(coded.data)
    height, width = image.shape[:2]
    assert (header.width, header.height) == (width, height)
    assert header.mode == {(): "L", (3,): "RGB", (4,): "RGBA"}[image.shape[2:]]
    assert header.fingerprint == model.fingerprint
    assert sum(header.level_bytes) == len(payload)
    assert header.alpha_bytes == len(alpha)

    padded = image_codec.padded_size(height, width)
    assert tuple(bits.shape for bits in coded.level_bits) == model.config.level_shapes(*padded)
    ideal = sum(bits.sum() for bits in coded.level_bits) / 8
    assert ideal <= len(payload) <= 1.001 * ideal + 16
    assert len(coded.estimated_bits) == len(header.level_bytes) == model.config.L
    for share, bits in zip(header.level_bytes, coded.level_bits, strict=True):
        assert share * ideal / len(payload) == pytest.approx(bits.sum() / 8, abs=4)
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


def with_params(model, change):
    """The same network, compiled once, with other weights: change(name of the part, array) -> array."""
    other = copy.copy(model)
    other._params = jax.tree_util.tree_map_with_path(lambda path, v: change(path[1].key, v), model._params)
    return other


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    exponents=st.tuples(st.floats(-3, 1.5), st.floats(-3, 30), st.floats(-3, 30)),
    log_scale=st.floats(-20, 20),
)
def test_wild_weights(untrained, seed, exponents, log_scale):
    """Latents far outside their tables, means and scales far outside their range, pixels beyond float32."""
    analysis, level, synthesis = (np.float32(10**exponent) for exponent in exponents)
    gains = {"analysis": analysis, "analysis_basis": analysis, "level_syntheses_0": level, "synthesis": synthesis}

    def change(name, value):
        if name.startswith("log_scale"):
            return value + np.float32(log_scale)
        return value * gains.get(name, np.float32(1))

    model = with_params(untrained(), change)
    # The bound on the payload tests the escapes: they cost what `ideal_bits` says.
    try:
        check_round_trip(model, picture(40, 50, 3, seed=seed))
    except CodecError as error:
        assert "not finite or too large" in str(error)


def test_escapes_do_occur(untrained):
    model = with_params(untrained(), lambda name, v: v * np.float32(1e5 if name == "analysis_basis" else 1))
    image = picture(40, 50, 3)
    check_round_trip(model, image)
    _, codecs, symbols = image_codec.encode(model, image, "RGB", None)
    codec, values = codecs[0], symbols[0]
    first, size = codec.tables.first[codec.indices], codec.tables.size[codec.indices]
    outside = (values < first) | (values >= first + size)
    assert outside.mean() > 0.2
    assert np.abs(values).max() > 5000


@pytest.mark.parametrize("gain", [1e12, 1e38, math.inf, math.nan])
def test_latents_that_cannot_be_coded(untrained, gain):
    model = with_params(untrained(), lambda name, v: v * np.float32(gain) if name.startswith("analysis") else v)
    for code in (compress, analyse):
        with pytest.raises(CodecError, match=r"^z_\d of this photo is not finite or too large"):
            code(picture(9, 9, 3), model=model)


@pytest.mark.parametrize("mean", [-1e30, -1e9, 1e6, 1e9, 1e30])
def test_a_learned_prior_that_ran_away_still_codes(untrained, mean):
    model = with_params(untrained(L=1, prior="trainable-logistic", **PLAIN), lambda _, v: v)
    prior = priors.logistic(np.full((1, 1, 1, 4), mean, np.float32), np.ones((1, 1, 1, 4), np.float32))
    model._top = image_codec.top_codec_parameters(model.config, prior)
    image = picture(9, 9, 3)
    code, codecs, _ = image_codec.encode(model, image, "RGB", None)
    assert decompress(code, model=model).shape == image.shape
    assert np.all(np.sign(codecs[0].offset) == np.sign(mean))


def test_a_prior_that_is_not_finite_is_refused(untrained):
    config = untrained(L=1, prior="trainable-logistic", **PLAIN).config
    prior = priors.logistic(np.full((1, 1, 1, 4), np.nan, np.float32), np.ones((1, 1, 1, 4), np.float32))
    with pytest.raises(CodecError, match="not finite"):
        image_codec.top_codec_parameters(config, prior)


@pytest.mark.parametrize("prior", [priors.logistic(0.3, 1.0), priors.gaussian(-7.2, 0.2), priors.laplace(100.0, 30.0)])
def test_the_tables_of_the_prior_cost_what_the_prior_says(untrained, prior):
    config = untrained(L=1, prior="trainable-logistic", **PLAIN).config
    prior = prior.replace(mean=np.full((1, 1, 1, 1), prior.mean), scale=np.full((1, 1, 1, 1), prior.scale))
    tables, indices, offset = image_codec.top_codec_parameters(config, prior)
    assert len(tables) == indices.size == offset.size == config.channels
    rng = np.random.default_rng(0)
    draws = np.asarray(prior.quantile(rng.random((1, 1000, 1, 1), np.float32)), np.float32)[0]
    symbols = image_codec.bin_latent(draws, offset[:1])
    ideal = coding.ideal_bits(tables, symbols, indices[:1]).sum()
    model = float(np.sum(prior.bits(image_codec.dequantise(symbols, offset[:1])[None])))
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


@pytest.mark.parametrize("family", priors.FAMILIES)
def test_the_tables_cost_what_the_conditionals_say(family):
    """The nearest of 64 scales and a mean in sixteenths lose little against the model's own densities."""
    rng = np.random.default_rng(0)
    mean, scale, p = rng.normal(0, 50, 40_000), 256 * 0.0005 ** rng.random(40_000), rng.random(40_000)
    prior = priors.Prior(family, mean.astype(np.float32), scale.astype(np.float32))
    indices, offset = map(np.asarray, jax.jit(image_codec.quantise_parameters)(prior))
    symbols = image_codec.bin_latent(np.asarray(prior.quantile(p.astype(np.float32))), offset)
    ideal = coding.ideal_bits(coding.scale_tables(family), symbols, indices).sum()
    model = float(np.sum(np.asarray(jax.jit(priors.Prior.bits)(prior, image_codec.dequantise(symbols, offset)))))
    assert 0.999 * model < ideal < 1.005 * model


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
        (np.zeros((0, 5, 3), np.uint8), "1 to 100 million pixels only, got 5x0"),
        (np.broadcast_to(np.uint8(0), (10_001, 10_000)), "1 to 100 million pixels only, got 10000x10001"),
        (np.broadcast_to(np.uint8(0), (1, 10**8)), "too long and thin"),
    ],
)
def test_pictures_that_are_refused(untrained, image, words):
    with pytest.raises((CodecError, PictureError), match=words):
        compress(image, model=untrained())


def test_binning_is_the_inverse_of_dequantising():
    rng = np.random.default_rng(0)
    offset = rng.integers(-(1 << 12), 1 << 12, (30, 40), dtype=np.int32)
    z = rng.normal(0, 3000, offset.shape).astype(np.float32)
    symbols = image_codec.bin_latent(z, offset)
    assert symbols.dtype == np.int32
    latent = image_codec.dequantise(symbols, offset)
    assert np.abs(latent - z).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(image_codec.bin_latent(latent, offset), symbols)
    np.testing.assert_array_equal(latent * image_codec.MEAN_UNITS, symbols * image_codec.MEAN_UNITS + offset)


def test_parameters_become_the_nearest_integers():
    scale = np.array([0.0, 1e-9, 0.11, 0.5, 1.0, 77.7, 256.0, 1e9, np.inf, np.nan], np.float32)
    mean = np.array([0.0, 0.03, 0.04, -0.04, 1.5, -1000.25, 1e9, -1e30, np.inf, np.nan], np.float32)
    index, offset = (np.asarray(p) for p in image_codec.quantise_parameters(priors.gaussian(mean, scale)))
    assert index.dtype == offset.dtype == np.int32
    nearest = np.abs(np.log(coding.SCALES) - np.log(scale[1:8, None])).argmin(1)
    np.testing.assert_array_equal(index[1:8], nearest)
    assert index[0] == 0
    assert index[8] == len(coding.SCALES) - 1
    assert 0 <= index[9] < len(coding.SCALES)
    limit = image_codec.MAX_SYMBOL
    np.testing.assert_array_equal(offset[:9], [0, 0, 1, -1, 24, -16004, limit, -limit, limit])
    assert abs(int(offset[9])) <= limit
