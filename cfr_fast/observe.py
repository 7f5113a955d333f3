"""From samples to what the model sees of them: prepared, framed, and through the frozen extractors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cfr_fast.data import Sample, frame_of, is_prepared, prepare
from cfr_fast.extractors import Extractor
from cfr_fast.judge import Features
from cfr_fast.settings import Settings

KEPT = "no background was found: every point is kept"


def observe(
    samples: Sequence[Sample],
    extractors: tuple[Extractor, Extractor],
    settings: Settings,
    device: torch.device,
    background: bool = False,
) -> list[Features]:
    """Features of samples, which go through each frozen network together.

    Args:
        samples: at least one.
        extractors: of RGB and 3D features.
        settings: of the model.
        device: where features go.
        background: whether every pixel counts as valid.
    """
    cleaned = [prepare(sample, settings.background, settings.seed) for sample in samples]
    wholes = [frame_of(sample) for sample in cleaned]
    frames = [frame_of(sample, crop=True) for sample in cleaned] if settings.crop else wholes
    fields = (
        [field.to(device) for field in extractor.extract_many(frames, settings.size)]
        for extractor in extractors
    )
    found = []
    for sample, frame, whole, rgb, xyz in zip(cleaned, frames, wholes, *fields, strict=True):
        notes = (KEPT,) if settings.background == "auto" and not is_prepared(sample) else ()
        found.append(Features.of(frame, whole, rgb, xyz, background, notes))
    return found
