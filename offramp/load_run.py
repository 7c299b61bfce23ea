"""Open-loop load: requests leave at their own times, whether or not earlier ones have been answered.

Arrivals form a Poisson process, as those of many independent callers do. A latency counts from the moment a
request was due, so that a stalled server cannot hide by delaying what it would have been asked (the
"coordinated omission" of closed loops, a term of Gil Tene's).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from common.errors import OfframpError
from offramp.http_client import ClientError, HttpClient, Reply
from offramp.load_inputs import LoadInput
from offramp.precise_timer import PreciseTimer


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, how often, for how long."""

    url: str
    query: str = ""  # options of every request, such as "?operating_point=full"
    rate: float  # requests per second, on average
    seconds: float
    seed: int = 0
    max_in_flight: int = 256  # beyond it a request is not sent, and counted
    give_up_s: float = 10.0  # longest wait for one reply
    connections: int = 1  # opened before the clock runs; more follow where more requests are in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answered request."""

    due_s: float  # after the start
    latency_s: float  # since it was due
    entry: str  # the tier that was asked
    tier: str  # the tier that decided
    exit: int
    degraded: str | None
    right: bool | None  # None: the right answer is not known


@dataclass(slots=True)
class Outcome:
    """Everything that happened."""

    samples: list[Sample] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    not_sent: int = 0
    lateness_s: float = 0.0  # of the latest sent request: how far this program fell behind its schedule
    elapsed_s: float = 0.0  # from the first due request to the last reply


def arrivals(plan: Plan) -> Iterator[float]:
    """Seconds after the start at which each request is due."""
    chance = random.Random(plan.seed)
    moment = chance.expovariate(plan.rate)
    while moment < plan.seconds:
        yield moment
        moment += chance.expovariate(plan.rate)


async def run_load(plan: Plan, inputs: Sequence[LoadInput]) -> Outcome:
    """Send the plan's load and return what happened.

    Raises:
        OfframpError: when not even a first request, which is not counted, gets a reply.
    """
    client = HttpClient(plan.url, "/predict" + plan.query)
    try:
        await _first(client, plan, inputs[0])
        return await _run(client, plan, inputs)
    finally:
        client.close()


async def _first(client: HttpClient, plan: Plan, given: LoadInput) -> None:
    """The connections, and one request, before the clock runs: it tells a wrong address or body at once."""
    try:
        async with asyncio.timeout(plan.give_up_s):
            await client.open(plan.connections)
            reply = await client.send(client.request(given.body.content_type, given.body.data))
    except (ClientError, TimeoutError) as error:
        reason = str(error) or f"nothing within {plan.give_up_s:g} s"
        raise OfframpError(f"{plan.url} gave no answer: {reason}.") from None
    if reply.status in (429, 503, 504):  # busy, and to be measured so
        return
    if reply.status != 200 or _answer(reply) is None:
        raise OfframpError(f"{plan.url} answered with {_kind(reply)}: {_message(reply)}")


async def _run(client: HttpClient, plan: Plan, inputs: Sequence[LoadInput]) -> Outcome:
    requests = [client.request(given.body.content_type, given.body.data) for given in inputs]
    order = random.Random(plan.seed + 1)
    outcome = Outcome()
    tasks: set[asyncio.Task[None]] = set()
    timer = PreciseTimer()
    start = time.monotonic()
    try:
        for due in arrivals(plan):
            await timer.until(start + due)
            if len(tasks) >= plan.max_in_flight:
                outcome.not_sent += 1
                continue
            chosen = order.randrange(len(inputs))
            outcome.sent += 1
            outcome.lateness_s = max(outcome.lateness_s, time.monotonic() - start - due)
            task = asyncio.create_task(_one(client, plan, requests[chosen], inputs[chosen], start, due, outcome))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.gather(*tasks)
    finally:
        timer.close()
        for task in tasks:
            task.cancel()
    outcome.elapsed_s = max(time.monotonic() - start, plan.seconds)
    return outcome


async def _one(
    client: HttpClient, plan: Plan, request: bytes, given: LoadInput, start: float, due: float, outcome: Outcome
) -> None:
    try:
        async with asyncio.timeout(plan.give_up_s):
            reply = await client.send(request)
    except TimeoutError:
        outcome.errors[f"no reply within {plan.give_up_s:g} s"] += 1
        return
    except ClientError as error:
        outcome.errors[error.kind] += 1
        return
    latency_s = time.monotonic() - start - due
    answer = _answer(reply)
    if reply.status != 200 or answer is None:
        outcome.errors[_kind(reply)] += 1
        return
    outcome.samples.append(
        Sample(
            due_s=due,
            latency_s=latency_s,
            entry=answer["hops"][0]["tier"] if answer.get("hops") else answer["tier"],
            tier=answer["tier"],
            exit=answer["exit"],
            degraded=answer["degraded"],
            right=None if given.label is None else answer["label"] == given.label,
        )
    )


def _answer(reply: Reply) -> dict[str, Any] | None:
    """The one answer of a reply, or None when it is not as the contract says."""
    try:
        answer = orjson.loads(reply.body)["answers"][0]
        if {"label", "tier", "exit", "degraded"} <= set(answer):
            return dict(answer)
    except (ValueError, KeyError, IndexError, TypeError):
        pass
    return None


def _kind(reply: Reply) -> str:
    try:
        return f"HTTP {reply.status} {orjson.loads(reply.body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {reply.status}" if reply.status != 200 else "a reply that is none of offramp's"


def _message(reply: Reply) -> str:
    try:
        return str(orjson.loads(reply.body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "is this the REST door of a tier?"
