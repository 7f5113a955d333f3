"""``cfr fit``: one model, or one for each of several categories, spread over processes by torchrun."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfr_fast.cli.common import load_categories, new_model, say, writable
from cfr_fast.errors import InputError

if TYPE_CHECKING:
    from cfr_fast.data import Category, SampleSource
    from cfr_fast.model import CFR

RECORD = "fit.json"
ENDING = ".cfr.safetensors"


def fit(options: argparse.Namespace) -> None:
    """``cfr fit``."""
    from cfr_fast.data import find_samples

    if bool(options.files) == bool(options.data):
        raise InputError("samples", "either files or --data", "both" if options.files else "neither")
    names = options.category or []
    if options.data and (len(names) > 1 or "all" in names):
        _fit_many(options, None if "all" in names else names)
        return
    writable(options.out.parent)
    model = new_model(options, options.seed)
    if options.files:
        chosen = find_samples(options.files, options.camera, options.unit)
    else:
        (category,) = load_categories(options, names or None, most=1)
        chosen = _shots(options, category)
    summary = _fit_one(model, chosen, options.out)
    learned = f"learned from {', '.join(summary['samples'])}; threshold {summary['threshold']:.4g}"
    say(summary, options.json, f"{options.out}: {learned}")


def _fit_many(options: argparse.Namespace, names: list[str] | None) -> None:
    """A model file for each category, in a folder; those that are there are not fitted again."""
    from cfr_fast.progress import display
    from cfr_fast.workers import Workers

    if options.samples:
        raise InputError("--samples", "one category", "several")
    workers = Workers.join()
    device = workers.device(options.device)

    def begin() -> list[str]:
        found = load_categories(options, names)
        for category in found:
            _shots(options, category)
        model = new_model(options, options.seed, device=device)
        _claim(options, found, model.settings.to_dict())
        return [entry.name for entry in found if not _file(options.out, entry.name).is_file()]

    with display(None if workers.leads else False):
        missing = workers.lead(begin)
        categories = load_categories(options, names)
        todo = [category for category in categories if category.name in missing]

        def do(category: Category) -> None:
            model = new_model(options, options.seed, device=device)
            _fit_one(model, _shots(options, category), _file(options.out, category.name))

        workers.work("Fitting", todo, lambda category: category.name, do)
    if workers.leads:
        files = {category.name: str(_file(options.out, category.name)) for category in categories}
        there = len(files) - len(todo)
        line = f"{options.out}: {len(todo)} models fitted, {there} were there already"
        say({"models": files, "fitted": missing}, options.json, line)


def _file(folder: Path, category: str) -> Path:
    return folder / f"{category}{ENDING}"


def _shots(options: argparse.Namespace, category: Category) -> list[SampleSource]:
    from cfr_fast.evaluation import choose_shots, indices_of

    rule = indices_of(category.train, options.samples) if options.samples else options.rule
    shots = len(options.samples) if options.samples else options.shots
    return [category.train[i] for i in choose_shots(len(category.train), shots, options.shot_seed, rule)]


def _fit_one(model: CFR, chosen: list[SampleSource], out: Path) -> dict[str, Any]:
    model.fit(chosen)
    model.save(out)
    return {
        "model": str(out),
        "samples": [source.name for source in chosen],
        "theta": model.theta_ if model.theta_ != float("inf") else None,
        "threshold": model.threshold_,
        "pixel_threshold": model.pixel_threshold_,
    }


def _claim(options: argparse.Namespace, categories: list[Category], settings: dict[str, Any]) -> None:
    """Make sure that the folder is new, or was begun with the same settings, choice and data."""
    from cfr_fast.data import fingerprint
    from cfr_fast.data.files import reading
    from cfr_fast.evaluation.files import write_json

    choice = {"shots": options.shots, "rule": options.rule, "shot_seed": options.shot_seed}
    prints = {category.name: fingerprint(category) for category in categories}
    record = {"format": "cfr_fast.fit/1", **choice, "settings": settings, "fingerprints": prints}
    path = writable(options.out) / RECORD
    if path.is_file():
        with reading(path, "JSON"):
            earlier = json.loads(path.read_text(encoding="utf-8"))
            old: dict[str, str] = earlier["fingerprints"]
            differing = [
                name for name in record if name != "fingerprints" and earlier.get(name) != record[name]
            ] + [f"data of {name}" for name in prints if name in old and old[name] != prints[name]]
        if differing:
            raise InputError(
                str(options.out),
                "a new folder, or models of the same settings and data (give another --out)",
                f"models of an earlier run with other {', '.join(differing)}",
            )
        record["fingerprints"] = {**old, **prints}
    write_json(path, record)
