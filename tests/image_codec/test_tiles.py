"""The grid of tiles: every position of every level in exactly one tile, and its surroundings as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.config import tiny
from nlvc.image_codec.tiles import STEP, TILE, Box, Grid, around

some = settings(max_examples=60)
CONFIGS = [
    tiny(L=len(strides), strides=strides, patch_size=512)
    for strides in [(16,), (8, 4), (16, 2, 1), (4, 2, 1, 1, 2), (2, 64)]
]


@st.composite
def grids(draw, largest=400):
    config = draw(st.sampled_from(CONFIGS))
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    whole = Grid(config, height, width, 1).stride(config.L)
    return Grid(config, height, width, whole * draw(st.integers(1, 4)))


@st.composite
def boxes(draw, height, width):
    """A box inside a plane."""
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Box(top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))


def count(grid):
    return grid.tiles[0] * grid.tiles[1]


@some
@given(grids())
def test_tiles_divide_every_level_among_themselves(grid):
    for level in range(grid.config.L + 1):
        times = np.zeros(grid.shape(level), int)
        for tile in range(count(grid)):
            box = grid.box(level, tile)
            assert min(box) >= 0 and box.height > 0 and box.width > 0
            # A view of just that size: nothing of it lies outside.
            assert box.of(times).shape == (box.height, box.width)
            box.of(times)[:] += 1
        np.testing.assert_array_equal(times, 1)


@some
@given(grids())
def test_a_tile_is_the_same_part_of_the_picture_at_every_level(grid):
    for tile in range(count(grid)):
        pixels = grid.box(0, tile)
        for level in range(1, grid.config.L + 1):
            stride = grid.stride(level)
            assert Box(*(side * stride for side in grid.box(level, tile))) == pixels


@some
@given(grids())
def test_the_picture_is_continued_by_less_than_one_position_of_the_deepest_level(grid):
    (height, width), whole = grid.shape(0), grid.stride(grid.config.L)
    assert 0 <= height - grid.height < whole and 0 <= width - grid.width < whole
    for level in range(1, grid.config.L + 1):
        stride = grid.stride(level)
        assert grid.shape(level) == (height / stride, width / stride)


def test_a_photo_of_odd_size():
    grid = Grid(tiny(L=3, strides=(16, 2, 1), patch_size=64), 1030, 2049, TILE)
    assert [grid.stride(level) for level in range(4)] == [1, 16, 32, 32]
    assert [grid.shape(level) for level in range(4)] == [(1056, 2080), (66, 130), (33, 65), (33, 65)]
    assert grid.tiles == (2, 3)
    assert [grid.box(1, tile) for tile in (0, 2, 4, 5)] == [
        (0, 0, 64, 64), (0, 128, 64, 2), (64, 64, 2, 64), (64, 128, 2, 2)
    ]  # fmt: skip
    assert grid.touched(1, [Box(60, 60, 3, 4)], 0) == [0]
    assert grid.touched(1, [Box(60, 60, 3, 4)], 1) == [0, 1]
    assert grid.touched(1, [Box(60, 60, 3, 4)], 2) == [0, 1, 3, 4]


@settings(max_examples=200)
@given(data=st.data(), grid=grids(), margin=st.integers(0, 70))
def test_touched_are_the_tiles_that_share_a_position_with_a_box(data, grid, margin):
    level = data.draw(st.integers(1, grid.config.L))
    shape = grid.shape(level)
    chosen = data.draw(st.lists(boxes(*shape), max_size=3))
    seen = np.zeros(shape, bool)
    for box in chosen:
        top, left = max(box.top - margin, 0), max(box.left - margin, 0)
        seen[top : box.top + box.height + margin, left : box.left + box.width + margin] = True
    expected = [tile for tile in range(count(grid)) if grid.box(level, tile).of(seen).any()]
    assert grid.touched(level, chosen, margin) == expected


@some
@given(data=st.data(), grid=grids())
def test_networks_are_compiled_for_few_sizes(data, grid):
    level = data.draw(st.integers(0, grid.config.L))
    box = data.draw(boxes(*grid.shape(level)))
    grown, step = grid.compiled(box, level), max(1, STEP // grid.stride(level))
    assert (grown.top, grown.left) == (box.top, box.left)
    for side, before in [(grown.height, box.height), (grown.width, box.width)]:
        assert side % step == 0 and before <= side < before + step


@some
@given(data=st.data(), grid=grids(), margin=st.integers(0, 5))
def test_borders_inside_the_picture_have_two_blocks_of_it_beside_them(data, grid, margin):
    box = grid.compiled(data.draw(boxes(*grid.shape(1))), 1)
    sides = zip(grid.borders(box, margin), box[:2], box[2:], grid.shape(1), strict=True)
    for inside, first, count, total in sides:
        there = [0 <= number < total for number in range(first - margin, first + count + margin)]
        assert inside.tolist() == [before and after for before, after in zip(there, there[1:], strict=False)]


@settings(max_examples=100)
@given(
    data=st.data(),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    margin=st.integers(0, 12),
    grown=st.integers(0, 12),
)
def test_around_is_the_plane_continued_by_its_edge(data, height, width, margin, grown):
    plane = np.arange(height * width * 2).reshape(height, width, 2)
    box = data.draw(boxes(height, width))
    # Boxes that were grown for a compiled network reach beyond the plane.
    box = box._replace(height=box.height + grown, width=box.width + grown)
    rim = margin + grown
    padded = np.pad(plane, ((rim, rim), (rim, rim), (0, 0)), mode="edge")
    top, left = box.top - margin + rim, box.left - margin + rim
    expected = padded[top : top + box.height + 2 * margin, left : left + box.width + 2 * margin]
    np.testing.assert_array_equal(around(plane, box, margin), expected[None])


@pytest.mark.parametrize("box", [Box(2, 3, 4, 5), Box(0, 0, 10, 10)])
def test_around_copies_nothing_inside_a_plane(box):
    plane = np.zeros((10, 10, 3))
    margin = min(box.top, box.left)
    assert np.shares_memory(around(plane, box, margin), plane)
