"""What several commands need: the model of the options, categories, a folder that can be written."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cfr_fast.errors import InputError, OutputError

if TYPE_CHECKING:
    from cfr_fast.data import Category, DatasetName
    from cfr_fast.model import CFR


def new_model(
    options: argparse.Namespace,
    seed: int | None,
    changes: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> CFR:
    """The unfitted model of the options, with settings changed, on their device or another."""
    from cfr_fast.model import CFR

    named = {
        name: getattr(options, name) for name in ("rgb", "xyz", "replacement", "size", "crop", "background")
    }
    settings: dict[str, Any] = {
        name: value for name, value in (named | {"seed": seed}).items() if value is not None
    }
    for assignment in options.set:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError("--set", "NAME=VALUE", repr(assignment))
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value  # a bare word is a string
    if options.weights is not None:
        settings["rgb_options"] = {"weights": str(options.weights), **settings.get("rgb_options", {})}
    return CFR.preset(options.preset, device=device or options.device, **{**settings, **(changes or {})})


def load_categories(
    options: argparse.Namespace, names: Sequence[str] | None, most: int | None = None
) -> list[Category]:
    """The categories asked for, or all; at most `most`."""
    from cfr_fast.data import detect_dataset, list_categories, load_category

    dataset: DatasetName = options.dataset if options.dataset != "auto" else detect_dataset(options.data)
    options.dataset = dataset
    if names is None:
        names = list_categories(dataset, options.data)
        if most is not None and len(names) > most:
            raise InputError("--category", f"one of {', '.join(names)}", "none")
    return [load_category(dataset, options.data, name) for name in names]


def dataset_label(options: argparse.Namespace) -> str:
    """The dataset's name for the record; the procedural set is no benchmark, though laid out like one."""
    from cfr_fast.data.synthetic.dataset import RECORD

    made = any((folder / RECORD).is_file() for folder in (options.data, options.data.resolve().parent))
    return "procedural" if made else str(options.dataset)


def writable(folder: Path) -> Path:
    """Make the folder and try it now, before anything long is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
    return folder


def say(content: Any, as_json: bool, line: str) -> None:
    """Print the content as JSON, or the line."""
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        Console(soft_wrap=True).print(line, highlight=False, markup=False)
