"""The step from features to maps as one CUDA graph: recorded once, replayed for every batch."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cfr_fast.learned import Learned, separated
from cfr_fast.mappers import GeGLUMapper
from cfr_fast.ops import Interpolated, loader
from cfr_fast.padded_step import PaddedBatch, Results, Sizes, padded_discrepancy
from cfr_fast.settings import Settings


class Replayable(Protocol):
    """What a recorded step can do."""

    def replay(self) -> None:
        """Run it again over the same buffers."""


Step = Callable[[], Results]
Recorder = Callable[[Step], tuple[Replayable, Results]]


def record(step: Step) -> tuple[Replayable, Results]:
    """The step as a CUDA graph, and where its results will lie.

    Raises:
        RuntimeError: some part of it cannot be recorded.
    """
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        step()  # libraries set themselves up at first use, which cannot be recorded
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on using the device.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = step()
    return graph, results


class Recorded(NamedTuple):
    """A step over buffers, recorded where that is possible, for one threshold."""

    batch: PaddedBatch
    theta: float
    graph: Replayable | None
    results: Results | None


class InferenceGraph:
    """Judges batches of samples through a recorded step; may be used by several threads.

    A batch that does not fit in the buffers has larger ones made and the step recorded again. Single samples
    and batches have buffers of their own, as those of a batch would slow a single sample down. Off CUDA, and
    after one warning where recording fails, the same step runs op by op.

    Args:
        learned: a model that `serves` accepts.
        candidates: rows of the bank that attention looks at.
        recorder: records a step; None takes CUDA's where the model lies on such a device, and none elsewhere.
    """

    def __init__(self, learned: Learned, candidates: int, recorder: Recorder | None = None) -> None:
        assert learned.rgb_bank is not None
        self.learned, self.candidates = learned, candidates
        self.device = learned.rgb_bank.device
        self._recorder = record if recorder is None and self.device.type == "cuda" else recorder
        self._steps: dict[bool, Recorded] = {}  # of batches, and of single samples
        self._lock = threading.Lock()

    @staticmethod
    def serves(learned: Learned, settings: Settings) -> bool:
        """Whether this is a model with attention and GeGLU mappers on a CUDA device that has our kernels."""
        if learned.rgb_bank is None or learned.retriever is None or settings.replacement != "attention":
            return False
        if learned.rgb_bank.device.type != "cuda" or not isinstance(learned.mappers.xyz_to_rgb, GeGLUMapper):
            return False
        library = loader.load()
        return library is not None and library.cuda

    @torch.no_grad()
    def run(
        self, rgb: Sequence[Interpolated], xyz: Sequence[Interpolated], valid: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """As `Learned.discrepancy_many`; waits for the device once, after the step."""
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with self._lock, on_device:
            step = self._step(rgb, xyz, valid)
            if step.graph is None or step.results is None:
                found = self._once(step.batch)
            else:
                step.graph.replay()
                found = step.results
            maps, replaced = found.maps[: len(valid)].clone(), found.replaced.clone()
            replaced = replaced[: int(found.number)]
        return separated(maps, replaced, [part.pixels for part in rgb])

    @property
    def recorded(self) -> bool:
        """Whether every step so far was recorded, one at least."""
        return bool(self._steps) and all(step.graph is not None for step in self._steps.values())

    def _once(self, batch: PaddedBatch) -> Results:
        return padded_discrepancy(self.learned, batch, self.candidates)

    def _step(
        self, rgb: Sequence[Interpolated], xyz: Sequence[Interpolated], valid: Sequence[Tensor]
    ) -> Recorded:
        """The step that this batch, now in its buffers, is to go through."""
        needed, several = Sizes.of(rgb, xyz, valid), len(valid) > 1
        step = self._steps.pop(several, None)
        if step is None or not step.batch.sizes.hold(needed) or step.theta != self.learned.theta:
            sizes = needed.grown(step.batch.sizes if step else None)
            del step  # its memory is free before more is taken
            batch = PaddedBatch(sizes, self.learned.widths, self.device)
        else:
            self._steps[several] = step
            step.batch.fill(rgb, xyz, valid)
            return step
        batch.fill(rgb, xyz, valid)
        self._steps[several] = Recorded(batch, self.learned.theta, *self._record(batch))
        return self._steps[several]

    def _record(self, batch: PaddedBatch) -> tuple[Replayable | None, Results | None]:
        if self._recorder is None:
            return None, None
        try:
            return self._recorder(lambda: self._once(batch))
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
            warnings.warn(f"the step runs op by op, as recording it failed: {reason}", stacklevel=2)
            self._recorder = None
            return None, None
