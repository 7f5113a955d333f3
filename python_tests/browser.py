"""A real browser for the tests: Debian's chromium, driven by playwright, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: the page is not tried in a browser")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here to drive chromium")
    with api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(running: Any, path: Path, **options: Any) -> Iterator[Any]:
    """A page of its own; at the end it must have said nothing on its console, and asked for nothing."""
    context = running.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(15_000)
    address = path.resolve().as_uri()
    page.goto(address)
    yield page
    context.close()
    assert complaints == []
    assert [url for url in asked if url != address and not url.startswith("data:")] == []
