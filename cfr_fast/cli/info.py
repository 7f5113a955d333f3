"""What is installed, what runs where, and why."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from cfr_fast import __version__
from cfr_fast.extractors import available_extractors
from cfr_fast.ops import loader

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "timm", "safetensors", "rich")


def collect() -> dict[str, Any]:
    """Versions, device, extractors and op backends, JSON-able."""
    return {
        "cfr_fast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "extractors": [asdict(entry) for entry in available_extractors()],
        "ops": [asdict(row) for row in loader.status()],
    }


def show(found: dict[str, Any]) -> None:
    """Print what `collect` found."""
    console = Console()
    console.print(
        f"cfr_fast {found['cfr_fast']} · Python {found['python']} · {found['platform']}", highlight=False
    )
    console.print(f"device: {found['device']} · {found['threads']} CPU threads", highlight=False)
    listed = " · ".join(f"{name} {number or 'missing'}" for name, number in found["packages"].items())
    console.print(listed, highlight=False)
    for title in ("extractors", "ops"):
        rows = found[title]
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in rows[0]:
            table.add_column(column)
        for row in rows:
            table.add_row(*(_cell(value) for value in row.values()))
        console.print()
        console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "—" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
