"""The calibrated score: what banks and mappers hold against a cell, each by the measure of normal views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cfr_fast.calibrate import image_threshold, pixel_threshold
from cfr_fast.cells import cell_of_pixels, pooled, spread
from cfr_fast.conditioning import Conditioning, fit_conditioning
from cfr_fast.evidence import CellMemory, discrepancy, own_distances
from cfr_fast.learned import Learned
from cfr_fast.lesson import Lesson, PixelFeatures, trained
from cfr_fast.ops import Interpolated
from cfr_fast.scoring import score_map
from cfr_fast.settings import Settings

WEIGHTS = (1.0, 1.0, 1.0, 0.5, 0.5, 1.0)  # of `EVIDENCE`; a discrepancy says part of what its bank says
QUARTILE, LEVELLED = 0.75, 0.3  # of a sample's own cells, and the power of it that its map is divided by
SMOOTHING = 0.5  # cells: standard deviation of the Gaussian over the map
FLOOR = 1e-6  # least evidence, where a cell equals a remembered one


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What the calibrated score takes beside the mappers, all of it on cells.

    Args:
        rgb, xyz: conditioning of both kinds of features.
        memory: normal cells.
        scale: float [E], the mean of every evidence over normal views that the memory does not hold.
        side: cells per row of the grid.
    """

    rgb: Conditioning
    xyz: Conditioning
    memory: CellMemory
    scale: Tensor
    side: int

    def to(self, device: torch.device | str) -> Calibrated:
        """The same on another device."""
        parts = self.rgb.to(device), self.xyz.to(device), self.memory.to(device), self.scale.to(device)
        return Calibrated(*parts, self.side)

    def tensors(self) -> dict[str, Tensor]:
        """All numbers by name, as a file keeps them."""
        return {
            "rgb.mean": self.rgb.mean,
            "rgb.basis": self.rgb.basis,
            "xyz.mean": self.xyz.mean,
            "xyz.basis": self.xyz.basis,
            "memory.rgb": self.memory.rgb,
            "memory.xyz": self.memory.xyz,
            "memory.shot": self.memory.shot,
            "scale": self.scale,
        }

    @staticmethod
    def of(tensors: Mapping[str, Tensor], side: int) -> Calibrated:
        """From what `tensors` gave.

        Raises:
            KeyError: one is missing.
        """
        rgb, xyz = (Conditioning(tensors[f"{k}.mean"], tensors[f"{k}.basis"]) for k in ("rgb", "xyz"))
        memory = CellMemory(*(tensors[f"memory.{name}"] for name in ("rgb", "xyz", "shot")))
        return Calibrated(rgb, xyz, memory, tensors["scale"], side)

    def cells(self, view: PixelFeatures) -> PixelFeatures:
        """Conditioned features of the view's cells."""
        return _conditioned(pooled(view, self.side), self.rgb, self.xyz)

    def combined(self, found: Tensor, valid: Tensor, size: int) -> Tensor:
        """The product of all evidence, each divided by its scale and raised to its weight.

        It is then divided by the upper quartile over the sample's own cells to the power 0.3: a sample that
        is unusual all over, by its light or its pose, is less suspect than one that is in a single place.

        Args:
            found: float [C, E], as of `evidence`.
            valid: bool [side, side] with C True cells.
            size: of the map.

        Returns:
            float [size, size], smoothed; about 1 where nothing is unusual.
        """
        weight = torch.tensor(WEIGHTS[: found.shape[1]], dtype=found.dtype, device=found.device)
        logs = (found / self.scale).clamp(min=FLOOR).log() @ weight
        if logs.numel():
            logs = logs - LEVELLED * logs.quantile(QUARTILE)
        return spread(logs.exp(), valid, size, SMOOTHING)


def cells_per_row(settings: Settings) -> int:
    """Of the grid that covers size×size pixels."""
    return -(-settings.size // settings.cell)


def map_calibrated(view: PixelFeatures, learned: Learned, settings: Settings) -> tuple[Tensor, Tensor]:
    """The map s of one sample, and which of its pixels lie in cells whose prediction is replaced.

    Args:
        view: its V valid pixels.
        learned: of a model with the calibrated score.
        settings: of the model.

    Returns:
        float [size, size], and rows of the V pixels, int64 [U], ascending.
    """
    assert learned.calibrated is not None
    cells, size = learned.calibrated.cells(view), view.valid.shape[0]
    found, rows = evidence(learned, cells, learned.calibrated.memory, settings)
    replaced = torch.zeros_like(cells.valid)
    replaced.view(-1)[cells.valid.reshape(-1).nonzero()[rows, 0]] = True
    pixels = cell_of_pixels(view.valid, learned.calibrated.side)
    return learned.calibrated.combined(found, cells.valid, size), replaced.view(-1)[pixels].nonzero()[:, 0]


def evidence(
    learned: Learned, cells: PixelFeatures, memory: CellMemory, settings: Settings
) -> tuple[Tensor, Tensor]:
    """All that speaks against each of C cells, and the cells whose RGB prediction is replaced.

    Args:
        learned: trained on cells.
        cells: conditioned.
        memory: normal cells to compare with.
        settings: of the model.

    Returns:
        float [C, E], in the order of `EVIDENCE` (the last with `self_similarity` alone), and int64 [U],
        ascending.
    """
    rgb, xyz = cells.rgb.dense(), cells.xyz.dense()
    predicted_rgb, predicted_xyz = learned.mappers.xyz_to_rgb(xyz), learned.mappers.rgb_to_xyz(rgb)
    rows, replacement = learned.replacement(predicted_rgb, cells.rgb, cells.xyz, settings)
    predicted_rgb = predicted_rgb.index_copy(0, rows, replacement)
    mapped = [discrepancy(predicted_rgb, rgb), discrepancy(predicted_xyz, xyz)]
    if settings.self_similarity:
        mapped.append(own_distances(rgb, xyz, cells.valid))
    return torch.cat([memory.distances(rgb, xyz), torch.stack(mapped, dim=1)], dim=1), rows


def learn_calibrated(lesson: Lesson, settings: Settings) -> Learned:
    """Train CFR's parts on conditioned cells, remember cells of shots and views, and calibrate.

    Scales and both thresholds come from the calibration views, which are
    compared with what the other shots show; with one shot alone, with other views of the same part.
    """
    side = cells_per_row(settings)
    key = ("cells", side, settings.feature_width, settings.whitening)
    with torch.no_grad():
        cells, rgb, xyz = lesson.once(key, lambda: _on_cells(lesson, side, settings))
    learned = trained(cells, settings)
    with torch.no_grad():
        memory = _memory(cells, settings)
        held_out = [
            (view, evidence(learned, view, memory.without(shot), settings)[0])
            for view, shot in zip(cells.calibration, cells.calibration_shots, strict=True)
        ]
        normal = torch.cat([found for _, found in held_out])
        if not len(normal):  # views may lose a part of a few points; shots never do
            normal = torch.cat([evidence(learned, shot, memory, settings)[0] for shot in cells.shots])
        scale = normal.mean(dim=0).clamp(min=FLOOR)
        learned.calibrated = Calibrated(rgb, xyz, memory, scale, side)
        _calibrate(learned, held_out, settings)
    return learned


def _calibrate(learned: Learned, held_out: Sequence[tuple[PixelFeatures, Tensor]], wanted: Settings) -> None:
    """Both thresholds."""
    assert learned.calibrated is not None
    scored = [
        score_map(learned.calibrated.combined(found, view.valid, wanted.size)) for view, found in held_out
    ]
    scores = [float(found.max()) for found in scored]
    learned.threshold = (
        image_threshold(scores, wanted.false_alarm) if wanted.threshold is None else wanted.threshold
    )
    covered = [found[found > 0].cpu().numpy() for found in scored]
    learned.pixel_threshold = pixel_threshold(covered, learned.threshold)


def _on_cells(lesson: Lesson, side: int, wanted: Settings) -> tuple[Lesson, Conditioning, Conditioning]:
    """The lesson on conditioned cells, and the conditioning of both kinds, fitted on shots and views."""
    parts = [
        tuple(pooled(view, side) for view in part)
        for part in (lesson.shots, lesson.views, lesson.calibration)
    ]
    seen = [*parts[0], *parts[1]]
    rgb, xyz = (
        fit_conditioning(
            torch.cat([getattr(view, kind).dense() for view in seen]), wanted.feature_width, wanted.whitening
        )
        for kind in ("rgb", "xyz")
    )
    shots, views, calibration = (tuple(_conditioned(view, rgb, xyz) for view in part) for part in parts)
    owners = lesson.view_shots, lesson.calibration_shots
    return Lesson(shots, views, calibration, shots, *owners), rgb, xyz


def _conditioned(cells: PixelFeatures, rgb: Conditioning, xyz: Conditioning) -> PixelFeatures:
    colors, shapes = rgb(cells.rgb.dense()), xyz(cells.xyz.dense())
    return PixelFeatures(Interpolated.of(colors), Interpolated.of(shapes), cells.valid)


def _memory(cells: Lesson, wanted: Settings) -> CellMemory:
    """At most `wanted.memory_cells` cells of shots and views, drawn at random."""
    seen = [
        *zip(cells.shots, range(len(cells.shots)), strict=True),
        *zip(cells.views, cells.view_shots, strict=True),
    ]
    rgb, xyz = (torch.cat([getattr(view, kind).dense() for view, _ in seen]) for kind in ("rgb", "xyz"))
    shot = torch.cat([torch.full((view.rgb.pixels,), number) for view, number in seen]).to(rgb.device)
    drawn = torch.randperm(len(shot), generator=torch.Generator().manual_seed(wanted.seed))
    rows = drawn[: wanted.memory_cells].sort().values.to(rgb.device)
    return CellMemory.of(rgb[rows], xyz[rows], shot[rows])
