"""An evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Table = tuple[str, list[str], list[list[str]]]
Result = Mapping[str, Any]


def evaluation_tables(result: Result) -> list[Table]:
    """Title, columns and rows of each; one without rows, such as guarantees where none is certified, is left out."""
    tables = [
        _exits(result),
        _points(result),
        _guarantees(result),
        _hindsight(result),
        _bytes(result),
        _baselines(result),
        _latency(result),
    ]
    return [table for table in tables if table[2]]


def _exits(result: Result) -> Table:
    rows = []
    for e in result["exits"]:
        seen = (e["foresight"] or {}).get("leave")
        rows.append(
            [
                str(e["exit"]),
                f"{e['accuracy']:.2%}",
                f"{e['flops']:,.0f}",
                f"{e['uncalibrated']['ece']:.2%}, {e['calibrated']['ece']:.2%}",
                f"{e['uncalibrated']['brier']:.4f}, {e['calibrated']['brier']:.4f}",
                "-" if seen is None else f"{seen['auroc']:.3f}",
            ]
        )
    columns = ["exit", "accuracy", "FLOPs", "ECE before, after", "Brier before, after", "AUROC of leaving"]
    return ("Each exit alone", columns, rows)


def _points(result: Result) -> Table:
    rows = [
        [
            name,
            f"{point['accuracy']:.2%}",
            " to ".join(f"{end:.2%}" for end in point["accuracy_interval"]),
            f"{100 * point['drop']:.2f}",
            ", ".join(f"{rate:.1%}" for rate in point["exit_rates"]),
            ", ".join("-" if a is None else f"{a:.1%}" for a in point["exit_accuracy"]),
            f"{point['mean_flops']:,.0f}",
        ]
        for name, point in result["operating_points"].items()
    ]
    columns = ["name", "accuracy", "95 % interval", "drop in points", "exit rates", "of these right", "mean FLOPs"]
    return ("Operating points", columns, rows)


def _guarantees(result: Result) -> Table:
    rows = [
        [name, entry["risk"], f"{entry['epsilon']:.2%}", f"{entry['delta']:g}", f"{entry['mean_loss']:.2%}"]
        for name, entry in result.get("guarantees", {}).items()
    ]
    return ("Guarantees", ["name", "mean", "at most", "wrong with probability", "here"], rows)


def _hindsight(result: Result) -> Table:
    best, over = result["oracle"], result["overthinking"]
    rows = [["earliest right exit (oracle)", f"{best['accuracy']:.2%}", f"{best['mean_flops']:,.0f}"]]
    rows += [
        [f"rows by lot at the rates of {name}", f"{point['random_accuracy']:.2%}", f"{point['mean_flops']:,.0f}"]
        for name, point in result["operating_points"].items()
    ]
    title = (
        f"In hindsight: {over['wasted']['share']:.2%} of the rows are right early and at the last exit, "
        f"{over['destructive']['share']:.2%} only early"
    )
    return (title, ["choice of exits", "accuracy", "mean FLOPs"], rows)


def _bytes(result: Result) -> Table:
    rows = [
        [
            f"{cut['cut']} | {cut['cut'] + 1}",
            f"{cut['share']:.2%}",
            *("-" if cut.get(key) is None else f"{cut[key]:,.0f}" for key in _SIZES),
        ]
        for cut in result["forwarded_bytes"]
    ]
    columns = ["between", "forwarded", "coded", "uncoded", "the input itself", "with zlib", "as PNG"]
    return ("Forwarded at the default operating point, mean bytes per row", columns, rows)


_SIZES = ("coded", "uncoded", "input", "input_zlib", "input_png")


def _baselines(result: Result) -> Table:
    rows = [
        [
            one["name"],
            one["kind"],
            f"{one['accuracy']:.2%}",
            f"{one['flops']:,}" if "flops" in one else "-",
            f"{one['bytes']:,}",
            f"{100 * one['gaps']['default']['gap']:+.2f}",
            " to ".join(f"{100 * end:+.2f}" for end in one["gaps"]["default"]["interval"]),
        ]
        for one in result["baselines"]
    ]
    columns = ["name", "kind", "accuracy", "FLOPs", "bytes", "default above it, points", "95 % interval"]
    return ("Baselines without exits", columns, rows)


def _latency(result: Result) -> Table:
    entries = list(result.get("latency", {}).items())
    entries += [(f"baseline {one['name']}", one["latency"]) for one in result["baselines"] if "latency" in one]
    rows = [
        [
            name,
            *(f"{values[key]:.0f}" for key in ("mean_us", "p50_us", "p95_us", "p99_us")),
            f"{values['speedup']:.2f}",
            *([f"{values['batch32'][key]:.4g}" for key in ("mean_us", "speedup")] if values["batch32"] else ["-", "-"]),
            f"{values['first_us']:,.0f}",
        ]
        for name, values in entries
    ]
    columns = ["what", "mean", "p50", "p95", "p99", "times as fast", "batch 32: mean", "times as fast", "first"]
    title = "Latency in microseconds per row, one row at a time, no network; times as fast as without exits"
    return (title, columns, rows)
