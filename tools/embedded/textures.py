"""Pictures from nothing but random numbers: fractal noise and dead leaves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Picture = NDArray[np.float32]
"""float32 [S, S] or [S, S, 3], 0 … 1 where it is a colour."""


def fractal(rng: np.random.Generator, size: int, slope: float) -> Picture:
    """Gaussian noise whose amplitude falls as 1/frequency^slope, of mean 0 and deviation 1: [size, size]."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    noise = rng.standard_normal((2, size, size // 2 + 1))
    field = np.fft.irfft2((noise[0] + 1j * noise[1]) / frequency**slope, (size, size))
    return np.asarray(field / max(float(field.std()), 1e-12), dtype=np.float32)


def fractal_picture(rng: np.random.Generator, size: int) -> Picture:
    """Coloured fractal noise, sometimes banded as marble or split by its level lines: [size, size, 3]."""
    slope = rng.uniform(0.6, 1.8)
    fields = np.stack([fractal(rng, size, slope + rng.uniform(-0.2, 0.2)) for _ in range(3)], axis=2)
    kind = int(rng.integers(3))
    if kind == 1:
        fields = np.sin(fields * rng.uniform(2, 6))
    elif kind == 2:
        fields = np.tanh((fields - rng.uniform(-0.5, 0.5)) * rng.uniform(4, 20)) + 0.3 * fields
    mixing = np.eye(3) * rng.uniform(0, 1) + rng.uniform(-0.5, 1, (3, 3))
    mixing *= rng.uniform(0.08, 0.25) / np.linalg.norm(mixing, axis=0, keepdims=True)
    return np.asarray(np.clip(rng.uniform(0.25, 0.75, 3) + fields @ mixing, 0, 1), dtype=np.float32)


def leaves(rng: np.random.Generator, size: int, channels: int = 3) -> Picture:
    """Dead leaves: superellipses of power-law size that occlude each other, each with a texture of its own.

    Sizes follow the density r^−3 that makes such pictures look alike at every scale, as natural ones do
    (Lee, Mumford and Huang, IJCV 2001).

    Args:
        rng: all randomness.
        size: S.
        channels: 3 for colours, 1 for heights.

    Returns:
        float32 [S, S, channels].
    """
    picture = np.empty((size, size, channels), np.float32)
    picture[:] = rng.uniform(0.1, 0.9, channels)
    base, spread = rng.uniform(0.25, 0.75, channels), rng.uniform(0.1, 0.3)
    grain = fractal(rng, 2 * size, rng.uniform(0.4, 1.4))
    low, high = size / 60, size / 3
    radii = 1 / np.sqrt(rng.uniform(1 / high**2, 1 / low**2, int(rng.integers(150, 700))))
    for radius in radii:
        centre = rng.uniform(0, size, 2)
        top, left = (max(0, int(c - 1.5 * radius)) for c in centre)
        bottom, right = (min(size, math.ceil(c + 1.5 * radius) + 1) for c in centre)
        y = (np.arange(top, bottom) - centre[0])[:, None]
        x = (np.arange(left, right) - centre[1])[None, :]
        turn, aspect = rng.uniform(0, math.pi), rng.uniform(0.35, 1)
        power = float(rng.choice([1.0, 2.0, 2.0, 4.0, 9.0]))
        u = (math.cos(turn) * x + math.sin(turn) * y) / radius
        v = (math.cos(turn) * y - math.sin(turn) * x) / (radius * aspect)
        norm = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
        cover = np.clip((1 - norm) * radius * aspect / 1.5 + 0.5, 0, 1)[..., None]
        colour = np.clip(base + spread * rng.standard_normal(channels), 0, 1)
        row, col = rng.integers(0, size, 2)
        texture = grain[row : row + bottom - top, col : col + right - left] * rng.uniform(0, 0.15)
        if rng.random() < 0.25:
            texture = texture + rng.uniform(0.03, 0.2) * np.sin(u * rng.uniform(6, 40))
        if rng.random() < 0.3:
            texture = texture + rng.uniform(-0.3, 0.3) * u
        leaf = colour + texture[..., None]
        view = picture[top:bottom, left:right]
        view += (leaf - view) * cover
    blurred = gaussian_filter(picture, (rng.uniform(0.3, 0.8),) * 2 + (0,))
    return np.asarray(np.clip(blurred, 0, 1), dtype=np.float32)
