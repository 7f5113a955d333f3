"""Outcomes of races as a table on the screen and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cfr_fast.benchmark.machine import Machine
from cfr_fast.benchmark.paper import Timing
from cfr_fast.benchmark.race import Outcome


def to_json(machine: Machine, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Everything measured, JSON-able."""
    return {"machine": asdict(machine), "races": [_entry(outcome, machine) for outcome in outcomes]}


def show(machine: Machine, outcomes: Iterable[Outcome]) -> None:
    """Print the table, and the roof that its columns refer to."""
    console = Console()
    console.print(_roof(machine), highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", title="medians", title_justify="left")
    table.add_column("what", max_width=52)
    table.add_column("against")
    for column in ("ours", "theirs", "ratio", "promised", "rate", "of the roof"):
        table.add_column(column, justify="right")
    for outcome in outcomes:
        first = True
        for peer, theirs in outcome.peers.items():
            ratio, bar = outcome.ratio(peer), outcome.bars.get(peer)
            style = "" if bar is None else "green" if ratio >= bar else "red"
            table.add_row(
                outcome.what if first else "",
                peer,
                _amount(outcome.ours, outcome.unit) if first else "",
                _amount(theirs, outcome.unit),
                f"[{style}]{ratio:.2f} ×[/]" if style else f"{ratio:.2f} ×",
                "" if bar is None else f"{bar:g} ×",
                *(_rate(outcome, machine) if first else ("", "")),
            )
            first = False
    console.print(table)


def _roof(machine: Machine) -> str:
    peak = f"{machine.fma_peak:.0f}" if machine.fma_peak else "—"
    return (
        f"{machine.processor} · {machine.threads} threads · torch {machine.torch} · kernels: "
        f"{machine.kernels or 'none, plain PyTorch serves'}\n"
        f"this machine: sgemm {machine.sgemm:.0f} GFLOP/s · multiply-add peak {peak} GFLOP/s · "
        f"copy {machine.copy:.1f} GB/s"
    )


def _entry(outcome: Outcome, machine: Machine) -> dict[str, Any]:
    entry = asdict(outcome)
    entry["ratios"] = {peer: outcome.ratio(peer) for peer in outcome.peers}
    entry["bars_met"] = {peer: outcome.ratio(peer) >= bar for peer, bar in outcome.bars.items()}
    if outcome.work:
        entry["gflops"] = outcome.work / outcome.ours / 1e9
        entry["share_of_sgemm"] = entry["gflops"] / machine.sgemm
        entry["share_of_fma_peak"] = entry["gflops"] / machine.fma_peak if machine.fma_peak else None
    if outcome.traffic:
        entry["gb_per_s"] = outcome.traffic / outcome.ours / 1e9
        entry["share_of_copy"] = entry["gb_per_s"] / machine.copy
    return entry


def _rate(outcome: Outcome, machine: Machine) -> tuple[str, str]:
    """Rate by the plain way's count of operations, and its share of sgemm's (of the copy's, for traffic)."""
    if outcome.work:
        rate = outcome.work / outcome.ours / 1e9
        return f"{rate:,.0f} GFLOP/s", f"{rate / machine.sgemm:.0%} of sgemm"
    if outcome.traffic:
        rate = outcome.traffic / outcome.ours / 1e9
        return f"{rate:.1f} GB/s", f"{rate / machine.copy:.0%} of copy"
    return "", ""


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    return f"{value * 1e3:,.1f} ms" if value < 1 else f"{value:,.1f} s"


def show_paper(machine: Machine, timing: Timing) -> None:
    """Print what the paper's configuration took, stage by stage, and which promises hold."""
    console = Console()
    console.print(_roof(machine), highlight=False)
    console.print(
        f"{timing.sample}: {timing.valid:.0%} of the pixels valid, {timing.replaced:.0%} of these replaced; "
        f"{timing.epochs} epochs of each run, seconds are for 100",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "stage"):
        table.add_column(column)
    for column in ("time", "peak memory"):
        table.add_column(column, justify="right")
    for title, costs in (("extraction", timing.extraction), ("fit", timing.fit), ("", [timing.predict])):
        for number, cost in enumerate(costs):
            peak = "" if cost.peak is None else _amount(cost.peak, "bytes")
            table.add_row("" if number else title, cost.stage, _amount(cost.seconds, "s"), peak)
    console.print(table)
    console.print(f"extraction takes {timing.ratio:.2f} × the bare networks", highlight=False)
    for name, met in timing.bars_met().items():
        console.print(f"[{'green' if met else 'red'}]{name}: {'met' if met else 'not met'}[/]")
