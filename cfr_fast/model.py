"""CFR: fit on a few normal samples, then find what is wrong with any further one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfr_fast import artifact, authors
from cfr_fast.calibrate import CALIBRATE, LEARN, normal_views
from cfr_fast.calibrated import learn_calibrated, map_calibrated
from cfr_fast.data import Sample, frame_of, prepare
from cfr_fast.errors import InputError, NotFittedError
from cfr_fast.extractors import Extractor, create_pair
from cfr_fast.extractors.tokens import token_fields
from cfr_fast.inference_graph import InferenceGraph
from cfr_fast.inputs import SampleLike, device_of, normal_samples, samples_of
from cfr_fast.judge import Features, judged
from cfr_fast.learned import Learned
from cfr_fast.lesson import Lesson, PixelFeatures, learn
from cfr_fast.memory import draw_rows
from cfr_fast.observe import observe
from cfr_fast.presets import preset_settings
from cfr_fast.progress import display, track
from cfr_fast.result import Result
from cfr_fast.settings import Settings


class CFR:
    """Crossmodal Feature Replacer for few-shot RGB + 3D anomaly detection.

    Args:
        device: ``auto`` (CUDA where there is one), or anything torch takes.
        progress: True shows progress bars, False none, None only on a terminal.
        **settings: fields of :class:`cfr_fast.settings.Settings`, such as ``rgb="timm:resnet18"``.

    Example:
        >>> model = CFR(seed=0).fit(samples)
        >>> result = model.predict(sample)
        >>> result.score, result.label
    """

    def __init__(self, *, device: str = "auto", progress: bool | None = None, **settings: Any) -> None:
        self.settings = Settings.create(**settings)
        self.device = device_of(device)
        self.progress = progress
        self._learned: Learned | None = None
        self._extractors: tuple[Extractor, Extractor] | None = None
        self._graph: InferenceGraph | None = None

    @classmethod
    def preset(
        cls, name: str, *, device: str = "auto", progress: bool | None = None, **overrides: Any
    ) -> CFR:
        """An unfitted model with the settings of the paper or the defaults.

        Args:
            name: ``paper-mvtec3d`` or ``paper-eyecandies`` (DINO ViT-B/8 and Point-MAE, 224×224, 100 epochs,
                θ 0.4 or 0.2), ``embedded`` (the defaults), ``pretrained`` (the same with a larger CNN, whose
                weights must be had), or ``classic`` (hand-made features).
            device, progress: as for the model itself.
            **overrides: settings that differ.

        Raises:
            InputError: no such preset or setting, or a value outside its range.
        """
        return cls(device=device, progress=progress, **preset_settings(name, overrides))

    @classmethod
    def from_authors(
        cls,
        *,
        mapper_2d_to_3d: str | Path,
        mapper_3d_to_2d: str | Path,
        attention: str | Path | None = None,
        bank: str | Path | None = None,
        kv_bank: str | Path | None = None,
        threshold: float = 0.2,
        score_threshold: float = float("inf"),
        normalize_qk: bool = False,
        device: str = "auto",
        progress: bool | None = None,
    ) -> CFR:
        """A fitted model from checkpoints of the authors' scripts (or of CFM: two mappers, nothing else).

        Args:
            mapper_2d_to_3d, mapper_3d_to_2d, attention, bank, kv_bank, normalize_qk: as in `authors.read`.
                Without `bank` nothing is replaced; with `bank` alone its nearest row replaces.
            threshold: θ, the cosine distance from which a prediction is unreliable (the scripts' default 0.2;
                0.4 on MVTec 3D-AD).
            score_threshold: image score above which a sample is anomalous. The scripts have none: infinity
                scores and maps samples but labels and marks none of them.
            device, progress: as for the model itself.

        Raises:
            InputError: a file missing, foreign, or one that does not fit the others; a threshold below 0.
        """
        files = (mapper_2d_to_3d, mapper_3d_to_2d, attention, bank, kv_bank)
        learned, found = authors.read(*files, normalize_qk, threshold, score_threshold)
        model = cls.preset("paper-mvtec3d", device=device, progress=progress, theta=threshold, **found)
        if learned.pairs is not None:
            learned.pairs = draw_rows(learned.pairs, model.settings.bank_rows, model.settings.seed)
        model._learned = learned.to(model.device)
        return model

    def fit(self, samples: SampleLike | Iterable[SampleLike]) -> CFR:
        """Learn what normal looks like.

        Args:
            samples: normal samples, 1 to 4 as a rule: Sample objects, sources, (rgb, xyz) arrays or paths.

        Returns:
            The model itself.

        Raises:
            InputError: no sample, a sample known to be anomalous, or one without any usable pixel.
        """
        with display(self.progress):
            return self.fit_lesson(self.lesson(samples))

    def lesson(self, samples: SampleLike | Iterable[SampleLike]) -> Lesson:
        """Extract all that `fit` learns from; models whose settings extract the same can share it.

        That are models with the same extractors, size, crop, background, views, turns, flips, seed, and
        bank_background.

        Args:
            samples: as for `fit`, and refused for the same reasons.
        """
        with display(self.progress), torch.no_grad():
            taken = normal_samples(list(samples_of(samples)))
            bank, shots = [], []
            for shot in track(taken, "Extracting features"):
                seen = self._observe([shot], self.settings.bank_background)[0].pixels
                bank.append(seen)
                shots.append(seen.without_background())
                if shots[-1].rgb.pixels == 0:
                    raise InputError(f"sample {shot.name!r}", "pixels with features of both kinds", "none")
            views = self._views(taken, self.settings.shot_views, LEARN, "Extracting views")
            kept = [(number, view) for number, view in views if view.rgb.pixels]
            further = list(self._views(taken, self.settings.calibration_views, CALIBRATE, "Calibrating"))
        learn_from, calibrate_on = (tuple(view for _, view in part) for part in (kept, further))
        owners, held_out = (tuple(number for number, _ in part) for part in (kept, further))
        return Lesson(tuple(shots), learn_from, calibrate_on, tuple(bank), owners, held_out)

    def fit_lesson(self, lesson: Lesson) -> CFR:
        """Learn from what `lesson` of this model, or of one that extracts the same, gave."""
        with display(self.progress):
            teach = learn_calibrated if self.settings.score == "calibrated" else learn
            self._learned = teach(lesson, self.settings)
        return self

    def predict(self, sample: SampleLike) -> Result:
        """Judge one sample.

        Args:
            sample: a Sample, a source, (rgb, xyz) arrays or a path.

        Raises:
            InputError: the sample cannot be read or used.
            NotFittedError: fit or load first.
        """
        learned = self.learned
        found = list(samples_of(sample))
        if len(found) != 1:
            raise InputError("sample", "exactly one sample (predict_many takes more)", str(len(found)))
        return self._judge(found, learned)[0]

    def predict_many(self, samples: Iterable[SampleLike], batch_size: int = 1) -> Iterator[Result]:
        """Judge samples as they are asked for, in their order.

        Args:
            samples: Samples, sources, (rgb, xyz) arrays or paths; may be endless.
            batch_size: samples that go through the model together, which keeps a GPU busy; memory stays that
                of so many samples. Maps are those of one sample at a time to within float32 rounding. A
                sample that cannot be read or used takes its whole batch along.

        Raises:
            InputError: a batch size below 1, or, where it is met, a sample that cannot be read or used.
            NotFittedError: fit or load first.
        """
        learned = self.learned
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError("batch_size", "a whole number ≥ 1", repr(batch_size))
        return self._judge_in_turn(samples_of(samples), batch_size, learned)

    def with_extractors_of(self, other: CFR) -> CFR:
        """Use the frozen networks of `other`, whose settings name the same; returns the model itself."""
        self._extractors = other.extractors
        return self

    def features(self, sample: Sample) -> Features:
        """What the frozen extractors see of a sample: all that judging it takes."""
        with torch.no_grad():
            return self._observe([sample])[0]

    def predict_features(self, name: str, features: Features) -> Result:
        """Judge the sample called `name` from its `features`.

        Raises:
            NotFittedError: fit or load first.
        """
        learned = self.learned
        with torch.no_grad():
            return judged(name, features, *self._maps([features], learned)[0], learned)

    def predict_tokens(
        self,
        *,
        rgb_tokens: Tensor,
        xyz_tokens: Tensor,
        center_index: Tensor,
        xyz: Tensor,
        name: str = "tokens",
    ) -> Result:
        """Judge one sample from the tokens of its frozen networks, as the paper's protocol carries them over.

        Args:
            rgb_tokens: float32 [Dr, h0, w0], RGB tokens on a grid (768×28×28 in the paper).
            xyz_tokens: float32 [Dx, G], tokens of groups of points (1152×1024 in the paper).
            center_index: int64 [G], each group's centre among the valid points (all three coordinates
                non-zero), in raster order.
            xyz: float32 [size, size, 3], organized points in metres, zeros where missing.
            name: of the sample.

        Returns:
            All maps are on the size×size grid; the frame's colours are not known and black.

        Raises:
            InputError: a shape or dtype that does not fit, or tokens of other widths than the model's.
            NotFittedError: fit or load first.
        """
        learned, size = self.learned, self.settings.size
        for argument, tokens, width in zip(
            ("rgb_tokens", "xyz_tokens"), (rgb_tokens, xyz_tokens), learned.widths, strict=True
        ):
            if tokens.dim() == 0 or tokens.shape[0] != width:
                raise InputError(argument, f"{width} features first", f"shape {list(tokens.shape)}")
        if xyz.shape != (size, size, 3):
            raise InputError("xyz", f"shape {[size, size, 3]}", f"shape {list(xyz.shape)}")
        with torch.no_grad():
            given = (rgb_tokens, xyz_tokens, center_index, xyz)
            colors, shapes, centers, cloud = (tensor.to(self.device) for tensor in given)
            fields = token_fields(colors, shapes, centers, cloud, self.settings.expanded_distances)
            points = xyz.cpu().numpy()
            frame = frame_of(Sample(np.zeros(points.shape, np.uint8), points, name=name))
            features = Features.of(frame, frame, *fields)
            return judged(name, features, *self._maps([features], learned)[0], learned)

    def decision_function(self, samples: Iterable[SampleLike]) -> NDArray[np.float64]:
        """Image scores, higher is more anomalous; float64 [N]."""
        return np.array([result.score for result in self.predict_many(samples)], dtype=np.float64)

    def save(self, path: str | Path) -> None:
        """Write the model as one safetensors file, its frozen networks included.

        An imported model that has not yet judged a sample has none; its file names them only.

        Raises:
            NotFittedError: nothing to save yet.
            OutputError: the file cannot be written; what was there before stays.
        """
        artifact.write(path, self.settings, self.learned, self._extractors)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", progress: bool | None = None) -> CFR:
        """Read a model written by save; it predicts exactly what the saved one did.

        Raises:
            InputError: no such file, not a model, cut short, or from a version that this one cannot read.
        """
        settings, learned, extractors = artifact.read(path, device_of(device))
        model = cls(device=device, progress=progress, **settings.to_dict())
        model._learned, model._extractors = learned, extractors
        return model

    @property
    def learned(self) -> Learned:
        """What fit left behind.

        Raises:
            NotFittedError: fit or load first.
        """
        if self._learned is None:
            raise NotFittedError
        return self._learned

    @property
    def theta_(self) -> float:
        """Cosine distance to the RGB bank from which a prediction is unreliable."""
        return self.learned.theta

    @property
    def threshold_(self) -> float:
        """Image score above which a sample is anomalous."""
        return self.learned.threshold

    @property
    def pixel_threshold_(self) -> float:
        """Level of the anomaly map above which the pixels of an anomalous sample are marked."""
        return self.learned.pixel_threshold

    @property
    def extractors(self) -> tuple[Extractor, Extractor]:
        """The frozen extractors (RGB, 3D), built when first asked for."""
        if self._extractors is None:
            wanted = self.settings
            more = {"expanded_distances": True} if wanted.expanded_distances else {}
            pair = create_pair(wanted.rgb, wanted.xyz, wanted.rgb_options, more | wanted.xyz_options)
            self._extractors = (pair[0].to(self.device), pair[1].to(self.device))
        return self._extractors

    def _observe(self, samples: Sequence[Sample], background: bool = False) -> list[Features]:
        return observe(samples, self.extractors, self.settings, self.device, background)

    def _views(
        self, shots: Sequence[Sample], views: int, purpose: int, title: str
    ) -> Iterator[tuple[int, PixelFeatures]]:
        """Views, and the number of the shot that each shows."""
        wanted = self.settings
        if wanted.turns or wanted.flips:  # a background that moves with its part is hard to tell from it
            shots = [prepare(shot, wanted.background, wanted.seed) for shot in shots]
        made = normal_views(shots, views, wanted.seed, purpose, wanted.turns, wanted.flips)
        for number, view in enumerate(track(made, title, views * len(shots))):
            yield number // views, self._observe([view])[0].pixels

    def _maps(self, features: Sequence[Features], learned: Learned) -> list[tuple[Tensor, Tensor]]:
        """Per sample the map s and the replaced rows; without calibrated scores all in one step."""
        if learned.calibrated is not None:
            return [map_calibrated(each.pixels, learned, self.settings) for each in features]
        rgb, xyz, valid = ([getattr(each, name) for each in features] for name in ("rgb", "xyz", "valid"))
        if not InferenceGraph.serves(learned, self.settings):
            return learned.discrepancy_many(rgb, xyz, valid, self.settings)
        if self._graph is None or self._graph.learned is not learned:
            self._graph = InferenceGraph(learned, self.settings.candidates)
        return self._graph.run(rgb, xyz, valid)

    def _judge(self, samples: Sequence[Sample], learned: Learned) -> list[Result]:
        """At least one sample."""
        with torch.no_grad():
            features = self._observe(samples)
            maps = self._maps(features, learned)
            return [
                judged(sample.name, seen, *found, learned)
                for sample, seen, found in zip(samples, features, maps, strict=True)
            ]

    def _judge_in_turn(
        self, samples: Iterator[Sample], batch_size: int, learned: Learned
    ) -> Iterator[Result]:
        while batch := list(islice(samples, batch_size)):
            yield from self._judge(batch, learned)
