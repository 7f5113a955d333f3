"""What each command does; heavy imports wait until a command needs them, so that --help is instant."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from cfr_fast.cli.common import load_categories, say, writable
from cfr_fast.errors import InputError
from cfr_fast.progress import display, track


class Version(argparse.Action):
    """``--version``."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print the version and leave."""
        from cfr_fast import __version__

        print(f"cfr_fast {__version__}")
        parser.exit()


def demo(options: argparse.Namespace) -> None:
    """``cfr demo``."""
    from cfr_fast.cli.demo import run_demo
    from cfr_fast.cli.evaluate import show_results
    from cfr_fast.evaluation.table import write_tables

    results = run_demo(writable(options.out), options.seed)
    write_tables(options.out, results)
    show_results(results, options.out, options.json, "tables and pictures")


def bench(options: argparse.Namespace) -> None:
    """``cfr bench``."""
    import torch

    from cfr_fast.benchmark import RACES, SLOW, Outcome, measure_machine, report, run

    if options.races != ["paper"]:
        for name in options.races:
            if name not in RACES:
                raise InputError("races", f"names among {', '.join(RACES)}, or paper alone", repr(name))
        for name in ("sample", "epochs"):
            if getattr(options, name) is not None:
                raise InputError(
                    f"--{name}", "the name paper alone beside it", ", ".join(options.races) or "none"
                )
    for name in ("threads", "rounds", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}", "a whole number ≥ 1", str(value))
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.races == ["paper"]:
        _bench_paper(options)
        return
    names = options.races or [name for name in RACES if options.slow or name not in SLOW]
    outcomes: list[Outcome] = []
    with display():
        machine = measure_machine()
        for name in track(names, "Racing"):
            outcomes.append(run(name, RACES[name](), options.rounds))
    if options.json:
        print(json.dumps(report.to_json(machine, outcomes), indent=2))
    else:
        report.show(machine, outcomes)


def _bench_paper(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from cfr_fast.benchmark import measure_machine, paper, report
    from cfr_fast.data import find_samples

    if options.sample is None:
        sample = paper.made_up_sample()
    else:
        sources = find_samples([options.sample])
        if len(sources) != 1:
            raise InputError("--sample", "files of one sample", f"{options.sample} with {len(sources)}")
        sample = sources[0].load()
    machine = measure_machine()
    timing = paper.measure(sample, options.epochs or paper.EPOCHS, options.rounds or 3)
    if options.json:
        print(json.dumps({"machine": asdict(machine), "paper": timing.to_json()}, indent=2))
    else:
        report.show_paper(machine, timing)


def predict(options: argparse.Namespace) -> None:
    """``cfr predict``."""
    from cfr_fast import evaluation
    from cfr_fast.data import find_samples
    from cfr_fast.model import CFR

    _require_apart(options.out, options.files)
    sources = find_samples(options.files, options.camera, options.unit)
    out = writable(options.out)
    model = CFR.load(options.model, device=options.device)
    verdicts: list[evaluation.Verdict] = []
    files: list[dict[str, str]] = []
    try:
        with display():
            for source in track(sources, "Predicting"):
                sample = source.load()
                result = model.predict(sample)
                stem = evaluation.file_stem(source.name)
                paths = {
                    "overlay": out / f"{stem}_overlay.png",
                    "mask": out / f"{stem}_mask.png",
                    "map": out / f"{stem}_map.{options.maps}",
                }
                drawn = evaluation.overlay(
                    sample.rgb, result.anomaly_map, result.mask, result.pixel_threshold
                )
                evaluation.write_png(paths["overlay"], drawn)
                evaluation.write_png(paths["mask"], result.mask)
                evaluation.write_map(paths["map"], result.anomaly_map)
                if options.clouds:
                    paths["cloud"] = out / f"{stem}.ply"
                    evaluation.write_cloud(paths["cloud"], sample, result, options.clouds)
                verdicts.append(result.verdict())
                files.append({kind: path.name for kind, path in paths.items()})
    finally:  # what is done stays usable when a later sample cannot be read
        if verdicts:
            evaluation.write_scores_csv(out / "scores.csv", verdicts, files)
            evaluation.write_scores_json(out / "scores.json", verdicts, files)
    if options.json:
        print((out / "scores.json").read_text())
    else:
        Console().print(evaluation.verdict_table(verdicts))
        clouds = " clouds," if options.clouds else ""
        Console().print(
            f"overlays, masks, maps,{clouds} scores.csv and scores.json are in {out}", highlight=False
        )


def import_authors(options: argparse.Namespace) -> None:
    """``cfr import-authors``."""
    from cfr_fast.authors import find_files
    from cfr_fast.model import CFR

    writable(options.out.parent)
    files: dict[str, Any] = dict(find_files(options.folder))
    model = CFR.from_authors(
        **files,
        threshold=options.theta,
        score_threshold=options.score_threshold,
        normalize_qk=options.normalize_qk,
        device="cpu",
    )
    model.save(options.out)
    wanted = model.settings
    summary = {
        "model": str(options.out),
        "files": {argument: str(path) for argument, path in files.items()},
        "mapper": wanted.mapper,
        "replacement": wanted.replacement,
        "theta": model.theta_,
        "threshold": model.threshold_ if model.threshold_ != float("inf") else None,
    }
    names = ", ".join(path.name for path in files.values())
    say(
        summary,
        options.json,
        f"{options.out}: {wanted.mapper} mappers, replacement {wanted.replacement}, from {names}",
    )


def prepare_dataset(options: argparse.Namespace) -> None:
    """``cfr prepare``."""
    from cfr_fast.data import prepare_category

    with display():
        done = [
            prepare_category(category, options.out, options.background, options.seed, source=options.data)
            for category in track(load_categories(options, options.category), "Preparing")
        ]
    report = [
        {
            "folder": str(entry.folder),
            "written": entry.written,
            "skipped": entry.skipped,
            "with_background": list(entry.with_background),
        }
        for entry in done
    ]
    lines = []
    for entry in done:
        lines.append(f"{entry.folder}: {entry.written} samples written, {entry.skipped} were there already")
        if entry.with_background:
            lines.append(f"  background kept in {', '.join(entry.with_background)}")
    say(report, options.json, "\n".join(lines))


def synth(options: argparse.Namespace) -> None:
    """``cfr synth``."""
    from cfr_fast.data import synthetic

    with display():
        synthetic.write_dataset(
            options.out,
            categories=options.category,
            train=options.train,
            good=options.good,
            defective_per_type=options.defective,
            seed=options.seed,
            size=options.size,
            background=options.background,
        )
    Console().print(f"the procedural set is in {options.out}", highlight=False)


def info(options: argparse.Namespace) -> None:
    """``cfr info``."""
    from cfr_fast.cli.info import collect, show

    found = collect()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


def _require_apart(out: Path, given: Sequence[Path]) -> None:
    """Refuse to write pictures where the next run would look for samples."""
    for path in given:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise InputError("--out", f"a folder outside of {path}, which is searched for samples", str(out))
