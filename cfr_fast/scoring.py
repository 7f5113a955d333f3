"""From the discrepancy map s to the three normalised forms and the image score that the paper reports."""

from __future__ import annotations

import torch
from torch import Tensor


def _mean_of_nonzero(discrepancy: Tensor) -> Tensor:
    """Mean of the non-zero entries; 0 where there are none."""
    count = (discrepancy != 0).sum().clamp(min=1)
    return discrepancy.sum() / count


def localization_map(discrepancy: Tensor) -> Tensor:
    """s / mean of its non-zero entries (for AUPRO); all zeros stay zeros. [h, w] → [h, w]."""
    return _divide(discrepancy, _mean_of_nonzero(discrepancy))


def score_map(discrepancy: Tensor) -> Tensor:
    """s / √(mean of its non-zero entries): its maximum is the image score. [h, w] → [h, w]."""
    return _divide(discrepancy, _mean_of_nonzero(discrepancy).sqrt())


def image_score(discrepancy: Tensor) -> float:
    """Maximum of the score map; 0 for a map without any non-zero entry."""
    return float(score_map(discrepancy).max()) if discrepancy.numel() else 0.0


def _divide(discrepancy: Tensor, by: Tensor) -> Tensor:
    return torch.where(by > 0, discrepancy / by, torch.zeros_like(discrepancy))
