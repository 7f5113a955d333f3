"""What the sensor makes of a view: blur, noise, missing points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cfr_fast.data.synthetic.camera import FOCAL, Pose
from cfr_fast.data.synthetic.canvas import Grid


@dataclass(frozen=True)
class Sensor:
    """Noise of one exposure, drawn before anything is seen, so that a defect cannot change it.

    Args:
        rgb: float32 [S, S, 3], grey levels.
        depth: float32 [S, S], mm.
        luck: float32 [S, S], a point is lost where its luck is below its risk.
        edge_loss: risk of points on the steepest edges.
        stray_loss: risk of any point.
    """

    rgb: NDArray[np.float32]
    depth: Grid
    luck: Grid
    edge_loss: float
    stray_loss: float

    @staticmethod
    def draw(size: int, rng: np.random.Generator) -> Sensor:
        """Draw the noise of size×size pixels."""
        rgb = rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(1.8)
        fine = rng.standard_normal((size, size), dtype=np.float32)
        coarse = rng.standard_normal((size, size), dtype=np.float32)
        depth = np.float32(0.09) * fine + np.float32(0.2) * gaussian_filter(coarse, 1.5, truncate=3)
        luck = rng.random((size, size), dtype=np.float32)
        edge_loss, stray_loss = rng.uniform(0.5, 0.95), rng.uniform(0.001, 0.015)
        return Sensor(rgb, depth, luck, edge_loss, stray_loss)

    def expose(self, developed: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The photo, uint8 [S, S, 3], of a noiseless image in grey levels."""
        return np.asarray(np.clip(np.rint(developed + self.rgb), 0, 255), dtype=np.uint8)

    def measure(self, pose: Pose, depth: Grid) -> NDArray[np.float32]:
        """The organized cloud: float32 [S, S, 3] in metres, zeros at many steep edges and a few strays."""
        footprint = pose.distance / (FOCAL * pose.size)
        jump = np.zeros_like(depth)
        for ahead, behind in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            step = np.abs(depth[ahead] - depth[behind])
            np.maximum(jump[ahead], step, out=jump[ahead])
            np.maximum(jump[behind], step, out=jump[behind])
        risk = self.stray_loss + self.edge_loss * np.clip((jump / footprint - 2.5) / 2, 0, 1)
        metres = (depth + self.depth) / np.float32(1000)
        xyz = pose.rays() * metres[..., None]
        xyz[self.luck < risk] = 0
        return np.asarray(xyz, dtype=np.float32)


def develop(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey levels, 0 to 255, from linear colour [h, w, 3]: lights roll off softly, the lens blurs."""
    bright = colour > 0.7
    rolled = colour.copy()
    rolled[bright] = 0.7 + 0.3 * np.tanh((colour[bright] - 0.7) / 0.3)
    blurred = gaussian_filter(rolled, (0.65, 0.65, 0), truncate=3)
    return np.asarray(255 * np.clip(blurred, 0, 1) ** np.float32(1 / 2.2), dtype=np.float32)
