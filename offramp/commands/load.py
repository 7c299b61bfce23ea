"""`offramp load`: open-loop load with real inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import ConfigError, OfframpError
from offramp.commands.options import DEFAULT_URL, Json, OperatingPoint, TimeoutMs, Url, Version, query_of


def load(
    url: Url = DEFAULT_URL,
    rate: Annotated[float, typer.Option(min=0.001, max=1e6, help="Requests per second, on average.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=0.001, max=86400, help="How long requests are sent.")] = 10.0,
    inputs: Annotated[
        Path, typer.Option(metavar="DIR", help="Images or .npy files; <index>-<label>.png gives the right answer.")
    ] = Path("examples/mnist"),
    body: Annotated[str, typer.Option(metavar="json|png|npy", help="How an input is sent.")] = "json",
    operating_point: OperatingPoint = None,
    timeout_ms: TimeoutMs = None,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Beyond it a request is not sent, and counted.")] = 256,
    give_up: Annotated[float, typer.Option(min=0.01, metavar="SECONDS", help="Longest wait for one reply.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of arrival times and the choice of inputs.")] = 0,
    json: Json = False,
    version: Version = False,
) -> None:
    """Send requests at a rate of their own, whether or not earlier ones are answered, and measure.

    Arrivals are random (Poisson). A latency counts from the moment its request was due.
    """
    import uvloop

    from offramp.load_inputs import KINDS, load_inputs
    from offramp.load_report import report
    from offramp.load_run import Plan, run_load

    if body not in KINDS:
        raise ConfigError(f"--body is {body!r}. It must be one of {', '.join(KINDS)}.")
    given = load_inputs(inputs, body)
    plan = Plan(
        url=url,
        query=query_of(operating_point, timeout_ms),
        rate=rate,
        seconds=seconds,
        seed=seed,
        max_in_flight=max_in_flight,
        give_up_s=give_up,
    )
    document = report(plan, uvloop.run(run_load(plan, given)))
    if json:
        from json import dumps

        typer.echo(dumps(document, indent=1))
    else:
        _show(document)
    if document["completed"] == 0:
        raise OfframpError(f"{url} answered none of {document['sent']} requests.")


def _show(document: dict[str, Any]) -> None:
    from offramp.commands.tables import print_tables

    columns = ["count", "mean", "p50", "p90", "p95", "p99", "max"]
    latencies = [
        [group, str(values["count"]), *(f"{values[column]:.2f}" for column in columns[1:])]
        for group, values in document["latency_ms"].items()
        if values is not None
    ]
    counts = [
        ["sent", str(document["sent"])],
        ["not sent: too many in flight", str(document["not_sent"])],
        ["completed", str(document["completed"])],
        ["completed per second", f"{document['achieved_rate']:.1f}"],
        *(["error: " + kind, str(count)] for kind, count in document["errors"].items()),
        *([f"exit {exit}", str(count)] for exit, count in document["exits"].items()),
        *([f"answered by {tier}", str(count)] for tier, count in document["tiers"].items()),
        *([f"degraded: {reason}", str(count)] for reason, count in document["degraded"].items()),
    ]
    if document["accuracy"] is not None:
        counts.append(["accuracy", f"{document['accuracy']:.2%}"])
    print_tables(
        f"{document['url']}: {document['rate']:g} requests/s for {document['seconds']:g} s",
        [("Requests", ["what", "count"], counts), ("Latency in ms", ["answers", *columns], latencies)],
    )
