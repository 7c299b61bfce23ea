"""The tables of a model card: each function makes one section of Markdown, empty where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]


def accuracy(result: Result) -> str:
    """Every exit alone, and every operating point."""
    exits = [[str(e["exit"]), _share(e), f"{e['flops'] / 1e6:.2f}"] for e in result["exits"]]
    points = [
        [
            f"`{name}`",
            _share(point),
            f"{100 * point['drop']:.2f} ({_ends(point['drop_interval'])})",
            " / ".join(f"{100 * rate:.2f}" for rate in point["exit_rates"]),
            " / ".join("-" if a is None else f"{100 * a:.2f}" for a in point["exit_accuracy"]),
            f"{point['mean_flops'] / 1e6:.2f}",
        ]
        for name, point in result["operating_points"].items()
    ]
    columns = ["operating point", "accuracy %", "points below the last exit", "leave per exit %"]
    return "\n".join(
        [
            f"## Accuracy on the {result['n']:,} rows of the {result['split']} split\n",
            "Thresholds and temperatures come from rows that nothing was trained on. In brackets: 95 % intervals, "
            "exact for shares, paired for differences.\n",
            *_table(["exit, answering every row", "accuracy %", "MFLOPs"], exits),
            "",
            *_table([*columns, "of these right %", "MFLOPs"], points),
            "\n![accuracy against cost](evaluation.png)\n",
        ]
    )


def guarantees(result: Result) -> str:
    """What is certified, beside what the test split shows."""
    if "guarantees" not in result:
        return ""
    rows = [
        [
            f"`{name}`",
            entry["risk"].replace("-", " "),
            f"{100 * entry['epsilon']:.6g}",
            f"{entry['delta']:g}",
            f"{100 * entry['mean_loss']:.2f}",
        ]
        for name, entry in result["guarantees"].items()
    ]
    columns = ["operating point", "mean loss", "at most %", "wrong with probability at most", "on the test split %"]
    return "\n".join(
        [
            "## Guarantees\n",
            "Certified on rows that nothing was fitted on; the mean loss of the test split is shown beside it.\n",
            *_table(columns, rows),
            "",
        ]
    )


def probabilities(result: Result) -> str:
    """Calibration errors, and how well the criterion ranks rows."""
    rows = []
    for e in result["exits"]:
        before, after, seen = e["uncalibrated"], e["calibrated"], e["foresight"] or {}
        rows.append(
            [
                str(e["exit"]),
                f"{100 * before['ece']:.2f} / {100 * after['ece']:.2f}",
                f"{before['brier']:.4f} / {after['brier']:.4f}",
                *(_auroc(seen.get(question)) for question in ("right", "leave")),
            ]
        )
    columns = ["exit", "calibration error %, before / after", "Brier score, before / after"]
    questions = ["AUROC: is it right?", "AUROC: is nothing gained by going on?"]
    return "\n".join(
        [
            "## Probabilities and the criterion\n",
            "Before and after temperature scaling. The criterion's score tells right from wrong answers, and rows that "
            "may leave from those that only a later exit gets right, with the probability given (0.5: guessing).\n",
            *_table([*columns, *questions], rows),
            "\n![reliability diagrams](evaluation-reliability.png)\n",
        ]
    )


def exits_in_hindsight(result: Result) -> str:
    """Overthinking, the oracle and rows drawn by lot."""
    over, best = result["overthinking"], result["oracle"]
    lots = ", ".join(
        f"`{name}` {100 * point['random_accuracy']:.2f} %"
        for name, point in result["operating_points"].items()
        if point["exit_rates"][-1] < 1.0
    )
    return "\n".join(
        [
            "## What the exits could do\n",
            f"- Overthinking: {_of(over['wasted'])} of the rows are right at an early exit and at the last; "
            f"{_of(over['destructive'])} are right at an early exit and wrong at the last.",
            f"- Leaving at the earliest right exit, which nobody can know beforehand, would be right for "
            f"{100 * best['accuracy']:.2f} % at {best['mean_flops'] / 1e6:.2f} MFLOPs.",
            *([f"- With rows drawn by lot at the same rates instead of by the criterion: {lots}."] if lots else []),
            "",
        ]
    )


def baselines(result: Result) -> str:
    """Networks without exits, and the quickest that is as accurate."""
    rows = [
        [
            f"`{one['name']}`",
            _WHAT[one["kind"]],
            _share(one),
            f"{one['flops'] / 1e6:.2f}" if "flops" in one else "-",
            f"{one['bytes'] / 1e3:,.0f}",
            f"{one['latency']['mean_us']:.1f}" if "latency" in one else "-",
            f"{100 * one['gaps']['default']['gap']:+.2f} ({_ends(one['gaps']['default']['interval'])})",
        ]
        for one in result["baselines"]
    ]
    lines = ["## Baselines\n", "Each one graph on one thread of onnxruntime, on the same rows.\n"]
    if rows:
        columns = ["network", "what", "accuracy %", "MFLOPs", "kB", "mean us", "`default` lies above it, points"]
        lines += [*_table(columns, rows), ""]
    lines += [f"Left out, {name}: {why}\n" for name, why in result["left_out"].items()]
    if not any(one["kind"] in ("backbone", "static") for one in result["baselines"]):
        lines.append("Nothing was trained without exits to compare with: `offramp build --baselines` does that.\n")
    for name, rival in (result.get("as_accurate") or {}).items():
        if rival is not None:
            lines.append(
                f"- The quickest network trained without exits that `{name}` is not shown to beat in accuracy is "
                f"`{rival['name']}`; it takes {rival['speedup']:.2f} times as long."
            )
    return "\n".join(lines).rstrip() + "\n"


def time(result: Result) -> str:
    """Measured time at batch 1 and 32."""
    if "latency" not in result:
        return ""
    configuration = result["configuration"]
    entries = [(name.replace("_", " "), entry) for name, entry in result["latency"].items()]
    entries += [(f"baseline {one['name']}", one["latency"]) for one in result["baselines"]]
    rows = []
    for name, entry in entries:
        many = entry["batch32"]
        rows.append(
            [
                name,
                *(f"{entry[key]:.1f}" for key in ("mean_us", "p50_us", "p95_us", "p99_us")),
                f"{entry['speedup']:.2f}",
                *([f"{many['mean_us']:.1f}", f"{many['speedup']:.2f}"] if many else ["-", "-"]),
                f"{entry['first_us']:,.0f}",
            ]
        )
    columns = ["", "mean us", "p50", "p95", "p99", "times faster than without exits"]
    return "\n".join(
        [
            "## Time per row\n",
            f"Over {entries[0][1]['rows']:,} rows one at a time, then in batches of 32, on one thread of "
            f"{configuration['runtime']} ({configuration['precision']}), computing only; take the ratios, not the "
            "absolute times. *First*: the first request after loading.\n",
            *_table([*columns, "batch 32: mean us", "times faster", "first us"], rows),
            "",
        ]
    )


def bytes_forwarded(result: Result) -> str:
    """What crosses the cuts, beside the compressed input."""
    rows = [
        [
            str(entry["cut"]),
            f"{100 * entry['share']:.2f}",
            entry["forward"],
            *("-" if entry[key] is None else f"{entry[key]:,.0f}" for key in _SIZES),
        ]
        for entry in result["forwarded_bytes"]
        if entry["rows"]
    ]
    if not rows:
        return ""
    columns = ["cut", "forwarded %", "travels", "coded", "as float32", "the input itself", "zlib", "PNG"]
    return "\n".join(
        [
            "## Bytes per forwarded row\n",
            "Payload of the rows that operating point `default` forwards, coded one by one, without framing.\n",
            *_table(columns, rows),
            "",
        ]
    )


_SIZES = ("coded", "uncoded", "input", "input_zlib", "input_png")
_WHAT = {
    "float32": "this network without early exits",
    "int8": "the same in 8-bit integers",
    "backbone": "the same backbone, trained without exits",
    "static": "trained without exits",
}


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cells) + " |" if cells != lines[1] else "|" + "|".join(cells) + "|" for cells in lines]


def _share(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['accuracy']:.2f} ({_ends(entry['accuracy_interval'])})"


def _ends(interval: Sequence[float]) -> str:
    return " to ".join(f"{100 * end:.2f}" for end in interval)


def _of(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['share']:.2f} % ({_ends(entry['interval'])})"


def _auroc(entry: Mapping[str, Any] | None) -> str:
    return "-" if entry is None else f"{entry['auroc']:.3f} ({' to '.join(f'{end:.3f}' for end in entry['interval'])})"
