"""The pictures that training draws its crops from, made once, kept in a file, the same for the same plan."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cfr_fast.data.files import reading, write_atomically
from cfr_fast.data.images import read_rgb
from cfr_fast.errors import InputError
from cfr_fast.progress import track
from tools.embedded.renders import normal_picture, random_heights, render
from tools.embedded.textures import Picture, fractal_picture, leaves

NATURAL = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Images that come with scikit-image: CC0, public domain or "no known copyright restrictions" by the notes of
``skimage.data``; those that the notes do not speak of are left out."""

PHOTO, NORMAL = 0, 1
VERSION = 2
"""Goes up whenever the same plan would give other pictures."""


@dataclass(frozen=True)
class Plan:
    """How many pictures of what.

    Args:
        natural: crops of `NATURAL`.
        renders: parts, each a photo and a normal map.
        leaves, fractals: textures.
        heights: normal maps of random surfaces.
        size: side of the pictures, pixels.
        seed: of everything.
    """

    natural: int = 150
    renders: int = 130
    leaves: int = 60
    fractals: int = 30
    heights: int = 50
    size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("natural", 0), ("renders", 1), ("leaves", 0), ("fractals", 0), ("heights", 0)):
            if getattr(self, name) < low:
                raise InputError(name, f"a whole number ≥ {low}", str(getattr(self, name)))
        if self.size < 64:
            raise InputError("size", "at least 64 pixels", str(self.size))


@dataclass(frozen=True)
class Bank:
    """Pictures in pairs that show the same places, under two lights where there are two.

    Args:
        pictures: uint8 [N, 2, S, S, 3].
        kind: uint8 [N], `PHOTO` or `NORMAL`.
    """

    pictures: NDArray[np.uint8]
    kind: NDArray[np.uint8]

    def of_kind(self, kind: int) -> NDArray[np.intp]:
        """Indices of the photos, or of the normal maps."""
        return np.flatnonzero(self.kind == kind)


def load_bank(plan: Plan, folder: Path, workers: int = 0) -> Bank:
    """The bank of a plan: read from `folder`, or made (see `make_bank`) and written there.

    Raises:
        InputError: scikit-image came without one of `NATURAL`, or the file is damaged.
        OutputError: the file cannot be written.
    """
    digest = sha256(json.dumps([VERSION, asdict(plan)]).encode()).hexdigest()[:12]
    path = folder / f"bank-{digest}.npz"
    if not path.exists():
        bank = make_bank(plan, workers)
        buffer = io.BytesIO()
        np.savez(buffer, pictures=bank.pictures, kind=bank.kind)
        write_atomically(path, buffer.getvalue())
        return bank
    with reading(path, "bank of pictures"), np.load(path, allow_pickle=False) as stored:
        return Bank(stored["pictures"], stored["kind"])


def make_bank(plan: Plan, workers: int = 0) -> Bank:
    """Make every picture of a plan; each has random numbers of its own, whatever comes before it.

    Args:
        plan: of what.
        workers: processes that make them; 0: this one alone.
    """
    jobs = [(plan, name, index) for name in MAKERS for index in range(getattr(plan, name))]
    if plan.natural:
        natural_photos()  # says early what is missing
    pictures, kinds = [], []
    with ProcessPoolExecutor(workers) if workers else nullcontext() as pool:
        made = map(_made, jobs) if pool is None else pool.map(_made, jobs, chunksize=4)
        for pairs in track(made, "Making pictures", len(jobs)):
            for pair, kind in pairs:
                pictures.append(pair)
                kinds.append(kind)
    return Bank(np.stack(pictures), np.array(kinds, np.uint8))


Pairs = list[tuple[Picture, int]]
"""Pictures [2, S, S, 3] and their kinds."""


def _natural(plan: Plan, index: int, rng: np.random.Generator) -> Pairs:
    photos = natural_photos()
    return [(_twice(_crop(photos[index % len(photos)], plan.size, rng)), PHOTO)]


def _render(plan: Plan, index: int, rng: np.random.Generator) -> Pairs:
    pair, normals = render(rng, plan.size)
    return [(pair, PHOTO), (normals, NORMAL)]


def _heights(plan: Plan, index: int, rng: np.random.Generator) -> Pairs:
    heights = random_heights(rng, plan.size)
    return [(np.stack([normal_picture(heights, 110 / plan.size, rng) for _ in range(2)]), NORMAL)]


MAKERS: dict[str, Callable[[Plan, int, np.random.Generator], Pairs]] = {
    "natural": _natural,
    "renders": _render,
    "leaves": lambda plan, index, rng: [(_twice(leaves(rng, plan.size)), PHOTO)],
    "fractals": lambda plan, index, rng: [(_twice(fractal_picture(rng, plan.size)), PHOTO)],
    "heights": _heights,
}
"""How the pictures of each number in a plan are made."""

_PURPOSE = {"renders": "render", "fractals": "fractal"}  # under these names their random numbers are drawn


def _made(job: tuple[Plan, str, int]) -> list[tuple[NDArray[np.uint8], int]]:
    plan, name, index = job
    rng = _rng(plan, _PURPOSE.get(name, name), index)
    return [
        (np.rint(255 * np.clip(pair, 0, 1)).astype(np.uint8), kind)
        for pair, kind in MAKERS[name](plan, index, rng)
    ]


@cache
def natural_photos() -> list[NDArray[np.uint8]]:
    """The images of `NATURAL`, uint8 [h, w, 3].

    Raises:
        InputError: scikit-image is installed without one of them.
    """
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    missing = [name for name in NATURAL if not (folder / name).is_file()]
    if missing:
        raise InputError("scikit-image", f"its images in {folder}", f"none called {', '.join(missing)}")
    return [read_rgb(folder / name) for name in NATURAL]


def _crop(photo: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Picture:
    """A random square of a photo, at least 150 pixels or all there is, as size×size pixels."""
    short = min(photo.shape[:2])
    side = round(float(np.exp(rng.uniform(np.log(min(150, short)), np.log(short)))))
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    square = Image.fromarray(photo[top : top + side, left : left + side])
    resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return resized / np.float32(255)


def _twice(picture: Picture) -> Picture:
    return np.broadcast_to(picture, (2, *picture.shape))


def _rng(plan: Plan, purpose: str, index: int) -> np.random.Generator:
    name = int.from_bytes(sha256(purpose.encode()).digest()[:8], "little")
    return np.random.default_rng(np.random.SeedSequence([plan.seed, name, index]))
