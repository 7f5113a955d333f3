"""From the discrepancy map of one sample to everything that is said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cfr_fast.data import Frame
from cfr_fast.extractors import FeatureField
from cfr_fast.lesson import PixelFeatures
from cfr_fast.ops import Interpolated
from cfr_fast.result import Result
from cfr_fast.scoring import localization_map, score_map

NOTHING = "no pixel has both features: nothing was judged"


@dataclass(frozen=True, eq=False)
class Features:
    """One sample as the method sees it: the sparse features of its valid pixels, in raster order.

    Args:
        frame: the square view, cleaned, and cut to the object where the settings say so.
        whole: the square view of the whole sample, cleaned.
        rgb: features of the V valid pixels.
        xyz: of the same pixels.
        valid: bool [size, size] with V True pixels.
        notes: what a user should know about the sample, a sentence each.
    """

    frame: Frame
    whole: Frame
    rgb: Interpolated
    xyz: Interpolated
    valid: Tensor
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(
        frame: Frame,
        whole: Frame,
        rgb: FeatureField,
        xyz: FeatureField,
        background: bool = False,
        notes: tuple[str, ...] = (),
    ) -> Features:
        """From the fields of both kinds, whose notes follow `notes`; `background`: every pixel is valid."""
        valid = rgb.valid & xyz.valid
        pixel = torch.arange(rgb.pixels, device=valid.device) if background else valid.nonzero()[:, 0]
        colors, shapes = (field.interpolated.select(pixel).compact() for field in (rgb, xyz))
        notes = notes + rgb.notes + xyz.notes
        return Features(frame, whole, colors, shapes, valid.reshape(rgb.shape), notes)

    @property
    def count(self) -> int:
        """V."""
        return self.rgb.pixels

    @property
    def pixels(self) -> PixelFeatures:
        """The features without the frames, which take more memory than they do."""
        return PixelFeatures(self.rgb, self.xyz, self.valid)


class Levels(Protocol):
    """What decides label and mask: `cfr_fast.learned.Learned`, or a baseline's."""

    threshold: float
    pixel_threshold: float


def judged(name: str, features: Features, found: Tensor, replaced_rows: Tensor, learned: Levels) -> Result:
    """The result of one sample.

    Args:
        name: of the sample.
        features: what the model saw of it.
        found: the discrepancy map s, float [size, size].
        replaced_rows: int64 [U], which of the V valid pixels had their prediction replaced.
        learned: of the model; its thresholds decide label and mask.
    """
    frame, whole, valid = features.frame, features.whole, features.valid
    replaced = torch.zeros_like(valid)
    replaced.view(-1)[valid.reshape(-1).nonzero()[replaced_rows, 0]] = True
    scored = score_map(found)
    score = float(scored.max())
    anomaly_map = frame.to_source(scored.cpu().numpy())
    label = score > learned.threshold
    # Resampling may lower the peak; a sample labelled anomalous marks at least that.
    level = min(learned.pixel_threshold, float(anomaly_map.max())) if label else np.inf
    grids = [found, valid.float(), replaced.float()]
    if frame is not whole:  # whatever the model looked at, results speak of the whole sample
        size = valid.shape[0]
        grids = [
            torch.from_numpy(whole.grid_map(frame.to_source(grid.cpu().numpy()), size)) for grid in grids
        ]
    notes = features.notes if features.count else (*features.notes, NOTHING)
    return Result(
        name=name,
        score=score,
        threshold=learned.threshold,
        label=label,
        anomaly_map=anomaly_map,
        mask=anomaly_map >= level,
        pixel_threshold=learned.pixel_threshold,
        replaced_fraction=len(replaced_rows) / max(1, features.count),
        raw_map=grids[0].cpu().numpy(),
        localization_map=localization_map(grids[0]).cpu().numpy(),
        valid=grids[1].cpu().numpy() > 0.5,
        replaced=grids[2].cpu().numpy() > 0.5,
        frame=whole,
        notes=notes,
    )
