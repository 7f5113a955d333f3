"""Commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cfr_fast.cli import commands
from cfr_fast.cli.evaluate import ablate, evaluate
from cfr_fast.cli.fit import fit
from cfr_fast.cli.report import report
from cfr_fast.presets import DEFAULT, PRESETS

DATASETS = ("auto", "mvtec3d", "eyecandies", "folder")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; every command sets ``run`` to the function that serves it."""
    parser = argparse.ArgumentParser(
        prog="cfr",
        description="Few-shot RGB + 3D anomaly detection: teach with 1 to 4 good parts, see what differs.",
        epilog="first steps:  cfr demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=commands.Version, nargs=0, help="print the version and exit")
    make = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo(make)
    _fit(make)
    _predict(make)
    _evaluate(make)
    _ablate(make)
    _report(make)
    _import_authors(make)
    _prepare(make)
    _synth(make)
    _bench(make)
    _info(make)
    return parser


def _bench(make: Any) -> None:
    command = _command(
        make,
        "bench",
        commands.bench,
        "race every kernel and the pipeline against their peers on this machine",
        "cfr bench --threads 2\ncfr bench topk predict --json\n"
        "cfr bench paper --sample mvtec3d/bagel/train/good/rgb/000.png --epochs 2",
    )
    command.add_argument(
        "races",
        nargs="*",
        help="names of races (default: all that take seconds), or paper: how long its configuration takes "
        "from end to end, with random weights",
    )
    command.add_argument("--sample", type=Path, help="with paper: a normal sample (default: a made-up one)")
    command.add_argument(
        "--epochs", type=int, help="with paper: run fewer than 100 and carry their time over"
    )
    command.add_argument("--slow", action="store_true", help="also those whose peers take minutes")
    command.add_argument("--threads", type=int, help="CPU threads of every contender (default: torch's)")
    command.add_argument("--rounds", type=int, help="most rounds of a race (default: 5; medians count)")
    _json(command)


def _command(make: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = make.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="example:\n" + "\n".join(f"  {line}" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _demo(make: Any) -> None:
    command = _command(
        make,
        "demo",
        commands.demo,
        "make a small procedural set, fit, evaluate, and write pictures and a table (no download)",
        "cfr demo --out cfr_demo",
    )
    command.add_argument("--out", type=Path, default=Path("cfr_demo"), help="folder (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of the set and of the models")
    _json(command)


def _fit(make: Any) -> None:
    command = _command(
        make,
        "fit",
        fit,
        "learn what normal looks like from a few good samples, and write a model",
        "cfr fit --data mvtec3d --category bagel --shots 4 -o bagel.cfr.safetensors\n"
        "cfr fit good/part1.png good/part2.png -o part.cfr.safetensors\n"
        "torchrun --nproc-per-node 4 -m cfr_fast fit --data mvtec3d --category all -o models",
    )
    command.add_argument("files", nargs="*", type=Path, help="normal samples: any file of each, or folders")
    command.add_argument(
        "-o", "--out", type=Path, required=True, help="model file to write; a folder for several categories"
    )
    _data(command, required=False)
    command.add_argument(
        "--category",
        nargs="+",
        help="category to learn; needed where --data holds several; several, or all, make a model each",
    )
    command.add_argument("--shots", type=int, default=1, help="training samples to draw (default: 1)")
    _choice(command)
    command.add_argument("--shot-seed", type=int, default=42, help="of the draw (default: 42, the paper's)")
    command.add_argument("--seed", type=int, help="of the model (default: the preset's, or 0)")
    _files(command)
    _model(command)
    _json(command)


def _predict(make: Any) -> None:
    command = _command(
        make,
        "predict",
        commands.predict,
        "judge samples: overlays, masks, raw maps, scores.csv and scores.json",
        "cfr predict bagel.cfr.safetensors mvtec3d/bagel/test/hole -o out\n"
        "cfr predict bagel.cfr.safetensors mvtec3d/bagel/test/hole -o out --clouds",
    )
    command.add_argument("model", type=Path, help="model file")
    command.add_argument("files", nargs="+", type=Path, help="any file of each sample, or folders")
    command.add_argument("-o", "--out", type=Path, required=True, help="folder for the results")
    command.add_argument("--maps", choices=("npy", "tiff"), default="npy", help="format of the raw maps")
    _clouds(command, "each sample")
    _files(command)
    _device(command)
    _json(command)


def _evaluate(make: Any) -> None:
    command = _command(
        make,
        "evaluate",
        evaluate,
        "run the paper's protocol: AUROC, AUPRO, tables, maps and pictures; a second run goes on",
        "cfr evaluate --dataset mvtec3d --data mvtec3d --category bagel dowel --shots 1 4 --seeds 42 0 1\n"
        "cfr evaluate --data mvtec3d --methods all --shots 1 2 4 -o results\n"
        "torchrun --nproc-per-node 4 -m cfr_fast evaluate --data mvtec3d --methods cfr cfm patchcore",
    )
    command.add_argument(
        "--methods",
        nargs="+",
        default=["cfr"],
        metavar="NAME",
        help="cfr, cfr-paper (the paper's map, whatever the score), cfr-nearest, cycle-only, "
        "cfm, patchcore-rgb, patchcore-3d, patchcore-rgb-3d, patchcore "
        "(all three) or all (default: cfr)",
    )
    _protocol(command, "results")


def _ablate(make: Any) -> None:
    command = _command(
        make,
        "ablate",
        ablate,
        "run the paper's ablation: retrieval, threshold, bank size, shots; one table and one figure",
        "cfr ablate --data mvtec3d --category bagel --shots 1 4 --theta 0.2 0.4 --bank 0.01 0.1",
    )
    command.add_argument(
        "--theta",
        type=float,
        nargs="*",
        help="distances from which a prediction is unreliable (default: 0.1 0.2 0.3 0.4 where the preset has "
        "one; 0.002 0.005 0.01 0.02 0.05 where it is calibrated, hand-made features lying closer together)",
    )
    command.add_argument(
        "--bank",
        type=float,
        nargs="*",
        default=[0.01, 0.05, 0.1, 0.25],
        help="shares of the rows that the banks keep (default: 0.01 0.05 0.1 0.25)",
    )
    _protocol(command, "ablation")


def _protocol(command: argparse.ArgumentParser, out: str) -> None:
    """What evaluate and ablate share."""
    _data(command, required=True)
    command.add_argument("--category", nargs="+", help="categories (default: all)")
    command.add_argument("--shots", type=int, nargs="+", default=[1], help="numbers of shots (default: 1)")
    command.add_argument("--seeds", type=int, nargs="+", default=[42], help="of draw and model (default: 42)")
    _choice(command)
    command.add_argument("-o", "--out", type=Path, default=Path(out), help="folder (default: %(default)s)")
    command.add_argument(
        "--keep-maps",
        choices=("none", "first", "all"),
        default="first",
        help="whose maps and pictures are kept: of the first method and seed (default; maps take 0.6 MB for "
        "each test image, and 0.3 MB more for each further number of shots), of all runs, or of none",
    )
    command.add_argument("--skip-bad", action="store_true", help="leave out samples that cannot be read")
    command.add_argument("--no-pictures", action="store_true", help="write tables and maps only")
    _clouds(command, "each test image of the runs whose maps are kept")
    _model(command)
    _json(command)


def _report(make: Any) -> None:
    command = _command(
        make,
        "report",
        report,
        "make one page of results: table, charts, and test images with their maps",
        "cfr report results -o report",
    )
    command.add_argument("results", type=Path, help="folder that `cfr evaluate` wrote")
    command.add_argument(
        "-o", "--out", type=Path, default=Path("report"), help="folder (default: %(default)s)"
    )
    command.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="most test images of each category and defect type (default: a page below 30 MB)",
    )
    command.add_argument("--methods", nargs="+", help="whose maps to show (default: the first two kept)")
    command.add_argument("--shots", type=int, help="of the maps shown (default: the most that were kept)")
    _json(command)


def _import_authors(make: Any) -> None:
    command = _command(
        make,
        "import-authors",
        commands.import_authors,
        "make a model of checkpoints written by the scripts of CFR's authors, or of CFM's",
        "cfr import-authors checkpoints/bagel -o bagel.cfr.safetensors --theta 0.4",
    )
    command.add_argument(
        "folder",
        type=Path,
        help="with *2Dto3D*.pth and *3Dto2D*.pth, and perhaps ATTN*.pth, memory_bank*.pt, memory_bank_kv*.pt",
    )
    command.add_argument("-o", "--out", type=Path, required=True, help="model file to write")
    command.add_argument(
        "--theta", type=float, default=0.2, help="distance that is unreliable (default: 0.2, the scripts')"
    )
    command.add_argument(
        "--score-threshold",
        type=float,
        default=float("inf"),
        help="score above which a sample is anomalous (default: none is)",
    )
    command.add_argument(
        "--normalize-qk", action="store_true", help="the retriever normalises queries and keys"
    )
    _json(command)


def _prepare(make: Any) -> None:
    command = _command(
        make,
        "prepare",
        commands.prepare_dataset,
        "remove backgrounds from a dataset's clouds, out of place, in MVTec 3D-AD's layout",
        "cfr prepare --dataset mvtec3d --data raw --out prepared",
    )
    _data(command, required=True)
    command.add_argument("--category", nargs="+", help="categories (default: all)")
    command.add_argument("-o", "--out", type=Path, required=True, help="folder to write, outside of --data")
    _background(command)
    command.add_argument("--seed", type=int, default=0, help="of the plane search")
    _json(command)


def _synth(make: Any) -> None:
    command = _command(
        make,
        "synth",
        commands.synth,
        "write the procedural set of sweets and biscuits, in MVTec 3D-AD's layout",
        "cfr synth --out sweets --category praline cookie --size 256",
    )
    command.add_argument("-o", "--out", type=Path, required=True, help="folder, new or empty")
    command.add_argument("--category", nargs="+", help="categories (default: all)")
    command.add_argument("--train", type=int, default=4, help="training samples per category")
    command.add_argument("--good", type=int, default=6, help="good test samples per category")
    command.add_argument("--defective", type=int, default=2, help="test samples per defect type")
    command.add_argument("--size", type=int, default=256, help="image side in pixels")
    command.add_argument("--background", action="store_true", help="let the table show in the clouds")
    command.add_argument("--seed", type=int, default=0, help="same seed, same bytes")


def _info(make: Any) -> None:
    command = _command(
        make,
        "info",
        commands.info,
        "show versions, device, extractors, and every op's backend and why",
        "cfr info --json",
    )
    _json(command)


def _data(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument(
        "--data", type=Path, required=required, help="folder of a dataset or of one category"
    )
    command.add_argument(
        "--dataset", choices=DATASETS, default="auto", help="its layout (default: recognised)"
    )


def _choice(command: argparse.ArgumentParser) -> None:
    command.add_argument("--rule", choices=("rng42", "first-k"), default="rng42", help="how shots are chosen")
    command.add_argument("--samples", nargs="+", metavar="NAME", help="choose exactly these training samples")


def _files(command: argparse.ArgumentParser) -> None:
    command.add_argument("--camera", type=Path, help="camera.json with fx, fy, cx, cy for depth images")
    command.add_argument("--unit", choices=("m", "mm"), help="of clouds and float depth (default: metres)")


def _clouds(command: argparse.ArgumentParser, of: str) -> None:
    command.add_argument(
        "--clouds",
        nargs="?",
        choices=("score", "photo"),
        const="score",
        help=f"also write the points of {of} as PLY for CloudCompare, MeshLab or Open3D, in the colours of "
        "the score (default) or of the photo, with the score as a scalar field; 24 bytes a point",
    )


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")


def _background(command: argparse.ArgumentParser, default: str | None = "auto") -> None:
    known = ("auto", "plane", "distance", "none")
    command.add_argument(
        "--background", choices=known, default=default, help="how it is found (default: auto)"
    )


def _model(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("model")
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default=DEFAULT,
        help=f"settings to start from (default: {DEFAULT})",
    )
    group.add_argument("--rgb", help="RGB extractor, such as timm:resnet18")
    group.add_argument("--xyz", help="3D extractor, such as normals:resnet18")
    group.add_argument("--weights", type=Path, help="weights of the RGB network, instead of timm's hub")
    group.add_argument("--replacement", choices=("attention", "bank", "nearest", "none"))
    group.add_argument("--size", type=int, help="maps are computed on size×size pixels (default: 224)")
    group.add_argument(
        "--crop", action="store_true", default=None, help="cut every sample to its object first"
    )
    _background(command, default=None)
    _device(command)
    group.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, values as in JSON: --set mapper_epochs=50 theta=0.4 "
        '\'rgb_options={"weights": "net.safetensors"}\'',
    )


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", help="print JSON on standard output instead of tables"
    )
