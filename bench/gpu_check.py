"""Are the CUDA kernels right and as fast as promised? bench/gpu_check.sh runs it on a machine with a card.

python bench/gpu_check.py [--results FOLDER]   checks, roofs, races; FOLDER/<card>.json
python bench/gpu_check.py --few                one small case of each op, as for a memory checker
python bench/gpu_check.py --hopper             portable tiles, raced by 9.0's own; FOLDER/<card>_hopper.json
python bench/gpu_check.py --whole              whole models, against the processor; FOLDER/<card>_whole.json
python bench/gpu_check.py --dry-run            on the processor, tiny: tries out the script

Exit status: 0 when all is right and every promise kept, 1 when not, 2 without a card.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from gpu import checks, hopper, inference, races, timing, whole

from cfr_fast.ops import loader

RACES: dict[str, Callable[[races.Bench], races.Race | list[races.Race]]] = {
    "topk": races.topk_cosine,
    "topk-precisions": races.topk_precisions,
    "filter": races.confidence_filter,
    "attention": races.bank_attention,
    "score": races.replace_and_score,
    "coreset": races.coreset,
    "inference": inference.build,
    "points": races.points,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON"
    )
    parser.add_argument("--seconds", type=float, default=240, help="after which no further race begins")
    parser.add_argument("--seed", type=int, default=None, help="of the cases' inputs; by default a new one")
    parser.add_argument("--only", nargs="*", choices=RACES, help="races to run; by default all")
    parser.add_argument("--few", action="store_true", help="one small case of each op and nothing else")
    parser.add_argument("--hopper", action="store_true", help="check CFR_FAST_HOPPER=0, race it")
    parser.add_argument("--whole", action="store_true", help="whole models and nothing else")
    parser.add_argument("--dry-run", action="store_true", help="on the processor, with tiny sizes")
    return parser.parse_args()


def check(device: torch.device, seed: int, few: bool, ops: Sequence[str] | None) -> list[dict[str, str]]:
    found = []
    for entry in checks.examine_all(device, seed, few, ops):
        found.append(entry)
        mark = "WRONG" if entry["failure"] else "right"
        print(f"{mark}  {entry['op']} {entry['sizes']} ({entry['kernel']}) {entry['failure']}", flush=True)
    return found


def measure(race: races.Race, timer: timing.Timer, roofs: dict[str, float]) -> dict[str, Any]:
    """Run one race; every promise becomes a line of name, value, bar and whether it is kept."""
    try:
        race.same()
        failure = ""
    except Exception as error:
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    if race.rounds is not None:
        timer = timing.Timer(timer.device, race.rounds, timer.seconds)
    times = timer.race({"ours": race.ours, **race.peers}, race.sets)
    times = {name: value * race.parts.get(name, 1) for name, value in times.items()}
    entry: dict[str, Any] = {"what": race.what, "seconds": times, "disagreement": failure}
    entry["ratios"] = {peer: times[peer] / times["ours"] for peer in race.peers}
    promises = [(f"times as fast as {peer}", entry["ratios"][peer], bar) for peer, bar in race.bars.items()]
    if race.seconds is not None:
        promises.append((f"times as fast as {race.seconds:g} s", race.seconds / times["ours"], 1.0))
    if race.work is not None:
        entry["tflops"] = race.work / times["ours"] / 1e12
        entry["share_of_bf16"] = entry["tflops"] / roofs["bf16_tflops"]
        entry["share_of_fp32"] = entry["tflops"] / roofs["fp32_tflops"]
    if race.traffic is not None:
        entry["gb_per_s"] = race.traffic / times["ours"] / 1e9
        entry["share_of_copy"] = entry["gb_per_s"] / roofs["copy_gb_per_s"]
        if race.share is not None:
            promises.append(("of the copy's bandwidth", entry["share_of_copy"], race.share))
    entry["promises"] = [
        {"what": what, "value": value, "bar": bar, "kept": value >= bar and not failure}
        for what, value, bar in promises
        if timer.device.type == "cuda"  # a processor at tiny sizes has nothing to keep
    ]
    return entry


def show(entry: dict[str, Any]) -> None:
    print(f"\n{entry['what']}: ours {entry['seconds']['ours'] * 1e3:.3f} ms", end="")
    for key, label in (("share_of_bf16", "bf16 mm"), ("share_of_fp32", "fp32 mm"), ("share_of_copy", "copy")):
        if key in entry:
            print(f" · {entry[key]:.1%} of {label}", end="")
    print()
    for peer, ratio in entry["ratios"].items():
        print(f"    {peer}: {entry['seconds'][peer] * 1e3:.3f} ms, {ratio:.2f} × ours")
    for promise in entry["promises"]:
        mark = "kept  " if promise["kept"] else "BROKEN"
        print(f"    {mark} {promise['value']:.2f} {promise['what']}, promised {promise['bar']:.2f}")
    if entry["disagreement"]:
        print(f"    WRONG {entry['disagreement']}", flush=True)


def run_races(options: argparse.Namespace, report: dict[str, Any], save: Callable[[], None]) -> None:
    device = torch.device("cpu" if options.dry_run else "cuda")
    bench = races.Bench(device, options.dry_run)
    timer = timing.Timer(device, 2, 0.2) if options.dry_run else timing.Timer(device)
    side, copied = (64, 1 << 16) if options.dry_run else (8192, 2 << 30)
    report["roofs"] = timing.roofs(timer, side, copied)
    print(", ".join(f"{name} {value:,.1f}" for name, value in report["roofs"].items()))
    # On a processor the whole step at its one size takes minutes; it runs there when asked for.
    known = {"hopper": hopper.races} if options.hopper else RACES
    chosen = options.only or [name for name in known if not (options.dry_run and name == "inference")]
    until = time.perf_counter() + options.seconds
    for name in chosen:
        if time.perf_counter() > until:
            report["left_out"].append(name)
            continue
        try:
            built = known[name](bench)
            for race in built if isinstance(built, list) else [built]:
                entry = {"race": name, **measure(race, timer, report["roofs"])}
                if device.type == "cuda":
                    entry["clocks"] = timing.smi("clocks.sm", "clocks.mem")
                report["races"].append(entry)
                show(entry)
            built = race = None  # their inputs are large
        except Exception as error:
            report["errors"][name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
            print(f"\n{name}: {report['errors'][name]}", flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        save()


def run_models(options: argparse.Namespace, device: torch.device, file: Path) -> int:
    """Fit and judge by every preset; 0 when the device gives what the processor gives."""
    report: dict[str, Any] = {"machine": timing.machine(device), "models": [], "errors": {}}
    for name in list(whole.PRESETS)[: 1 if options.dry_run else None]:
        try:
            report["models"].append(entry := whole.run(name, device, options.dry_run))
            print(json.dumps(entry), flush=True)
        except Exception as error:
            report["errors"][name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]
            print(f"{name}: {traceback.format_exc()}", flush=True)
        file.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if report["errors"] or any(entry["disagreement"] for entry in report["models"]) else 0


def main() -> int:
    options = arguments()
    if not options.dry_run and not torch.cuda.is_available():
        print(
            "gpu_check: torch sees no CUDA device (--dry-run tries the script out without one)",
            file=sys.stderr,
        )
        return 2
    device = torch.device("cpu" if options.dry_run else "cuda")
    torch.manual_seed(0)
    library = loader.load()
    if options.whole:
        options.results.mkdir(parents=True, exist_ok=True)
        return run_models(options, device, options.results / f"{timing.card_name(device)}_whole.json")
    seed = options.seed if options.seed is not None else time.time_ns() % (1 << 31)
    report: dict[str, Any] = {
        "machine": timing.machine(device),
        "library": library.backend if library else "none",
        "cuda_kernels": bool(library and library.cuda),
        "seed": seed,
        "checks": [],
        "races": [],
        "left_out": [],
        "errors": {},
    }
    print(json.dumps(report["machine"]), f"library: {report['library']}, seed {seed}", flush=True)
    if not options.dry_run and not report["cuda_kernels"]:
        report["errors"]["library"] = "no CUDA kernels in the library"
    with hopper.portable() if options.hopper else nullcontext():
        few = options.few or options.dry_run
        report["checks"] = check(device, seed, few, hopper.OPS if options.hopper else None)
    wrong = [entry for entry in report["checks"] if entry["failure"]]
    kept = [True]
    if not options.few:
        options.results.mkdir(parents=True, exist_ok=True)
        name = timing.card_name(device) + ("_hopper" if options.hopper else "")
        file = options.results / f"{name}.json"
        save = lambda: file.write_text(json.dumps(report, indent=1) + "\n")  # noqa: E731
        run_races(options, report, save)
        save()
        wrong += [entry for entry in report["races"] if entry["disagreement"]]
        kept = [promise["kept"] for entry in report["races"] for promise in entry["promises"]]
        print(f"\n{len(report['checks'])} checks, {sum(kept)} of {len(kept)} promises kept; {file}")
    print(f"{len(wrong)} wrong, errors: {report['errors'] or 'none'}")
    return 1 if wrong or report["errors"] or report["left_out"] or not all(kept) else 0


if __name__ == "__main__":
    sys.exit(main())
