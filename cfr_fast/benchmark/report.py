"""Outcomes of races as a table on the screen and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cfr_fast.benchmark.machine import Machine
from cfr_fast.benchmark.race import Outcome


def to_json(machine: Machine, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Everything measured, JSON-able."""
    return {"machine": asdict(machine), "races": [_entry(outcome, machine) for outcome in outcomes]}


def show(machine: Machine, outcomes: Iterable[Outcome]) -> None:
    """Print the table, and the roof that its columns refer to."""
    console = Console()
    peak = f"{machine.fma_peak:.0f}" if machine.fma_peak else "—"
    console.print(
        f"{machine.processor} · {machine.threads} threads · torch {machine.torch} · kernels: "
        f"{machine.kernels or 'none, plain PyTorch serves'}\n"
        f"this machine: sgemm {machine.sgemm:.0f} GFLOP/s · multiply-add peak {peak} GFLOP/s · "
        f"copy {machine.copy:.1f} GB/s",
        highlight=False,
    )
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
