"""`offramp predict`: ask a running system."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import ConfigError, OfframpError
from offramp.commands.options import DEFAULT_URL, Json, OperatingPoint, TimeoutMs, Url, Version, query_of

if TYPE_CHECKING:
    import httpx

Result = dict[str, Any]  # one answer, with the file it belongs to and the time its request took


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Images (.png, .jpg), .npy or .json.")],
    url: Url = DEFAULT_URL,
    operating_point: OperatingPoint = None,
    timeout_ms: TimeoutMs = None,
    timeout: Annotated[float, typer.Option(min=0.01, metavar="SECONDS", help="Longest wait for an answer.")] = 30.0,
    json: Json = False,
    version: Version = False,
) -> None:
    """Ask a running system about files: who answered, what, and how sure.

    A .json file holds a whole request ({"inputs": [...]}) or one input as a bare array.
    """
    import httpx

    from offramp.bodies import read_body

    bodies = [(path, read_body(path)) for path in files]
    query = query_of(operating_point, timeout_ms)
    results: list[Result] = []
    try:
        with httpx.Client(base_url=url, timeout=timeout, trust_env=False) as client:
            for path, body in bodies:
                start = time.perf_counter()
                reply = client.post("/predict" + query, content=body.data, headers={"Content-Type": body.content_type})
                elapsed_ms = (time.perf_counter() - start) * 1e3
                results += _answers(path, reply, elapsed_ms)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigError(f"--url is {url!r}, which is not an HTTP address: {error}.") from None
    except httpx.HTTPError as error:
        raise OfframpError(f"{url} gave no answer: {error or type(error).__name__}.") from None
    _show(results, json)


def _answers(path: Path, reply: httpx.Response, elapsed_ms: float) -> list[Result]:
    try:
        document = reply.json()
        if reply.status_code != 200:
            raise OfframpError(
                f"{path} was refused with HTTP status {reply.status_code}: {document['error']['message']}"
            )
        answers = document["answers"]
        return [
            {"file": str(path), "input": number, **answer, "ms": round(elapsed_ms, 3)}
            for number, answer in enumerate(answers)
        ]
    except (ValueError, KeyError, TypeError):
        raise OfframpError(
            f"{reply.url} answered with HTTP status {reply.status_code} and a body that is none of offramp's."
        ) from None


def _show(results: list[Result], json: bool) -> None:
    if json:
        from json import dumps

        typer.echo(dumps({"answers": results}, indent=1))
        return
    from offramp.commands.tables import print_tables

    several = {result["file"] for result in results if result["input"] > 0}
    rows = [
        [
            f"{result['file']}[{result['input']}]" if result["file"] in several else result["file"],
            str(result.get("name", result["label"])),
            f"{result['confidence']:.4f}",
            str(result["exit"]),
            result["tier"],
            result["degraded"] or "-",
            f"{result['ms']:.1f}",
        ]
        for result in results
    ]
    print_tables("", [("", ["file", "label", "confidence", "exit", "tier", "degraded", "ms"], rows)])
