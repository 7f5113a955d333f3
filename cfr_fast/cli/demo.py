"""``cfr demo``: everything on a set made here, in under two minutes on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cfr_fast.data import synthetic
from cfr_fast.evaluation import CategoryResult, evaluate
from cfr_fast.model import CFR

SIDE = 192  # of the images made
SIZE = 112  # of the grid that maps are computed on
QUICK: dict[str, Any] = {"cell": 4, "shot_views": 8}  # a demo has two minutes
GOOD = 6
DEFECTIVE = 2


def run_demo(out: Path, seed: int) -> list[CategoryResult]:
    """Make the set, fit one model for each category on one sample, judge the others.

    Args:
        out: folder for the pictures.
        seed: of the set and the models.

    Returns:
        One result for each category.
    """
    categories = [
        synthetic.load_category(name, train=1, good=GOOD, defective_per_type=DEFECTIVE, seed=seed, size=SIDE)
        for name in synthetic.categories()
    ]
    return evaluate(
        "procedural",
        categories,
        lambda model_seed: CFR(size=SIZE, seed=model_seed, background="none", **QUICK),
        seeds=(seed,),
        rule="first-k",
        size=SIZE,
        pictures=out,
    )
