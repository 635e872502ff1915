"""The lapped transform: orthonormal, nothing across the outer border, the same for parts, and worth its while."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from scipy.fft import dct
from scipy.stats import ortho_group

from nlvc.models.lapped import across, borders, cosines, functions, postfilter, prefilter, turn
from nlvc.models.layers import depth_to_space, space_to_depth

every_block = pytest.mark.parametrize("block", [2, 4, 8, 16, 64])
RNG = np.random.default_rng(0)


def samples(rows, columns, block, batch=2):
    return RNG.normal(size=(batch, rows * block, columns * block, 3)).astype(np.float32)


def some_of(*counts):
    """A mask for borders between rows and between columns, some filtered and some not."""
    return tuple(np.arange(count) % 3 != 1 for count in counts)


# --- What it is made of ---


@every_block
def test_cosines_are_those_of_scipy(block):
    np.testing.assert_allclose(cosines(block), dct(np.eye(block), norm="ortho", axis=0), atol=1e-12)


@every_block
def test_the_turn_is_orthogonal(block):
    matrix = turn(block)
    assert matrix.shape == (block // 2, block // 2)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(block // 2), atol=1e-12)


def test_one_border_by_the_definition():
    """Sums of mirrored samples pass, their differences are turned; the outer halves of both blocks stay."""
    line = RNG.normal(size=16)
    before, after = line[7:3:-1], line[8:12]
    even, odd = after + before, turn(8) @ (after - before)
    expected = np.concatenate([line[:4], ((even - odd) / 2)[::-1], (even + odd) / 2, line[12:]])
    x, expected = (np.tile(np.float32(v).reshape(1, 1, 16, 1), (1, 8, 1, 1)) for v in (line, expected))
    np.testing.assert_allclose(prefilter(x, 8), expected, atol=1e-6)
    np.testing.assert_allclose(prefilter(x.swapaxes(1, 2), 8), expected.swapaxes(1, 2), atol=1e-6)


def test_blocks_of_two_samples_do_not_overlap():
    x = samples(4, 5, 2)
    np.testing.assert_allclose(prefilter(x, 2), x, atol=1e-6)


# --- There and back ---


@every_block
@pytest.mark.parametrize("inside", [(None, None), some_of(3, 2), (np.zeros(3, bool), None)])
def test_it_keeps_the_energy_and_comes_back(block, inside):
    x = samples(4, 3, block)
    filtered = prefilter(x, block, inside)
    np.testing.assert_allclose(np.sum(np.square(filtered)), np.sum(np.square(x)), rtol=1e-5)
    np.testing.assert_allclose(postfilter(filtered, block, inside), x, atol=1e-5)


@pytest.mark.parametrize("inside", [(None, None), some_of(2, 1)])
def test_it_is_orthonormal(inside):
    """All of its functions, those at borders that are not filtered too."""
    units = np.eye(12 * 8, dtype=np.float32).reshape(-1, 12, 8, 1)
    matrix = np.asarray(prefilter(units, 4, inside)).reshape(96, 96)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(96), atol=1e-6)
    back = np.asarray(postfilter(units, 4, inside)).reshape(96, 96)
    np.testing.assert_allclose(back, matrix.T, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (3, 1), (4, 5)])
def test_numpy_and_jax_give_the_same(rows, columns):
    x, inside = samples(rows, columns, 8), some_of(rows - 1, columns - 1)
    for filtered in (prefilter, postfilter):
        for given in ((None, None), inside):
            ours = filtered(x, 8, given)
            assert isinstance(ours, np.ndarray) and ours.dtype == np.float32
            theirs = jax.jit(filtered, static_argnums=1)(jnp.asarray(x), 8, given)
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_constants_of_a_program_may_be_of_numpy():
    x, inside = samples(3, 2, 4), some_of(2, 1)
    for filtered in (prefilter, postfilter):
        program = jax.jit(lambda y, filtered=filtered: y + filtered(x, 4, inside))
        np.testing.assert_allclose(program(jnp.zeros(x.shape)), filtered(x, 4, inside), atol=1e-6)


def test_integers_stay_integers():
    x = RNG.integers(-1000, 1000, (2, 12, 16, 3)).astype(np.int32)
    filtered = across(x, 4, lambda odd: odd[..., ::-1], lambda x: (x + 1) >> 1, some_of(2, 3))
    assert filtered.dtype == np.int32
    theirs = jax.jit(lambda x: across(x, 4, lambda odd: odd[..., ::-1], lambda x: (x + 1) >> 1, some_of(2, 3)))(x)
    assert theirs.dtype == np.int32
    np.testing.assert_array_equal(filtered, theirs)


# --- Borders ---


def test_which_borders_lie_inside_the_picture():
    assert borders(0, 5, 0, 5).tolist() == [True] * 4
    # Outside it, and around it, there is nothing to filter across.
    assert borders(0, 5, 2, 5).tolist() == [False, False, *[True] * 4, False, False]
    assert borders(1, 2, 1, 5).tolist() == [True] * 3
    assert borders(3, 4, 1, 5).tolist() == [True, True, False, False, False]
    assert borders(0, 1, 1, 1).tolist() == [False, False]
    assert borders(0, 1, 0, 1).tolist() == []


def test_borders_by_the_numbers_of_the_blocks_on_both_sides():
    total = 4
    for first in range(total):
        for count in range(1, 7):
            for margin in range(3):
                numbers = range(first - margin, first + count + margin)
                both = [0 <= a < total and 0 <= b < total for a, b in zip(numbers, numbers[1:], strict=False)]
                assert borders(first, count, margin, total).tolist() == both


@every_block
def test_nothing_is_filtered_around_the_picture(block):
    """The outer half of the outer blocks passes, and a picture of one block altogether."""
    x, half = samples(3, 4, block), block // 2
    filtered = np.asarray(prefilter(x, block))
    for corner in (np.s_[:, :half, :half], np.s_[:, -half:, -half:], np.s_[:, :half, -half:], np.s_[:, -half:, :half]):
        np.testing.assert_array_equal(filtered[corner], x[corner])
    rows = np.asarray(prefilter(x, block, (None, np.zeros(3, bool))))
    np.testing.assert_array_equal(rows[:, :half], x[:, :half])
    np.testing.assert_array_equal(rows[:, -half:], x[:, -half:])
    one = samples(1, 1, block)
    np.testing.assert_array_equal(prefilter(one, block), one)


def test_masked_borders_are_as_if_the_picture_ended_there():
    x = samples(5, 4, 8)
    whole = np.asarray(prefilter(x, 8, (np.array([True, False, True, True]), None)))
    np.testing.assert_allclose(whole[:, :16], prefilter(x[:, :16], 8), atol=1e-6)
    np.testing.assert_allclose(whole[:, 16:], prefilter(x[:, 16:], 8), atol=1e-6)


@pytest.mark.parametrize("filtered", [prefilter, postfilter])
@pytest.mark.parametrize(("top", "left", "height", "width"), [(0, 0, 2, 3), (2, 1, 2, 2), (3, 4, 3, 2), (0, 0, 6, 6)])
@pytest.mark.parametrize("margin", [1, 2])
def test_a_part_is_that_part_of_the_whole(filtered, top, left, height, width, margin):
    """Of a picture that is continued by whatever it may be, with the mask of what lies inside."""
    block, rows, columns = 8, 6, 6
    x = samples(rows, columns, block)
    whole = np.asarray(filtered(x, block))
    rim = margin * block
    continued = np.pad(x, ((0, 0), (rim, rim), (rim, rim), (0, 0)), constant_values=99)
    part = continued[:, top * block : (top + height) * block + 2 * rim, left * block : (left + width) * block + 2 * rim]
    inside = borders(top, height, margin, rows), borders(left, width, margin, columns)
    ours = np.asarray(filtered(part, block, inside))[:, rim:-rim, rim:-rim]
    expected = whole[:, top * block : (top + height) * block, left * block : (left + width) * block]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


# --- The functions of a basis ---


@pytest.mark.parametrize("block", [4, 8])
def test_functions_are_what_a_coefficient_is_the_product_with(block):
    """Prefilter and basis are the adjoint of basis and postfilter."""
    basis = ortho_group.rvs(3 * block**2, random_state=0)[:, :7].astype(np.float32)
    each, x = functions(basis, block), samples(3, 3, block, batch=1)
    assert each.shape == (7, 3 * block, 3 * block, 3)
    z = np.asarray(space_to_depth(prefilter(x, block), block)) @ basis
    np.testing.assert_allclose(np.einsum("khwc,hwc->k", each, x[0]), z[0, 1, 1], atol=1e-5)
    products = np.einsum("ahwc,bhwc->ab", each, each)
    np.testing.assert_allclose(products, np.eye(7), atol=1e-5)
    # They reach half a block into the neighbours, and no further.
    half = block // 2
    assert not np.any(each[:, :half]) and not np.any(each[:, :, -half:]) and np.all(np.any(each[:, half], axis=(1, 2)))


def test_functions_of_neighbours_are_orthogonal():
    basis = ortho_group.rvs(48, random_state=0)[:, :5].astype(np.float32)
    each, place = functions(basis, 4), np.zeros((5, 20, 20, 3))
    place[:, 4:16, 4:16] = each
    for down, right in [(0, 1), (1, 0), (1, 1), (1, -1)]:
        moved = np.roll(place, (4 * down, 4 * right), axis=(1, 2))
        np.testing.assert_allclose(np.einsum("ahwc,bhwc->ab", place, moved), 0, atol=1e-6)


@pytest.mark.parametrize("block", [8, 16])
def test_the_smoothest_function_ends_smoothly(block):
    """Where the cosine of a block alone jumps by its full height."""
    flat = np.full((3 * block**2, 1), 1 / (3**0.5 * block), np.float32)
    across_middle = functions(flat, block)[0, 3 * block // 2, :, 0]
    assert np.abs(np.diff(across_middle)).max() < 0.55 * across_middle.max()
    assert across_middle[block // 2] < 0.25 * across_middle.max()


# --- What it is for ---


@every_block
def test_a_constant_stays_constant(block):
    x = np.full((1, 3 * block, 4 * block, 3), 0.7, np.float32)
    np.testing.assert_allclose(prefilter(x, block), x, atol=1e-6)


@pytest.mark.parametrize("block", [4, 8, 16])
def test_a_ramp_is_told_by_fewer_numbers(block):
    """Its blocks have less energy beside their means, and those means alone give smaller jumps."""
    ramp = np.arange(6.0 * block) - 3 * block
    x = np.broadcast_to(ramp[:, None, None], (1, 6 * block, block, 3)).astype(np.float32)
    mean = np.tile(np.eye(3, dtype=np.float32), (block**2, 1)) / block

    def inner(x):
        return np.asarray(x)[:, 2 * block : -2 * block]

    z, plain = (space_to_depth(y, block) @ mean for y in (np.asarray(prefilter(x, block)), x))
    energies = [np.sum(np.square(inner(y))) for y in (prefilter(x, block), x)]
    beside = [energy - np.sum(np.square(c[:, 2:-2])) for energy, c in zip(energies, (z, plain), strict=True)]
    assert beside[0] < 0.64 * beside[1]
    drawn = postfilter(depth_to_space(z @ mean.T, block), block)
    jumps = [np.abs(np.diff(inner(y)[0, :, 0, 0])).max() for y in (drawn, depth_to_space(plain @ mean.T, block))]
    assert jumps[1] == pytest.approx(block) and jumps[0] < 0.8 * block


@pytest.mark.parametrize(("block", "decibels"), [(4, 7.92), (8, 9.21), (16, 9.75)])
def test_the_coding_gain_of_neighbours_that_are_alike(block, decibels):
    """For samples that correlate by 0.95 with the next; blocks alone have 7.57, 8.83 and 9.46 dB."""
    count = 5 * block
    covariance = 0.95 ** np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    columns = np.eye(count, dtype=np.float32).reshape(count, 1, count, 1).repeat(block, axis=1)
    matrix = np.asarray(prefilter(columns, block))[:, 0, :, 0].T
    middle = cosines(block) @ matrix[2 * block : 3 * block]
    variances = np.diag(middle @ covariance @ middle.T)
    assert 10 * np.log10(variances.mean() / np.exp(np.log(variances).mean())) > decibels


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
@pytest.mark.parametrize("block", [4, 8, 16])
def test_it_packs_the_energy_of_photos_better_than_blocks_alone(name, block):
    photo = getattr(skimage.data, name)()
    height, width = (side // block * block for side in photo.shape[:2])
    x = photo[None, :height, :width].astype(np.float32) / 255 - np.float32(0.5)
    rows = np.float32(cosines(block))

    def energies(x):
        """Mean squares of all coefficients, the largest first."""
        blocks = np.asarray(x).reshape(height // block, block, width // block, block, 3)
        z = np.einsum("ua,vb,ialbc->iluvc", rows, rows, blocks, optimize=True)
        return np.sort(np.mean(np.square(z, dtype=np.float64), axis=(0, 1)).ravel())[::-1]

    ours, plain = energies(prefilter(x, block)), energies(x)
    assert ours.sum() == pytest.approx(plain.sum(), rel=1e-5)
    # Bits of each sample at high rates: half the mean logarithm of the energies.
    assert np.mean(np.log2(plain) - np.log2(ours)) / 2 > 0.05
    few = plain.size // 8
    assert plain[few:].sum() > 1.05 * ours[few:].sum()
