"""Chains of tiers without sockets, and upstreams that misbehave on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import count

import numpy as np

from common.bundle import Bundle
from common.errors import RequestError
from common.limits import Limits
from common.serving.job import Job
from common.serving.metrics import Metrics
from common.serving.stages import load_stages
from common.serving.tier import Tier
from common.serving.upstream import Call, Deliver, Upstream
from common.types import NEVER, Answer, Deadline, Request, Rows

_ids = count()


class Direct:
    """The tier above, called in process."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.jobs: dict[Call, Job] = {}

    def forward(self, call: Call) -> None:
        try:
            self.jobs[call] = self.tier.submit(call.request, call.answered, call.ended)
        except RequestError as error:
            call.ended(error)

    def withdraw(self, call: Call) -> None:
        if (job := self.jobs.pop(call, None)) is not None:  # else it was answered before `submit` returned
            job.withdraw()

    def in_vain(self, left_s: float) -> bool:
        return False


class Scripted:
    """An upstream that does what a test says: answers, returns an error to end with, or a coroutine to wait for."""

    def __init__(self, act: Callable[[Request, Deliver], object]) -> None:
        self.act = act
        self.seen: list[Request] = []
        self.tasks: dict[Call, asyncio.Task[None]] = {}

    def forward(self, call: Call) -> None:
        self.seen.append(call.request)
        result = self.act(call.request, call.answered)
        if asyncio.iscoroutine(result):
            self.tasks[call] = asyncio.get_running_loop().create_task(self._wait(call, result))
        else:
            call.ended(result if isinstance(result, RequestError) else None)

    async def _wait(self, call: Call, coroutine: Coroutine[object, object, object]) -> None:
        try:
            await coroutine
        except RequestError as error:
            call.ended(error)
        else:
            call.ended(None)

    def withdraw(self, call: Call) -> None:
        self.tasks.pop(call).cancel()

    def in_vain(self, left_s: float) -> bool:
        return False


def make_tier(
    bundle: Bundle,
    start: int,
    stop: int,
    *,
    name: str = "device",
    upstream: Upstream | None = None,
    timeout_s: float = 5.0,
    limits: Limits | None = None,
) -> Tier:
    runners = load_stages(bundle, start=start, stop=stop, runtime="onnxruntime", threads=1)
    return Tier(
        name=name,
        bundle=bundle,
        runners=runners,
        stop=stop,
        metrics=Metrics(name),
        upstream=upstream,
        upstream_timeout_s=timeout_s,
        limits=limits,
    )


def make_chain(bundle: Bundle, stops: Sequence[int]) -> list[Tier]:
    """Tiers from the entry up; `stops[k]` is the first stage that tier k does not run."""
    tiers: list[Tier] = []
    above: Tier | None = None
    for k in reversed(range(len(stops))):
        start = stops[k - 1] if k else 0
        above = make_tier(bundle, start, stops[k], name=f"tier{k}", upstream=None if above is None else Direct(above))
        tiers.insert(0, above)
    return tiers


def make_request(
    bundle: Bundle,
    x_BD: np.ndarray,
    *,
    point: str = "default",
    timeout_s: float | None = None,
    forward: bool = True,
    ids: Sequence[int] | None = None,
    **more: object,
) -> Request:
    return Request(
        request_id=f"r{next(_ids)}",
        rows=Rows(ids=tuple(ids or range(len(x_BD))), tensors={"x": x_BD}),
        bundle=bundle.digest,
        operating_point=point,
        deadline=NEVER if timeout_s is None else Deadline.after(timeout_s),
        forward=forward,
        **more,  # type: ignore[arg-type]
    )


async def ask(tier: Tier, request: Request) -> list[Answer]:
    """All answers in the caller's order; every row exactly once."""
    answers: list[Answer] = []
    await tier.answer(request, answers.extend)
    assert sorted(a.row for a in answers) == sorted(request.rows.ids)
    order = {row: at for at, row in enumerate(request.rows.ids)}
    return sorted(answers, key=lambda a: order[a.row])


def inputs(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (rows, 6)).astype(np.float32)
