"""Small pieces of HTML and SVG, always escaped.

Charts are SVG of the full width of their box and a fixed height: positions across are percentages, so that
text and lines keep their size on a phone. What is drawn as a path lies in a nested SVG that stretches.
Colours are classes of ``report.css``, for light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def element(tag: str, content: str = "", **attributes: object) -> str:
    """One element. `content` is markup; attributes are escaped; ``class_`` is class, other ``_`` are ``-``.

    None leaves an attribute out; True gives one without value.
    """
    written = "".join(
        f" {_name(name)}" if value is True else f' {_name(name)}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return f"<{tag}{written}>{content}</{tag}>"


def text(content: str, **attributes: object) -> str:
    """SVG text, escaped."""
    return element("text", escape(content), **attributes)


def line(x1: str, y1: str, x2: str, y2: str, class_: str) -> str:
    """SVG line; positions are pixels or percentages."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def percent(value: float) -> str:
    """A position across, of 0 to 1; within the chart whatever the value."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}".rstrip("0").rstrip(".") + "%"


def chart(parts: Iterable[str], height: int, label: str) -> str:
    """The box of a chart; `label` is what a screen reader says."""
    content = "".join(parts)
    return element(
        "div",
        element("svg", content, width="100%", height=height, role="img", aria_label=label),
        class_="plot",
    )


def stretched(content: str, width: float, height: float) -> str:
    """Fills the chart with the rectangle (0, 0) to (width, height); strokes keep their width."""
    box = f"0 0 {width:g} {height:g}"
    return element(
        "svg", content, width="100%", height="100%", viewBox=box, preserveAspectRatio="none", class_="inner"
    )


def steps(counts: Sequence[int], baseline: float, scale: float) -> str:
    """Path data of a histogram's outline in units of bins; negative `scale` goes up."""
    moves = [f"M0 {baseline:g}"]
    moves += [f"V{baseline + scale * count:.5g}H{index + 1}" for index, count in enumerate(counts)]
    return "".join([*moves, f"V{baseline:g}Z"])


def choices(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
    """A labelled list to choose one of (value, text) from; nothing where there is no choice."""
    listed = "".join(element("option", escape(shown), value=value) for value, shown in options)
    box = element("select", listed, data_key=name)
    return element("label", f"{escape(label)} {box}", hidden=len(options) < 2)


def panel(content: str, hidden: bool, **keys: object) -> str:
    """What one combination of `choices` shows; ``report.js`` shows the panel whose keys are all chosen."""
    data = {f"data_{name}": value for name, value in keys.items()}
    return element("div", content, class_="panel", hidden=hidden, **data)


def _name(name: str) -> str:
    return name.removesuffix("_").replace("_", "-") if name != "viewBox" else name
