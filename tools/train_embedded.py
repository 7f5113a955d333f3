"""Train the embedded network: ``python -m tools.train_embedded --teacher WEIGHTS --out DIR``.

From pictures that need no download: renders of the procedural set's shapes and of free forms under random
lamps, with random materials and defects; dead leaves and fractals; normal maps of all these surfaces; and the
photos that come with scikit-image. Three objectives: ``distil`` (stages 2 and 3 of timm's
mobilenetv2_100, weights by path), ``self`` (places of two views told apart, no teacher), and ``mixture``.

The same command goes on where a killed one stopped. It leaves in DIR the network for use
(``embedded.safetensors``, float16), the loss curve (``loss.png``) and the checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from cfr_fast.errors import CFRError
from cfr_fast.progress import display
from tools.embedded.bank import Plan, load_bank
from tools.embedded.curve import write_curve
from tools.embedded.objectives import Teacher
from tools.embedded.training import OBJECTIVES, Recipe, Training


def parser() -> argparse.ArgumentParser:
    """The options."""
    usual, pictures = Recipe(), Plan()
    made = argparse.ArgumentParser(prog="train_embedded", description=__doc__)
    made.add_argument("--out", type=Path, required=True, help="folder of checkpoint and results")
    made.add_argument("--objective", choices=OBJECTIVES, default=usual.objective)
    made.add_argument("--teacher", type=Path, help="weights of timm's mobilenetv2_100 (padding 'same')")
    made.add_argument("--steps", type=int, default=usual.steps)
    made.add_argument("--batch", type=int, default=usual.batch, help="crops a step, even")
    made.add_argument("--crop", type=int, default=usual.crop, help="side of the crops, pixels")
    made.add_argument("--lr", type=float, default=usual.lr, help="highest learning rate")
    made.add_argument(
        "--contrast", type=float, default=usual.contrast, help="weight of 'self' in the mixture"
    )
    made.add_argument("--seed", type=int, default=usual.seed)
    made.add_argument("--start", type=Path, help="checkpoint of another run, to begin with its weights")
    made.add_argument("--bank", type=Path, help="folder that keeps the pictures (default: OUT)")
    for name in ("natural", "renders", "leaves", "fractals", "heights"):
        made.add_argument(f"--{name}", type=int, default=getattr(pictures, name), help="how many pictures")
    made.add_argument("--picture-size", type=int, default=pictures.size, help="side of the pictures, pixels")
    made.add_argument("--threads", type=int, help="of the processor (default: all)")
    made.add_argument("--workers", type=int, default=0, help="processes that make the pictures and crops")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--checkpoint-every", type=int, default=200, help="steps")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says; 2 where its input is wrong."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        with display():
            run = _train(options)
    except CFRError as error:
        print(f"train_embedded: {error}", file=sys.stderr)
        return 2
    last = f", held-out loss {run.held_out[-1][1]:.4f}" if run.held_out else ""
    print(f"{run.out}: {run.step} steps in {run.seconds:.0f} s{last}")
    return 0


def _train(options: argparse.Namespace) -> Training:
    plan = Plan(
        options.natural,
        options.renders,
        options.leaves,
        options.fractals,
        options.heights,
        options.picture_size,
        options.seed,
    )
    recipe = Recipe(
        options.objective,
        options.steps,
        options.batch,
        options.crop,
        options.lr,
        contrast=options.contrast,
        seed=options.seed,
        start=str(options.start or ""),
    )
    needs_teacher = recipe.objective != "self"
    wanted = options.teacher is not None and needs_teacher
    teacher = Teacher(options.teacher, options.device) if wanted else None
    bank = load_bank(plan, options.bank or options.out, options.workers)
    training = Training(recipe, bank, teacher, options.out, options.device, options.workers)
    training.run(checkpoint_every=options.checkpoint_every)
    training.export()
    title = f"{recipe.objective}, {recipe.steps} steps of {recipe.batch} crops of {recipe.crop} pixels"
    write_curve(options.out / "loss.png", training.history, training.held_out, title)
    return training


if __name__ == "__main__":
    sys.exit(main())
