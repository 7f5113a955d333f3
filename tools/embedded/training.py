"""The training loop: deterministic, resumable after any interruption, and what it leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cfr_fast.data.files import reading, write_atomically
from cfr_fast.errors import InputError
from cfr_fast.extractors.embedded_network import EmbeddedNetwork, folded
from cfr_fast.progress import counter
from tools.embedded.bank import Bank
from tools.embedded.objectives import Teacher, distillation, place_contrast
from tools.embedded.views import Batch, make_batch

OBJECTIVES = ("distil", "self", "mixture")
CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "embedded.safetensors"
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""

HELD_OUT = 2**40
"""Number of the first batch that is never trained on."""


@dataclass(frozen=True)
class Recipe:
    """What a run does; a run of another recipe cannot go on with its checkpoint.

    Args:
        objective: ``distil`` (the teacher's features), ``self`` (places told apart) or ``mixture`` (the
            first, plus the second times `contrast`).
        steps: in all.
        batch: crops a step, even.
        crop: their side, a multiple of 16 pixels.
        lr: highest learning rate of AdamW.
        decay: its weight decay.
        contrast: see `objective`.
        seed: of weights and crops.
        start: checkpoint of another run whose weights this one begins with; none: random ones.
    """

    objective: str = "distil"
    steps: int = 3000
    batch: int = 8
    crop: int = 128
    lr: float = 1.5e-3
    decay: float = 1e-2
    contrast: float = 0.2
    seed: int = 0
    start: str = ""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError("objective", f"one of {', '.join(OBJECTIVES)}", repr(self.objective))
        if self.steps < 1:
            raise InputError("steps", "at least 1", str(self.steps))
        if self.batch < 2 or self.batch % 2:
            raise InputError("batch", "an even number of crops", str(self.batch))
        if self.crop < 32 or self.crop % 16:
            raise InputError("crop", "a multiple of 16, at least 32 pixels", str(self.crop))
        if not self.lr > 0:
            raise InputError("lr", "a number > 0", str(self.lr))

    def rate(self, step: int) -> float:
        """Learning rate of a step: a linear rise, then half a cosine down to 0."""
        rise = max(1, round(WARM_UP * self.steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))


@dataclass(frozen=True)
class _Steps(Dataset[Batch]):
    """The crops of every step."""

    bank: Bank
    recipe: Recipe

    def __getitem__(self, step: int) -> Batch:
        return make_batch(self.bank, self.recipe.batch, self.recipe.crop, self.recipe.seed, step)


class Training:
    """A run, from its checkpoint on where there is one.

    Args:
        recipe: what to do.
        bank: of pictures.
        teacher: where the objective needs one.
        out: folder of checkpoint and results.
        device: to train on.
        workers: processes that make the crops; 0: this one. They are the same crops either way.

    Raises:
        InputError: a checkpoint of another recipe or bank, or no teacher where one is needed.
    """

    def __init__(
        self,
        recipe: Recipe,
        bank: Bank,
        teacher: Teacher | None,
        out: Path,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        if (teacher is None) != (recipe.objective == "self"):
            raise InputError("teacher", "a file of weights, unless the objective is 'self'", str(teacher))
        self.recipe, self.bank, self.teacher, self.out = recipe, bank, teacher, out
        self.device, self.workers = torch.device(device), workers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.network = EmbeddedNetwork(normalised=True)
        if recipe.start:
            self.network.load_state_dict(_part(_read(Path(recipe.start))[1], "network."))
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.lr, weight_decay=recipe.decay)
        self.step, self.seconds = 0, 0.0
        self.history: list[tuple[int, float]] = []
        """Step and loss of every step so far."""
        self.held_out: list[tuple[int, float]] = []
        """Step and loss on held-out crops."""
        if teacher is not None:
            teacher.standardise(self._batch(HELD_OUT - 1, 64).images.to(self.device))
        if (out / CHECKPOINT).exists():
            self._resume()

    def run(self, until: int | None = None, checkpoint_every: int = 200) -> None:
        """Train up to step `until` (default: all), leaving a checkpoint now and then and at the end."""
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        started, before = perf_counter(), self.seconds
        with counter(f"Training ({self.recipe.objective})", last) as show:
            for batch in self._crops(last):
                self._advance(batch)
                show(self.step)
                self.seconds = before + perf_counter() - started
                if self.step % checkpoint_every == 0 or self.step == last:
                    self.held_out.append((self.step, self._held_out_loss()))
                    self.save()

    def save(self) -> None:
        """Write the checkpoint: weights, optimiser and history in one safetensors file."""
        tensors = {f"network.{k}": v.cpu().contiguous() for k, v in self.network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v.cpu().contiguous() for k, v in state.items()}
        record = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "held_out": self.held_out,
        }
        write_atomically(self.out / CHECKPOINT, save(tensors, {"training": json.dumps(record)}))

    @torch.no_grad()
    def export(self) -> Path:
        """Write the network for use: batch norms folded, outputs standardised, float16.

        Means and deviations of every feature over 256 held-out crops go into the last layers, so that all
        features weigh the same in a distance, whatever the objective was.
        """
        network = folded(self.network).to(self.device)
        maps: list[list[Tensor]] = [[], []]
        for number in range(8):
            images = self._batch(HELD_OUT + number, 32).images.to(self.device)
            for kept, map in zip(maps, network(images * 2 - 1), strict=True):
                kept.append(map)
        for head, kept in zip((network.head8, network.head16), maps, strict=True):
            found = torch.cat(kept)
            mean, deviation = found.mean(dim=(0, 2, 3)), found.std(dim=(0, 2, 3)).clamp(min=1e-6)
            assert head.bias is not None
            head.weight.div_(deviation[:, None, None, None])
            head.bias.sub_(mean).div_(deviation)
        state = {name: value.half().cpu().contiguous() for name, value in network.state_dict().items()}
        made = {"step": self.step, "seconds": round(self.seconds), **asdict(self.recipe)}
        made["start"] = Path(self.recipe.start).name
        path = self.out / WEIGHTS
        write_atomically(path, save(state, {"made": json.dumps(made)}))
        return path

    def _crops(self, last: int) -> Iterable[Batch]:
        """Those of the steps still to do, in their order."""
        steps = _Steps(self.bank, self.recipe)
        ahead = 4 if self.workers else None
        return DataLoader(
            steps, None, sampler=range(self.step, last), num_workers=self.workers, prefetch_factor=ahead
        )

    def _advance(self, batch: Batch) -> None:
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        loss = self._loss(self.step, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.history.append((self.step, loss.item()))
        if not math.isfinite(self.history[-1][1]):
            raise InputError("lr", "a learning rate that training survives", str(self.recipe.lr))

    def _loss(self, number: int, batch: Batch) -> Tensor:
        images = batch.images.to(self.device)
        found = self.network((images * 2 - 1).contiguous(memory_format=torch.channels_last))
        recipe = self.recipe
        total: Tensor = found[0].new_zeros(())
        if self.teacher is not None:
            total = total + distillation(found, self.teacher(images))
        if recipe.objective != "distil":
            weight = 1.0 if recipe.objective == "self" else recipe.contrast
            total = total + weight * place_contrast(found, batch, recipe.seed, number)
        return total

    def _held_out_loss(self) -> float:
        self.network.eval()
        with torch.no_grad():
            losses = [self._loss(HELD_OUT + k, self._batch(HELD_OUT + k, 16)) for k in range(2)]
            return float(torch.stack(losses).mean())

    def _batch(self, number: int, size: int) -> Batch:
        return make_batch(self.bank, size, self.recipe.crop, self.recipe.seed, number)

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        record, tensors = _read(path)
        if record["recipe"] != asdict(self.recipe):
            raise InputError("out", "a folder of this recipe, or a new one", f"one of {record['recipe']}")
        with reading(path, "checkpoint"):
            self.network.load_state_dict(_part(tensors, "network."))
            states: dict[int, dict[str, Tensor]] = {}
            for name, value in _part(tensors, "optimizer.").items():
                index, key = name.split(".")
                states.setdefault(int(index), {})[key] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.step, self.seconds = record["step"], record["seconds"]
        self.history = [(step, loss) for step, loss in record["history"]]
        self.held_out = [(step, loss) for step, loss in record["held_out"]]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of a checkpoint."""
    with reading(path, "checkpoint"), safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["training"])
        return record, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
