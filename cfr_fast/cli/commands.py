"""What each command does; heavy imports wait until a command needs them, so that --help is instant."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from cfr_fast.errors import InputError, OutputError
from cfr_fast.progress import display, track

if TYPE_CHECKING:
    from cfr_fast.data import Category, DatasetName
    from cfr_fast.evaluation import CategoryResult
    from cfr_fast.model import CFR


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

    results = run_demo(_writable(options.out), options.seed)
    _report(results, options.out, options.json)


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


def fit(options: argparse.Namespace) -> None:
    """``cfr fit``."""
    from cfr_fast.data import find_samples
    from cfr_fast.evaluation import choose_shots, indices_of

    if bool(options.files) == bool(options.data):
        raise InputError("samples", "either files or --data", "both" if options.files else "neither")
    _writable(options.out.parent)
    model = _new_model(options, options.seed)
    if options.files:
        chosen = find_samples(options.files, options.camera, options.unit)
    else:
        (category,) = _categories(options, [options.category] if options.category else None, most=1)
        rule = indices_of(category.train, options.samples) if options.samples else options.rule
        shots = len(options.samples) if options.samples else options.shots
        chosen = [
            category.train[i] for i in choose_shots(len(category.train), shots, options.shot_seed, rule)
        ]
    model.fit(chosen)
    model.save(options.out)
    names = [source.name for source in chosen]
    summary = {
        "model": str(options.out),
        "samples": names,
        "theta": model.theta_ if model.theta_ != float("inf") else None,
        "threshold": model.threshold_,
        "pixel_threshold": model.pixel_threshold_,
    }
    _say(
        summary,
        options.json,
        f"{options.out}: learned from {', '.join(names)}; threshold {model.threshold_:.4g}",
    )


def predict(options: argparse.Namespace) -> None:
    """``cfr predict``."""
    from cfr_fast import evaluation
    from cfr_fast.data import find_samples
    from cfr_fast.model import CFR

    _require_apart(options.out, options.files)
    sources = find_samples(options.files, options.camera, options.unit)
    out = _writable(options.out)
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
        Console().print(f"overlays, masks, maps, scores.csv and scores.json are in {out}", highlight=False)


def evaluate(options: argparse.Namespace) -> None:
    """``cfr evaluate``."""
    from cfr_fast import evaluation

    out = _writable(options.out)
    categories = _categories(options, options.category)
    rule: str | list[int] = options.rule
    shots = options.shots
    if options.samples:
        if len(categories) != 1:
            raise InputError("--samples", "one category", f"{len(categories)}")
        rule, shots = evaluation.indices_of(categories[0].train, options.samples), [len(options.samples)]
    probe = _new_model(options, 0)  # a wrong setting fails now, not after the first category was read
    results: list[CategoryResult] = []

    def keep(result: CategoryResult) -> None:
        results.append(result)
        _write_results(results, out)

    evaluation.evaluate(
        options.dataset,
        categories,
        lambda seed: _new_model(options, seed),
        shots=shots,
        seeds=options.seeds,
        rule=rule,
        size=probe.settings.size,
        pictures=None if options.no_pictures else out,
        on_result=keep,
    )
    _report(results, out, options.json)


def import_authors(options: argparse.Namespace) -> None:
    """``cfr import-authors``."""
    from cfr_fast.authors import find_files
    from cfr_fast.model import CFR

    _writable(options.out.parent)
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
    _say(
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
            for category in track(_categories(options, options.category), "Preparing")
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
    _say(report, options.json, "\n".join(lines))


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


def _new_model(options: argparse.Namespace, seed: int | None) -> CFR:
    from cfr_fast.model import CFR

    named = {
        name: getattr(options, name) for name in ("rgb", "xyz", "replacement", "size", "crop", "background")
    }
    settings: dict[str, Any] = {
        name: value for name, value in (named | {"seed": seed}).items() if value is not None
    }
    for assignment in options.set:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError("--set", "NAME=VALUE", repr(assignment))
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value  # a bare word is a string
    return CFR.preset(options.preset, device=options.device, **settings)


def _categories(
    options: argparse.Namespace, names: Sequence[str] | None, most: int | None = None
) -> list[Category]:
    """The categories asked for, or all; at most `most`."""
    from cfr_fast.data import detect_dataset, list_categories, load_category

    dataset: DatasetName = options.dataset if options.dataset != "auto" else detect_dataset(options.data)
    options.dataset = dataset
    if names is None:
        names = list_categories(dataset, options.data)
        if most is not None and len(names) > most:
            raise InputError("--category", f"one of {', '.join(names)}", "none")
    return [load_category(dataset, options.data, name) for name in names]


def _require_apart(out: Path, given: Sequence[Path]) -> None:
    """Refuse to write pictures where the next run would look for samples."""
    for path in given:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise InputError("--out", f"a folder outside of {path}, which is searched for samples", str(out))


def _writable(folder: Path) -> Path:
    """Make the folder and try it now, before anything long is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
    return folder


def _write_results(results: Sequence[CategoryResult], out: Path) -> None:
    from cfr_fast import evaluation

    evaluation.write_results_csv(out / "results.csv", results)
    evaluation.write_results_json(out / "results.json", results)


def _report(results: Sequence[CategoryResult], out: Path, as_json: bool) -> None:
    from cfr_fast import evaluation

    _write_results(results, out)
    if as_json:
        print((out / "results.json").read_text())
        return
    evaluation.print_results(results)
    Console().print(f"results.csv, results.json and pictures are in {out}", highlight=False)


def _say(content: Any, as_json: bool, line: str) -> None:
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        Console(soft_wrap=True).print(line, highlight=False, markup=False)
