"""The folder that a benchmark leaves: its record, a result for every run, and the maps of those kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cfr_fast.data.files import reading, write_atomically
from cfr_fast.errors import InputError
from cfr_fast.evaluation.files import write_json
from cfr_fast.evaluation.results import NO_MODEL, CategoryResult

RECORD = "run.json"
RESULTS, EVIDENCE = "results", "evidence"
_RUN = re.compile(r"(\d+)-shot_seed-(\d+)")


@dataclass(frozen=True, order=True)
class RunKey:
    """One run: a method on a category, learned from so many shots drawn with a seed."""

    category: str
    method: str
    shots: int
    seed: int

    @property
    def path(self) -> Path:
        """Where the run lies below ``results`` or ``evidence``, without ending."""
        return Path(self.category, slug(self.method), run_name(self.shots, self.seed))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a run found on every test image, in the order of its result's `images`; N images, s×s pixels.

    Args:
        names: of the images, N.
        map: float16 [N, s, s], the localisation map.
        score_map: float16 [N, s, s], in the units of the image score, which is its maximum.
        replaced: uint8 [N, s, s], 1 where the prediction was replaced.
        valid: uint8 [N, s, s], 1 where there are features of both kinds.
        threshold: image score above which an image is anomalous.
        pixel_threshold: level of `score_map` above which the pixels of an anomalous image are marked.
    """

    names: tuple[str, ...]
    map: NDArray[np.float16]
    score_map: NDArray[np.float16]
    replaced: NDArray[np.uint8]
    valid: NDArray[np.uint8]
    threshold: float
    pixel_threshold: float


@dataclass(frozen=True, eq=False)
class Images:
    """The test images of a category on the grid of the maps; N images, s×s pixels.

    Args:
        names: N.
        rgb: uint8 [N, s, s, 3].
        depth: float16 [N, s, s], z in metres of the prepared cloud, 0 where missing.
        truth: uint8 [N, s, s], 1 on defects; 255 everywhere where an anomalous image has no ground truth.
    """

    names: tuple[str, ...]
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float16]
    truth: NDArray[np.uint8]


class Store:
    """Reads and writes the folder; every file appears whole or not at all.

    ``run.json`` is the record of the protocol. ``results/CATEGORY/METHOD/K-shot_seed-S.json`` holds one
    `CategoryResult` each, and ``evidence/`` in the same places the maps of the runs kept, as safetensors;
    ``evidence/CATEGORY/images.safetensors`` holds what they lie over. METHOD is the method's `slug`.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def record(self) -> dict[str, Any] | None:
        """The content of ``run.json``; None where there is none.

        Raises:
            InputError: the file is broken.
        """
        path = self.folder / RECORD
        if not path.is_file():
            return None
        with reading(path, "JSON"):
            found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise InputError(str(path), "a JSON object", type(found).__name__)
        return found

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write ``run.json``; OutputError where that fails, so in all writers here."""
        write_json(self.folder / RECORD, dict(record))

    def keys(self) -> list[RunKey]:
        """Every run that has a result, sorted; the order of methods is that of the record."""
        names = {slug(name): name for name in (self.record() or {}).get("methods", ())}
        found = []
        for path in (self.folder / RESULTS).glob("*/*/*.json"):
            run = _RUN.fullmatch(path.stem)
            if run is not None and not path.name.startswith("."):
                folder = path.parent.name
                method = names[folder] if folder in names else _method(_read(path))
                found.append(RunKey(path.parent.parent.name, method, int(run[1]), int(run[2])))
        order = {name: place for place, name in enumerate(names.values())}
        return sorted(found, key=lambda k: (k.category, order.get(k.method, len(order)), k))

    def result(self, key: RunKey) -> CategoryResult:
        """The result of one run.

        Raises:
            InputError: there is none, or the file is broken.
        """
        return _read(self.folder / RESULTS / f"{key.path}.json")

    def results(self, keys: Iterable[RunKey] | None = None) -> Iterator[CategoryResult]:
        """The results of `keys`, or of all runs, one by one."""
        for key in self.keys() if keys is None else keys:
            yield self.result(key)

    def has_result(self, key: RunKey) -> bool:
        """Whether the run is done."""
        return (self.folder / RESULTS / f"{key.path}.json").is_file()

    def has_evidence(self, key: RunKey) -> bool:
        """Whether the run's maps were kept."""
        return self._evidence(key).is_file()

    def has_images(self, category: str) -> bool:
        """Whether the test images of the category were kept."""
        return self._images(category).is_file()

    def evidence(self, key: RunKey) -> Evidence | None:
        """The maps of one run; None where they were not kept."""
        path = self._evidence(key)
        return Evidence(**_load(path, Evidence)) if path.is_file() else None

    def images(self, category: str) -> Images | None:
        """The test images of a category; None where they were not kept."""
        path = self._images(category)
        return Images(**_load(path, Images)) if path.is_file() else None

    def write_result(self, key: RunKey, result: CategoryResult) -> None:
        """Write one result: from then on the run is done."""
        write_json(self.folder / RESULTS / f"{key.path}.json", result.to_json())

    def write_evidence(self, key: RunKey, evidence: Evidence) -> None:
        """Write the maps of one run."""
        _save(self._evidence(key), evidence)

    def write_images(self, category: str, images: Images) -> None:
        """Write the test images of a category."""
        _save(self._images(category), images)

    def sweep(self) -> None:
        """Remove the unfinished files that a killed run left behind; only while no other run writes here."""
        for part in (RESULTS, EVIDENCE):
            for path in (self.folder / part).rglob(".*.tmp"):
                with suppress(OSError):
                    path.unlink()

    def _evidence(self, key: RunKey) -> Path:
        return self.folder / EVIDENCE / f"{key.path}.safetensors"

    def _images(self, category: str) -> Path:
        return self.folder / EVIDENCE / category / "images.safetensors"


def slug(method: str) -> str:
    """A method's name as a folder's: ``CFR nearest`` → ``cfr-nearest``."""
    return re.sub(r"[^a-z0-9]+", "-", method.lower()).strip("-")


def run_name(shots: int, seed: int) -> str:
    """``1-shot_seed-42``."""
    return f"{shots}-shot_seed-{seed}"


def _read(path: Path) -> CategoryResult:
    with reading(path, "evaluation result"):
        return CategoryResult.from_json(json.loads(path.read_text(encoding="utf-8")))


def _method(result: CategoryResult) -> str:
    return next(name for name in result.metrics if name not in NO_MODEL)


def _save(path: Path, content: Evidence | Images) -> None:
    values = {entry.name: getattr(content, entry.name) for entry in fields(content)}
    arrays = {
        name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)
    }
    plain = {name: json.dumps(value) for name, value in values.items() if name not in arrays}
    write_atomically(path, save(arrays, plain))


def _load(path: Path, kind: type[Evidence] | type[Images]) -> dict[str, Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            plain = file.metadata() or {}
            found = {
                entry.name: json.loads(plain[entry.name])
                if entry.name in plain
                else file.get_tensor(entry.name)
                for entry in fields(kind)
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(str(path), "an intact safetensors file of maps", f"{error}") from error
    return found | {"names": tuple(found["names"])}
