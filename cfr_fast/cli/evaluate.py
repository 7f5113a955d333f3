"""``cfr evaluate`` and ``cfr ablate``: the paper's protocol, spread over processes where torchrun says so."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cfr_fast.cli.common import dataset_label, load_categories, new_model, writable
from cfr_fast.errors import InputError

if TYPE_CHECKING:
    from cfr_fast.evaluation import CategoryResult
    from cfr_fast.evaluation.methods import Method, SharedFeatures
    from cfr_fast.evaluation.suite import Suite
    from cfr_fast.model import CFR
    from cfr_fast.workers import Workers


def evaluate(options: argparse.Namespace) -> None:
    """``cfr evaluate``."""
    from cfr_fast.evaluation.methods import methods_called
    from cfr_fast.workers import Workers

    workers = Workers.join()
    results = _run(options, workers, lambda: methods_called(options.methods))
    if workers.leads:
        show_results(results, options.out, options.json, _contents(options))


def ablate(options: argparse.Namespace) -> None:
    """``cfr ablate``."""
    from cfr_fast.evaluation.ablation import CALIBRATED, GIVEN, ablation_methods, write_figure
    from cfr_fast.workers import Workers

    def methods() -> list[Method]:
        thetas = options.theta
        if thetas is None:
            thetas = CALIBRATED if new_model(options, 0).settings.theta is None else GIVEN
        return ablation_methods(thetas, options.bank)

    workers = Workers.join()
    results = _run(options, workers, methods)
    if workers.leads:
        write_figure(options.out, results)
        show_results(results, options.out, options.json, f"ablation.png and .pdf, {_contents(options)}")


def show_results(results: Sequence[CategoryResult], out: Path, as_json: bool, contents: str) -> None:
    """Print the tables, or the JSON file, and say what is where."""
    from cfr_fast import evaluation

    if as_json:
        print((out / "results.json").read_text())
        return
    evaluation.print_results(results)
    Console(soft_wrap=True).print(
        f"results.txt, .csv, .json and .tex, {contents} are in {out}", highlight=False
    )


def _contents(options: argparse.Namespace) -> str:
    pictures = "" if options.no_pictures or options.keep_maps == "none" else ", pictures"
    clouds = ", clouds" if options.clouds and options.keep_maps != "none" else ""
    return f"every run{pictures}{clouds}" + ("" if options.keep_maps == "none" else " and maps")


def _run(options: argparse.Namespace, workers: Workers, methods: Any) -> list[CategoryResult]:
    """The suite of the options, checked by the leading process alone: one error, not one of each."""
    from cfr_fast.evaluation.suite import run_suite

    made: list[Suite] = []

    def check() -> None:
        writable(options.out)
        made.append(_suite(options, workers, methods()))

    workers.lead(check)
    suite = made[0] if made else _suite(options, workers, methods())
    return run_suite(suite, options.out, workers)


def _suite(options: argparse.Namespace, workers: Workers, methods: Sequence[Method]) -> Suite:
    from cfr_fast.evaluation import indices_of
    from cfr_fast.evaluation.methods import SharedFeatures
    from cfr_fast.evaluation.suite import Suite

    categories = load_categories(options, options.category)
    rule: str | list[int] = options.rule
    shots = options.shots
    if options.samples:
        if len(categories) != 1:
            raise InputError("--samples", "one category", f"{len(categories)}")
        rule, shots = indices_of(categories[0].train, options.samples), [len(options.samples)]
    device = workers.device(options.device)
    networks: list[CFR] = []  # loaded once for all fits

    def build(wanted: Sequence[Method], seed: int) -> SharedFeatures:
        def model(changes: Mapping[str, Any]) -> CFR:
            return new_model(options, seed, changes, device)

        made = SharedFeatures(wanted, model, networks[0] if networks else None)
        networks[:] = [made.lead]
        return made

    # A wrong setting fails now, not after the first category was read.
    settings = build(methods, 0).lead.settings.to_dict()
    size = settings["size"]
    del settings["seed"]  # that of each run is in its result
    return Suite(
        dataset_label(options),
        categories,
        methods,
        build,
        tuple(dict.fromkeys(shots)),
        tuple(dict.fromkeys(options.seeds)),
        size,
        rule,
        options.samples or (),
        options.preset,
        settings,
        options.keep_maps,
        options.skip_bad,
        not options.no_pictures,
        options.clouds,
    )
