"""The square frame and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cfr_fast.data.frame import Frame, frame_of
from cfr_fast.data.sample import Sample
from cfr_fast.errors import InputError

few = settings(max_examples=25, deadline=None)
SHAPES = [(400, 400), (37, 91), (480, 640), (1, 5), (120, 80)]


def make(height: int, width: int, box: tuple[int, int, int, int] | None = None) -> Sample:
    rng = np.random.default_rng(height * 1000 + width)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    xyz = np.zeros((height, width, 3), np.float32)
    r0, r1, c0, c1 = box or (0, height, 0, width)
    xyz[r0:r1, c0:c1] = rng.uniform(0.5, 1, (r1 - r0, c1 - c0, 3))
    return Sample(rgb, xyz)


@st.composite
def boxed(draw: st.DrawFn) -> Sample:
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    r0, c0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return make(height, width, (r0, draw(st.integers(r0 + 1, height)), c0, draw(st.integers(c0 + 1, width))))


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_sample_is_centred_and_padded(shape):
    sample = make(*shape)
    frame = frame_of(sample, multiple=100)
    height, width = shape
    assert frame.side == -(-max(shape) // 100) * 100
    rows, cols = slice(frame.top, frame.top + height), slice(frame.left, frame.left + width)
    assert abs(frame.side - height - 2 * frame.top) <= 1
    assert abs(frame.side - width - 2 * frame.left) <= 1
    np.testing.assert_array_equal(frame.rgb[rows, cols], sample.rgb)
    np.testing.assert_array_equal(frame.xyz[rows, cols], sample.xyz)
    assert np.count_nonzero(frame.xyz) == np.count_nonzero(sample.xyz)
    below, right = frame.side - height - frame.top, frame.side - width - frame.left
    pad = ((frame.top, below), (frame.left, right), (0, 0))
    np.testing.assert_array_equal(frame.rgb, np.pad(sample.rgb, pad, mode="edge"))


@few
@given(boxed(), st.integers(1, 30), st.floats(0, 0.5))
def test_crop_holds_every_valid_point(sample, multiple, margin):
    frame = frame_of(sample, crop=True, multiple=multiple, margin=margin)
    whole = frame_of(sample, multiple=multiple)
    assert frame.side % multiple == 0
    assert frame.side <= whole.side
    assert np.count_nonzero(frame.xyz) == np.count_nonzero(sample.xyz)
    row, col = np.argwhere(sample.valid)[0]
    np.testing.assert_array_equal(frame.xyz[row + frame.top, col + frame.left], sample.xyz[row, col])
    np.testing.assert_array_equal(frame.rgb[row + frame.top, col + frame.left], sample.rgb[row, col])


def test_crop_prefers_real_pixels_to_padding():
    sample = make(100, 80, (0, 10, 70, 80))  # in the corner
    frame = frame_of(sample, crop=True, margin=0.5)
    assert (frame.side, frame.top, frame.left) == (20, 0, -60)
    np.testing.assert_array_equal(frame.rgb, sample.rgb[:20, 60:])


def test_crop_is_centred_where_there_is_room():
    frame = frame_of(make(100, 80, (40, 60, 30, 40)), crop=True, margin=0.1)
    assert (frame.side, frame.top, frame.left) == (24, -38, -23)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("shape", [(400, 400), (37, 91), (480, 640)])
@pytest.mark.parametrize("size", [28, 224])
def test_agrees_with_torch(shape, size, crop):
    sample = make(*shape, box=(5, shape[0] - 9, 11, shape[1] - 20))
    frame = frame_of(sample, crop=crop, multiple=7)
    grid = F.interpolate(torch.from_numpy(frame.xyz).permute(2, 0, 1)[None], size=size, mode="nearest")
    np.testing.assert_array_equal(frame.grid_xyz(size), grid[0].permute(1, 2, 0).numpy())

    values = torch.randn(size, size, generator=torch.Generator().manual_seed(size))
    # in float64: torch's float32 loses up to 1e-4 in the positions
    big = F.interpolate(values.double()[None, None], size=frame.side, mode="bilinear", align_corners=False)[
        0, 0
    ]
    expected = np.zeros(shape, np.float32)
    for row in range(shape[0]):
        r = row + frame.top
        if 0 <= r < frame.side:
            first, last = max(0, -frame.left), min(shape[1], frame.side - frame.left)
            expected[row, first:last] = big[r, first + frame.left : last + frame.left].numpy()
    got = frame.to_source(values)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert (got[expected == 0] == 0).all()


@pytest.mark.parametrize("length", [37, 91, 224, 400, 512, 600, 800, 900, 1000])
@pytest.mark.parametrize("size", [1, 28, 112, 222, 224, 448, 900])
def test_nearest_index_is_torchs(length, size):
    ramp = np.broadcast_to(np.arange(1, length + 1, dtype=np.float32)[:, None, None], (length, 1, 3))
    frame = frame_of(Sample(np.zeros((length, 1, 3), np.uint8), ramp))
    expected = F.interpolate(torch.arange(1.0, length + 1)[None, None], size=size, mode="nearest")[0, 0]
    grid = frame.grid_xyz(size)
    column = grid[:, grid.any(axis=(0, 2)).argmax(), 0]
    if column.any():  # one pixel in `length` columns may fall between the grid's
        np.testing.assert_array_equal(column, expected.numpy())


@few
@given(boxed(), st.booleans(), st.integers(1, 70))
def test_constant_map_comes_back_constant(sample, crop, size):
    frame = frame_of(sample, crop=crop)
    back = frame.to_source(np.full((size, size), 0.3, np.float32))
    assert back.shape == sample.shape
    assert (back[sample.valid] == np.float32(0.3)).all()
    assert set(np.unique(back)) <= {np.float32(0), np.float32(0.3)}
    if not crop:
        assert (back == np.float32(0.3)).all()


@few
@given(boxed(), st.booleans())
def test_map_at_native_size_comes_back_bit_for_bit(sample, crop):
    frame = frame_of(sample, crop=crop)
    back = frame.to_source(frame.xyz[..., 2])
    np.testing.assert_array_equal(back, sample.xyz[..., 2])


@few
@given(boxed(), st.booleans(), st.data())
def test_a_peak_stays_where_it_is(sample, crop, data):
    frame = frame_of(sample, crop=crop)
    factor = data.draw(st.integers(1, 3))
    row, col = data.draw(st.sampled_from([tuple(p) for p in np.argwhere(sample.valid)[:50]]))
    fine = np.zeros((frame.side * factor,) * 2, np.float32)
    r, c = (row + frame.top) * factor, (col + frame.left) * factor
    fine[r : r + factor, c : c + factor] = 1
    back = frame.to_source(fine)
    assert np.unravel_index(back.argmax(), back.shape) == (row, col)
    assert back[row, col] == 1


@pytest.mark.parametrize("shape", [(37, 91), (90, 40), (64, 64)])
def test_ground_truth_follows_the_protocol(shape):
    rng = np.random.default_rng(0)
    mask = rng.random(shape) > 0.6
    frame = frame_of(make(*shape))
    top, left = frame.top, frame.left
    padded = np.pad(
        mask, ((top, frame.side - shape[0] - top), (left, frame.side - shape[1] - left)), mode="edge"
    )
    expected = (
        F.interpolate(torch.from_numpy(padded)[None, None].float(), size=48, mode="nearest")[0, 0] > 0.5
    )
    got = frame.grid_mask(mask.astype(np.uint8) * 3, 48)
    assert got.dtype == bool
    np.testing.assert_array_equal(got, expected.numpy())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda f: f.to_source(np.zeros((3, 4))), "map"),
        (lambda f: f.to_source(np.zeros((0, 0))), "map"),
        (lambda f: f.grid_mask(np.zeros((4, 4)), 8), "mask"),
        (lambda f: f.grid_xyz(0), "size"),
        (lambda f: frame_of(make(4, 5), multiple=0), "multiple"),
        (lambda f: frame_of(make(4, 5), crop=True, margin=float("nan")), "margin"),
    ],
)
def test_bad_input_is_named(call, name):
    frame: Frame = frame_of(make(4, 5))
    with pytest.raises(InputError, match=f"^{name}: expected"):
        call(frame)
