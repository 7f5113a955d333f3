"""Training of the embedded network, on a few tiny pictures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from cfr_fast.errors import InputError  # noqa: E402
from cfr_fast.extractors import create_extractor  # noqa: E402
from cfr_fast.extractors.torchvision_fix import import_timm  # noqa: E402
from tools import train_embedded  # noqa: E402
from tools.embedded.bank import NORMAL, PHOTO, Bank, Plan, load_bank, make_bank  # noqa: E402
from tools.embedded.training import CHECKPOINT, WEIGHTS, Recipe, Training  # noqa: E402
from tools.embedded.views import make_batch, meeting_points  # noqa: E402

PLAN = Plan(natural=2, renders=2, leaves=1, fractals=1, heights=1, size=64)
TINY = Recipe(objective="self", steps=4, batch=4, crop=32)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(PLAN)


def test_the_same_plan_makes_the_same_pictures(bank: Bank, tmp_path: Path) -> None:
    stored = load_bank(PLAN, tmp_path, workers=2)
    assert np.array_equal(stored.pictures, bank.pictures)
    assert np.array_equal(load_bank(PLAN, tmp_path).pictures, bank.pictures)
    assert bank.pictures.shape == (9, 2, 64, 64, 3)
    assert bank.kind.tolist() == [PHOTO] * 2 + [PHOTO, NORMAL] * 2 + [PHOTO] * 2 + [NORMAL]
    assert (bank.pictures.std(axis=(2, 3)).max(axis=2) > 1).all()  # none is blank
    more = make_bank(Plan(natural=1, renders=3, leaves=0, fractals=0, heights=0, size=64))
    assert np.array_equal(more.pictures[1:5], bank.pictures[2:6])  # whatever else is made
    lamps = bank.pictures[2].astype(float)
    assert np.abs(lamps[0] - lamps[1]).mean() > 3


def test_batches_depend_on_seed_and_step_alone(bank: Bank) -> None:
    batch, again = (make_batch(bank, 4, 32, 5, 7) for _ in range(2))
    assert torch.equal(batch.images, again.images)
    assert batch.images.shape == (4, 3, 32, 32)
    assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1
    assert not torch.equal(batch.images, make_batch(bank, 4, 32, 5, 8).images)
    assert not torch.equal(batch.images, make_batch(bank, 4, 32, 6, 7).images)


def test_meeting_points_are_the_same_places(bank: Bank) -> None:
    batch = make_batch(bank, 8, 32, 0, 0)
    first, second, met = meeting_points(batch, 50, 0, 0)
    assert met.any()
    places = [
        where @ warp[:, :, :2].mT + warp[:, None, :, 2]
        for where, warp in ((first, batch.warp[0::2]), (second, batch.warp[1::2]))
    ]
    torch.testing.assert_close(places[0], places[1], rtol=0, atol=1e-5)


def test_an_interrupted_run_ends_as_if_it_had_not_been(bank: Bank, tmp_path: Path) -> None:
    whole = Training(TINY, bank, None, tmp_path / "whole")
    whole.run()
    Training(TINY, bank, None, tmp_path / "parts").run(until=2)
    assert (tmp_path / "parts" / CHECKPOINT).exists()
    resumed = Training(TINY, bank, None, tmp_path / "parts", workers=2)
    assert (resumed.step, len(resumed.history)) == (2, 2)
    resumed.run()
    assert resumed.history == whole.history
    assert all(
        torch.equal(value, resumed.network.state_dict()[name])
        for name, value in whole.network.state_dict().items()
    )
    assert whole.export().read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    onwards = Training(replace(TINY, start=str(tmp_path / "parts" / CHECKPOINT)), bank, None, tmp_path / "on")
    assert torch.equal(onwards.network.stem.conv.weight, whole.network.stem.conv.weight)
    assert onwards.step == 0
    with pytest.raises(InputError, match="a folder of this recipe"):
        Training(Recipe(objective="self", steps=5, batch=4, crop=32), bank, None, tmp_path / "parts")
    (tmp_path / "parts" / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(InputError, match="intact checkpoint"):
        Training(TINY, bank, None, tmp_path / "parts")


def test_the_command_teaches_a_network_that_the_extractors_take(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = import_timm().create_model("mobilenetv2_100", pretrained=False, num_classes=0)
    save_file(network.state_dict(), tmp_path / "teacher.safetensors")
    counts = {"natural": 1, "renders": 1, "leaves": 0, "fractals": 0, "heights": 0, "picture-size": 64}
    pictures = [f"--{name}={count}" for name, count in counts.items()]
    command = ["--steps=3", "--batch=4", "--crop=32", "--device=cpu", *pictures, f"--out={tmp_path / 'run'}"]
    assert train_embedded.main(["--objective=mixture", *command]) == 2  # without a teacher
    taught = [*command, "--objective=mixture", f"--teacher={tmp_path / 'teacher.safetensors'}"]
    assert train_embedded.main(taught) == 0
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    extractor = create_extractor("embedded", "rgb", weights=str(tmp_path / "run" / WEIGHTS))
    assert extractor.config()["options"]["input_size"] == 448
    assert (tmp_path / "run" / WEIGHTS).stat().st_size < 8e6


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"objective": "best"}, "objective"),
        ({"batch": 3}, "batch"),
        ({"crop": 40}, "crop"),
        ({"steps": 0}, "steps"),
    ],
)
def test_recipes_out_of_range_are_refused(changes: dict[str, object], names: str) -> None:
    with pytest.raises(InputError, match=names):
        Recipe(**changes)  # type: ignore[arg-type]
