"""CFR: fit on a few normal samples, then find what is wrong with any further one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfr_fast import artifact
from cfr_fast.calibrate import (
    CALIBRATE,
    LEARN,
    normal_views,
    pixel_threshold,
    quantile_theta,
    score_threshold,
)
from cfr_fast.data import Frame, Sample, SampleSource, find_samples, frame_of, prepare
from cfr_fast.errors import InputError, NotFittedError
from cfr_fast.extractors import Extractor, create_extractor
from cfr_fast.learned import Learned
from cfr_fast.mappers import train_mappers
from cfr_fast.memory import build_banks, draw_rows
from cfr_fast.ops import Interpolated
from cfr_fast.progress import display, track
from cfr_fast.result import Result
from cfr_fast.retriever import train_retriever
from cfr_fast.scoring import localization_map, score_map
from cfr_fast.settings import Settings

SampleLike: TypeAlias = Sample | SampleSource | str | Path | tuple[NDArray[np.uint8], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Features:
    """One sample as the method sees it: the sparse features of its valid pixels, in raster order.

    Args:
        frame: the square view, cleaned, and cut to the object where the settings say so.
        whole: the square view of the whole sample, cleaned.
        rgb: features of the V valid pixels.
        xyz: of the same pixels.
        valid: bool [size, size] with V True pixels.
    """

    frame: Frame
    whole: Frame
    rgb: Interpolated
    xyz: Interpolated
    valid: Tensor

    @property
    def count(self) -> int:
        """V."""
        return self.rgb.pixels


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
        self.device = _device(device)
        self.progress = progress
        self._learned: Learned | None = None
        self._extractors: tuple[Extractor, Extractor] | None = None

    def fit(self, samples: SampleLike | Iterable[SampleLike]) -> CFR:
        """Learn what normal looks like.

        Args:
            samples: normal samples, 1 to 4 as a rule: Sample objects, sources, (rgb, xyz) arrays or paths.

        Returns:
            The model itself.

        Raises:
            InputError: no sample, a sample known to be anomalous, or one without any usable pixel.
        """
        with display(self.progress), torch.no_grad():
            shots = _normal(list(_samples(samples)))
            features = [self._features(shot) for shot in track(shots, "Extracting features")]
            for shot, found in zip(shots, features, strict=True):
                if found.count == 0:
                    raise InputError(f"sample {shot.name!r}", "pixels with features of both kinds", "none")
            views = list(self._views(shots, self.settings.shot_views, LEARN, "Extracting views"))
            with torch.enable_grad():
                learned = self._learn(features, [view for view in views if view.count], shots)
            self._calibrate(learned, shots)
        self._learned = learned
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
        found = list(_samples(sample))
        if len(found) != 1:
            raise InputError("sample", "exactly one sample (predict_many takes more)", str(len(found)))
        return self._judge(found[0], learned)

    def predict_many(self, samples: Iterable[SampleLike]) -> Iterator[Result]:
        """Judge samples one by one as they are asked for; memory stays that of one sample."""
        learned = self.learned
        for sample in _samples(samples):
            yield self._judge(sample, learned)

    def decision_function(self, samples: Iterable[SampleLike]) -> NDArray[np.float64]:
        """Image scores, higher is more anomalous; float64 [N]."""
        return np.array([result.score for result in self.predict_many(samples)], dtype=np.float64)

    def save(self, path: str | Path) -> None:
        """Write the model, its frozen networks included, as one safetensors file.

        Raises:
            NotFittedError: nothing to save yet.
            OutputError: the file cannot be written; what was there before stays.
        """
        artifact.write(path, self.settings, self.learned, self.extractors)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", progress: bool | None = None) -> CFR:
        """Read a model written by save; it predicts exactly what the saved one did.

        Raises:
            InputError: no such file, not a model, cut short, or from a version that this one cannot read.
        """
        settings, learned, extractors = artifact.read(path, _device(device))
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
            self._extractors = (
                create_extractor(wanted.rgb, "rgb", **wanted.rgb_options).to(self.device),
                create_extractor(wanted.xyz, "xyz", **wanted.xyz_options).to(self.device),
            )
        return self._extractors

    def _features(self, sample: Sample, background: bool = False) -> Features:
        """Prepare, frame and extract; with `background` every pixel counts as valid."""
        wanted = self.settings
        cleaned = prepare(sample, wanted.background, wanted.seed)
        whole = frame_of(cleaned)
        frame = frame_of(cleaned, crop=True) if wanted.crop else whole
        rgb, xyz = (extractor.extract(frame, wanted.size).to(self.device) for extractor in self.extractors)
        valid = rgb.valid & xyz.valid
        pixel = torch.arange(rgb.pixels, device=valid.device) if background else valid.nonzero()[:, 0]
        colors, shapes = (field.interpolated.select(pixel).compact() for field in (rgb, xyz))
        return Features(frame, whole, colors, shapes, valid.reshape(rgb.shape))

    def _views(self, shots: Sequence[Sample], views: int, purpose: int, title: str) -> Iterator[Features]:
        made = normal_views(shots, views, self.settings.seed, purpose)
        for view in track(made, title, views * len(shots)):
            yield self._features(view)

    def _learn(
        self, features: Sequence[Features], views: Sequence[Features], shots: Sequence[Sample]
    ) -> Learned:
        """Train the mappers, then everything that replacement needs; banks hold the shots alone."""
        wanted = self.settings
        rows = [(found.rgb, found.xyz) for found in (*features, *views)]
        learned = Learned(
            train_mappers(
                rows,
                epochs=wanted.mapper_epochs,
                learning_rate=wanted.mapper_lr,
                most_pixels=wanted.mapper_pixels,
                seed=wanted.seed,
            )
        )
        if wanted.replacement == "none":
            return learned
        kept = features
        if wanted.bank_background:
            kept = [self._features(shot, background=True) for shot in shots]
        pairs, learned.rgb_bank = build_banks(
            [found.rgb for found in kept], [found.xyz for found in kept], wanted.coreset, wanted.seed
        )
        learned.pairs = draw_rows(pairs, wanted.bank_rows, wanted.seed)
        if wanted.replacement in ("attention", "bank"):
            learned.retriever = train_retriever(
                rows,
                learned.pairs,
                candidates=wanted.candidates if wanted.replacement == "attention" else None,
                epochs=wanted.attention_epochs,
                learning_rate=wanted.attention_lr,
                most_queries=wanted.attention_queries,
                width=wanted.attention_width,
                normalize_qk=wanted.normalize_qk,
                seed=wanted.seed,
            )
        return learned

    def _calibrate(self, learned: Learned, shots: Sequence[Sample]) -> None:
        """θ and both thresholds: as given, or from augmented views of the shots."""
        wanted = self.settings
        views = list(self._views(shots, wanted.calibration_views, CALIBRATE, "Calibrating"))
        if wanted.theta is not None:
            learned.theta = wanted.theta
        elif learned.rgb_bank is not None:
            distances = [learned.distances(view.xyz) for view in views]
            learned.theta = quantile_theta(distances, wanted.reliable_share)
        maps = [score_map(self._map(view, learned)[0])[view.valid].cpu().numpy() for view in views]
        if wanted.threshold is not None:
            learned.threshold = wanted.threshold
        else:
            learned.threshold = score_threshold([float(found.max(initial=0)) for found in maps])
        learned.pixel_threshold = pixel_threshold(maps, learned.threshold)

    def _map(self, features: Features, learned: Learned) -> tuple[Tensor, Tensor]:
        return learned.discrepancy(features.rgb, features.xyz, features.valid, self.settings)

    def _judge(self, sample: Sample, learned: Learned) -> Result:
        with torch.no_grad():
            features = self._features(sample)
            found, replaced_rows = self._map(features, learned)
        frame, whole, valid = features.frame, features.whole, features.valid
        replaced = torch.zeros_like(valid)
        replaced.view(-1)[valid.reshape(-1).nonzero()[replaced_rows, 0]] = True
        scored = score_map(found)
        score = float(scored.max())
        anomaly_map = frame.to_source(scored.cpu().numpy())
        label = score > learned.threshold
        # Resampling may lower the peak; a sample labelled anomalous marks at least that.
        level = min(learned.pixel_threshold, float(anomaly_map.max())) if label else np.inf
        grids = [found, valid.float(), replaced.float()]
        if frame is not whole:  # whatever the model looked at, results speak of the whole sample
            size = valid.shape[0]
            grids = [
                torch.from_numpy(whole.grid_map(frame.to_source(grid.cpu().numpy()), size)) for grid in grids
            ]
        return Result(
            name=sample.name,
            score=score,
            threshold=learned.threshold,
            label=label,
            anomaly_map=anomaly_map,
            mask=anomaly_map >= level,
            pixel_threshold=learned.pixel_threshold,
            replaced_fraction=len(replaced_rows) / max(1, features.count),
            raw_map=grids[0].cpu().numpy(),
            localization_map=localization_map(grids[0]).cpu().numpy(),
            valid=grids[1].cpu().numpy() > 0.5,
            replaced=grids[2].cpu().numpy() > 0.5,
            frame=whole,
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "device", "auto, cpu, or a device of this machine", f"{name!r} ({reason})"
        ) from error
    return device


def _samples(given: SampleLike | Iterable[SampleLike]) -> Iterator[Sample]:
    """Whatever stands for samples, loaded one by one."""
    if isinstance(given, Sample):
        yield given
    elif isinstance(given, SampleSource):
        yield given.load()
    elif isinstance(given, str | Path):
        for source in find_samples([given]):
            yield source.load()
    elif isinstance(given, tuple) and len(given) == 2 and all(isinstance(a, np.ndarray) for a in given):
        yield Sample(*given)
    elif isinstance(given, Iterable) and not isinstance(given, np.ndarray):
        for item in given:
            yield from _samples(item)
    else:
        raise InputError(
            "sample", "a Sample, a SampleSource, (rgb, xyz) arrays or a path", type(given).__name__
        )


def _normal(shots: list[Sample]) -> list[Sample]:
    if not shots:
        raise InputError("samples", "at least one normal sample", "none")
    for shot in shots:
        if shot.is_anomalous:
            raise InputError("samples", "normal samples only", f"{shot.name!r} with a defect")
    return shots
