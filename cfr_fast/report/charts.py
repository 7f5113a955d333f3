"""What the charts of the page share."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cfr_fast.report import svg
from cfr_fast.report.contents import Contents
from cfr_fast.report.style import series


def legend(contents: Contents) -> str:
    """The methods and their colours."""
    return svg.element(
        "ul",
        "".join(
            svg.element("li", f'<i class="{series(name, contents.methods)}"></i>{escape(name)}')
            for name in contents.rows
        ),
        class_="legend",
    )


def grid(share: float, height: int, label: str) -> str:
    """A labelled line from top to bottom, at a share of the width."""
    x, anchor = svg.percent(share), "middle"
    drawn = svg.line(x, "0", x, f"{height}", "grid")
    return drawn + svg.text(label, x=x, y=height + 14, text_anchor=anchor, class_="tick")


def chooser(chosen: str, key: str, panels: Sequence[str]) -> str:
    """A chart with its choices, its legend, and a panel for each combination."""
    head = svg.element("div", chosen, class_="controls")
    return svg.element("div", head + key + "".join(panels), class_="choice")


def choose_shots(contents: Contents) -> str:
    """The number of shots, to choose."""
    return svg.choices("shots", "Shots", [(f"{shots}", f"{shots}") for shots in contents.shots])


def nothing(why: str) -> str:
    """In the place of a chart."""
    return svg.element("p", escape(why), class_="nothing")
