"""Other plausible views of a normal part: what thresholds are calibrated on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cfr_fast.data.points import measured
from cfr_fast.data.sample import Sample

ROTATION = np.deg2rad(10.0)  # most in-plane rotation
SCALE = 0.05  # most relative change of size
SHIFT = 0.02  # most shift, of the image side
GAIN = 0.1  # most relative change of brightness, and of each colour by a third of it
RGB_NOISE = 2.0  # standard deviation, grey levels
DROPOUT = 0.02  # share of points lost


def mirrored(sample: Sample) -> Sample:
    """The sample as its mirror image would be seen: columns reversed, and x of the points (to the right)."""
    xyz = np.ascontiguousarray(sample.xyz[:, ::-1])
    xyz[..., 0] = np.where(measured(xyz), -xyz[..., 0], 0)
    rgb = np.ascontiguousarray(sample.rgb[:, ::-1])
    return Sample(rgb, xyz, name=sample.name, defect=sample.defect)


def augment(sample: Sample, rng: np.random.Generator, angles: tuple[float, float] | None = None) -> Sample:
    """A slightly turned, moved, resized, relit and noisier view of a sample.

    The image is resampled bilinearly, the points by nearest neighbour; points turn with the image about the
    optical axis. Places outside the original repeat its edge (RGB) or are missing (points).

    Args:
        sample: any sample.
        rng: all randomness; the same state gives the same view.
        angles: least and most in-plane rotation, radians; None: ten degrees either way.

    Returns:
        A sample of the same size and name.
    """
    height, width = sample.shape
    low, high = angles or (-ROTATION, ROTATION)
    angle, scale = rng.uniform(low, high), 1 + rng.uniform(-SCALE, SCALE)
    shift = rng.uniform(-SHIFT, SHIFT, 2) * max(height, width)
    cos, sin = np.cos(angle), np.sin(angle)
    # Rows and columns of the view → rows and columns of the original, turning about the object's centre.
    matrix = np.array([[cos, -sin], [sin, cos]]) / scale
    rows, columns = np.nonzero(sample.valid)
    centre = np.array([rows.mean(), columns.mean()])
    offset = centre - matrix @ (centre + shift)

    rgb = np.stack(
        [
            ndimage.affine_transform(
                sample.rgb[..., c].astype(np.float32), matrix, offset, order=1, mode="nearest"
            )
            for c in range(3)
        ],
        axis=2,
    )
    gain = (1 + rng.uniform(-GAIN, GAIN)) * (1 + rng.uniform(-GAIN / 3, GAIN / 3, 3))
    rgb = rgb * gain + rng.normal(0, RGB_NOISE, rgb.shape)
    xyz = np.stack(
        [ndimage.affine_transform(sample.xyz[..., c], matrix, offset, order=0) for c in range(3)], axis=2
    )
    xyz = _turn(xyz, angle, scale)
    xyz[rng.random((height, width)) < DROPOUT] = 0
    if not xyz.any():  # a cloud of a handful of points may vanish; then the original says more
        xyz = sample.xyz
    return Sample(np.clip(np.rint(rgb), 0, 255).astype(np.uint8), xyz, name=sample.name, defect=sample.defect)


def _turn(xyz: NDArray[np.float32], angle: float, scale: float) -> NDArray[np.float32]:
    """Turn and resize the cloud about its mean, in the image plane (x right, y down); zeros stay zeros."""
    valid = measured(xyz)
    if not valid.any():
        return xyz
    centre = xyz[valid].mean(axis=0, dtype=np.float64)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) * scale
    turned = np.zeros_like(xyz)
    turned[valid] = (xyz[valid] - centre) @ matrix.T + centre
    return turned
