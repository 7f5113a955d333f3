"""From surface and light to colour: diffuse light, highlight, darker hollows, a shadow on the table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cfr_fast.data.synthetic.canvas import Canvas, Grid
from cfr_fast.data.synthetic.materials import Colour, Look


@dataclass(frozen=True)
class Light:
    """A lamp far away: azimuth and elevation (radians), brightness, tint of its light."""

    azimuth: float
    elevation: float
    brightness: float
    tint: Colour

    @staticmethod
    def draw(rng: np.random.Generator) -> Light:
        """The lamp of a station: much the same for every part."""
        return Light(
            azimuth=-2.3 + rng.uniform(-0.2, 0.2),
            elevation=rng.uniform(0.72, 0.84),
            brightness=rng.uniform(0.95, 1.05),
            tint=rng.uniform(0.98, 1.02, 3).astype(np.float32),
        )

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector towards the lamp: x right, y down, z up from the table."""
        flat = math.cos(self.elevation)
        return flat * math.cos(self.azimuth), flat * math.sin(self.azimuth), math.sin(self.elevation)


def shade_part(canvas: Canvas, height: Grid, look: Look, light: Light) -> NDArray[np.float32]:
    """Linear colour of the part, [N, N, 3] (Lambert, Blinn-Phong with the viewer above, hollows darker)."""
    slope_y, slope_x = np.gradient(height, np.float32(canvas.spacing))
    steep = np.float32(2.5)
    slope_x, slope_y = np.clip(slope_x, -steep, steep), np.clip(slope_y, -steep, steep)
    normal_z = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    x, y, z = light.direction
    facing = (z - x * slope_x - y * slope_y) * normal_z
    half = math.sqrt(2 * (1 + z))
    highlight = np.clip(((1 + z) - x * slope_x - y * slope_y) * normal_z / half, 0, 1)
    hollow = np.zeros_like(height)
    for sigma, weight in ((1.2, 0.2), (4.0, 0.07)):
        mean = gaussian_filter(height, sigma / canvas.spacing, truncate=3)
        hollow += weight * np.clip(mean - height, 0, None)
    openness = 1 / (1 + hollow * (1 - 0.6 * look.glow))
    wrap = 0.45 * look.glow
    diffuse = np.clip((facing + wrap) / (1 + wrap), 0, None)
    around = (0.34 + 0.1 * look.glow) * openness * (0.6 + 0.4 * normal_z)
    body = around + (0.88 - 0.12 * look.glow) * diffuse * (0.5 + 0.5 * openness)
    shine = look.gloss * openness * (highlight**look.sharpness + 0.12 * highlight ** (look.sharpness / 4))
    colour = look.albedo * body[..., None] + shine[..., None]
    return np.asarray(colour * (light.brightness * light.tint), dtype=np.float32)


def shade_table(
    canvas: Canvas, height: Grid, colour: Colour, light: Light, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Linear colour of the table, [N, N, 3]: a woven belt with the part's soft shadow on it."""
    x, y, z = light.direction
    tangent = z / math.hypot(x, y)
    reach = float(height.max()) / tangent
    steps = 12
    shadow = np.zeros_like(height)
    for k in range(1, steps + 1):
        distance = reach * k / steps
        row, col = (round(-direction * distance / math.hypot(x, y) / canvas.spacing) for direction in (y, x))
        rise = np.roll(height, (row, col), axis=(0, 1)) - np.float32(distance * tangent)
        np.maximum(shadow, np.clip(rise / 3, 0, 1), out=shadow)
    shadow = gaussian_filter(shadow, 2.0 / canvas.spacing, truncate=3)
    contact = gaussian_filter(np.minimum(height, 8), 4.0 / canvas.spacing, truncate=3) / 8
    offset = rng.uniform(0, 2.4, 2).tolist()
    weave = np.cos((canvas.axis + offset[0]) * np.float32(2 * math.pi / 2.4))[:, None]
    weave = weave * np.cos((canvas.axis + offset[1]) * np.float32(2 * math.pi / 2.4))[None, :]
    fine = min(1.0, (1.2 / canvas.spacing) ** 2) * 0.035
    texture = 1 + np.float32(fine) * weave + 0.02 * canvas.noise(rng, 1.2) + 0.02 * canvas.noise(rng, 20.0)
    level = (0.4 * (1 - 0.5 * contact) + 0.72 * z * (1 - 0.75 * shadow)) * texture * 1.05
    return np.asarray(level[..., None] * (colour * light.tint * light.brightness), dtype=np.float32)
