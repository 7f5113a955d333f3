"""Scores of predicted samples, as CSV for a spreadsheet and as JSON for a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cfr_fast.errors import InputError
from cfr_fast.evaluation.detector import Verdict
from cfr_fast.evaluation.files import write_csv, write_json

COLUMNS = ("name", "score", "threshold", "label", "replaced_fraction", "notes")

Files = Sequence[Mapping[str, Path | str]]


def write_scores_csv(path: Path | str, results: Sequence[Verdict], files: Files | None = None) -> None:
    """Write one row for each result: name, score, threshold, label (true or false), replaced_fraction, notes.

    Several notes are joined by "; ".

    Args:
        path: of the CSV file; written atomically.
        results: what a model predicted.
        files: for each result, what was written for it, by kind (``{"overlay": "out/003.png"}``); every
            kind is one more column.

    Raises:
        InputError: not as many entries in `files` as results.
        OutputError: the file cannot be written.
    """
    listed = _listed(results, files)
    kinds = list(dict.fromkeys(kind for row in listed for kind in row))
    rows = [
        _verdict(result) | {"label": str(bool(result.label)).lower(), "notes": "; ".join(result.notes)} | row
        for result, row in zip(results, listed, strict=True)
    ]
    write_csv(path, [*COLUMNS, *kinds], rows)


def write_scores_json(path: Path | str, results: Sequence[Verdict], files: Files | None = None) -> None:
    """Write the same as a JSON list of objects; `files` is an object of its own in each.

    An infinite threshold, which no score exceeds, is null.
    """
    listed = _listed(results, files)
    rows = [_verdict(result) | {"files": row} for result, row in zip(results, listed, strict=True)]
    for row in rows:
        row["threshold"] = None if row["threshold"] == math.inf else row["threshold"]
    write_json(path, rows)


def _verdict(result: Verdict) -> dict[str, Any]:
    return {
        "name": result.name,
        "score": float(result.score),
        "threshold": float(result.threshold),
        "label": bool(result.label),
        "replaced_fraction": float(result.replaced_fraction),
        "notes": list(result.notes),
    }


def _listed(results: Sequence[Verdict], files: Files | None) -> list[dict[str, str]]:
    if files is None:
        return [{} for _ in results]
    if len(files) != len(results):
        raise InputError("files", f"{len(results)} entries, one for each result", f"{len(files)}")
    return [{kind: str(path) for kind, path in row.items()} for row in files]
