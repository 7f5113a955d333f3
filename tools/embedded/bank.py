"""The pictures that training draws its crops from, made once, kept in a file, the same for the same plan."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
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


def load_bank(plan: Plan, folder: Path) -> Bank:
    """The bank of a plan: read from `folder`, or made and written there.

    Raises:
        InputError: scikit-image came without one of `NATURAL`, or the file is damaged.
        OutputError: the file cannot be written.
    """
    digest = sha256(json.dumps([VERSION, asdict(plan)]).encode()).hexdigest()[:12]
    path = folder / f"bank-{digest}.npz"
    if not path.exists():
        bank = make_bank(plan)
        buffer = io.BytesIO()
        np.savez(buffer, pictures=bank.pictures, kind=bank.kind)
        write_atomically(path, buffer.getvalue())
        return bank
    with reading(path, "bank of pictures"), np.load(path, allow_pickle=False) as stored:
        return Bank(stored["pictures"], stored["kind"])


def make_bank(plan: Plan) -> Bank:
    """Make every picture of a plan; each has random numbers of its own, whatever comes before it."""
    pictures, kinds = [], []
    for pair, kind in track(_pictures(plan), "Making pictures", _count(plan)):
        pictures.append(np.rint(255 * np.clip(pair, 0, 1)).astype(np.uint8))
        kinds.append(kind)
    return Bank(np.stack(pictures), np.array(kinds, np.uint8))


def _count(plan: Plan) -> int:
    return plan.natural + 2 * plan.renders + plan.leaves + plan.fractals + plan.heights


def _pictures(plan: Plan) -> Iterator[tuple[Picture, int]]:
    """Pairs [2, S, S, 3] and their kinds."""
    size = plan.size
    photos = natural_photos() if plan.natural else []
    for index in range(plan.natural):
        yield _twice(_crop(photos[index % len(photos)], size, _rng(plan, "natural", index))), PHOTO
    for index in range(plan.renders):
        pair, normals = render(_rng(plan, "render", index), size)
        yield pair, PHOTO
        yield normals, NORMAL
    textures: tuple[tuple[str, int, Callable[[np.random.Generator, int], Picture]], ...]
    textures = (("leaves", plan.leaves, leaves), ("fractal", plan.fractals, fractal_picture))
    for name, count, make in textures:
        for index in range(count):
            yield _twice(make(_rng(plan, name, index), size)), PHOTO
    for index in range(plan.heights):
        rng = _rng(plan, "heights", index)
        heights = random_heights(rng, size)
        yield np.stack([normal_picture(heights, 110 / size, rng) for _ in range(2)]), NORMAL


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
