"""One tier: stages, exits, an optional upstream, and what to do when upstream fails.

Device, edge and cloud are this class with different arguments. Doors call `answer`; so may tests, without a
socket. A tier keeps nothing between requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from common.bundle import Bundle
from common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Malformed,
    Overloaded,
    RequestError,
    TooLarge,
    Unavailable,
    Unprocessable,
)
from common.limits import Limits
from common.rule import Rule
from common.runtimes import StageRunner
from common.serving.batcher import Batcher
from common.serving.chunk import Chunk, Outcome
from common.serving.exits import Exits
from common.serving.forwarder import Forwarder
from common.serving.job import Job
from common.serving.metrics import Metrics
from common.serving.state import admit_state
from common.serving.upstream import Deliver, Ended, Upstream, degraded_reason
from common.types import Answer, Degraded, Purpose, Request, Tensors

log = logging.getLogger(__name__)

_ANSWER = Purpose.ANSWER  # each look-up of an enum's member takes longer than what is asked of it


class Tier:
    """Serves requests for a contiguous range of stages.

    Args:
        name: "device", "edge", ...
        bundle: the network.
        runners: the stages that this tier holds.
        stop: the first stage that it does not run; rows that reach it are forwarded.
        operating_point: what a request gets that names none.
        limits: bounds on rows.
        metrics: counters of this tier.
        upstream: who answers the rest; None on the last tier.
        upstream_timeout_s: the longest wait for it.
    """

    def __init__(
        self,
        *,
        name: str,
        bundle: Bundle,
        runners: Mapping[int, StageRunner],
        stop: int,
        metrics: Metrics,
        operating_point: str = "default",
        limits: Limits | None = None,
        upstream: Upstream | None = None,
        upstream_timeout_s: float = 1.0,
    ) -> None:
        self.name = name
        self.bundle = bundle
        self.runners = runners
        self.stop = stop
        self.operating_point = operating_point
        self.limits = limits or Limits()
        self.metrics = metrics
        self.ready = False
        self.in_flight = 0  # requests
        self._manifest = bundle.manifest
        self._exits = Exits(bundle.manifest)
        self._forwards_input = stop - 1 in self._manifest.input_cuts
        self._rules = {
            name: Rule.of(bundle.manifest, point) for name, point in bundle.manifest.operating_points.items()
        }
        self._symbolic = any(spec.symbols for spec in self._manifest.tensors.values())
        self.batcher = Batcher(
            runners,
            run_rows=self.limits.run_rows,
            finish=self._finish,
            expire=self._expire,
            metrics=metrics,
        )
        self.forwarder = Forwarder(
            tier=name,
            upstream=upstream,
            timeout_s=upstream_timeout_s,
            operating_point=operating_point,
            classes=len(self._manifest.classes),
            exits=len(self._manifest.exits),
            max_rows=self.limits.queue_rows,
            exits_passed=sum(leave.stage < stop for leave in self._manifest.exits),
            received=self._received,
            give_up=self._give_up,
        )

    def submit(self, request: Request, deliver: Deliver, ended: Ended) -> Job:
        """Begin to answer a request that a door has admitted.

        Args:
            request: rows with the tensors that are live at `start_stage`, checked by admission.
            deliver: called one or more times with answers; every row id comes exactly once.
            ended: called once when nothing more will come, perhaps before this method returns; with the error
                that left rows without an answer. Not called after `withdraw`.

        Returns:
            The job; `withdraw` it when nobody waits any more.

        Raises:
            RequestError: when the request is refused at once.
        """
        job = self._admit(request, deliver, ended)
        state: Tensors = {}
        if job.rule.keeps_state:
            state = admit_state(self._manifest, job.rule, request.start_stage, len(request.rows), request.rows.state)
        self.in_flight += 1
        rows = request.rows
        whole = Chunk(job=job, ids=rows.ids, tensors=rows.tensors, state=state)
        if self._forwards_input and request.start_stage == 0:
            whole.inputs = rows.tensors
        whole.key = self._key(job, whole)
        for chunk in whole.parts(self.limits.run_rows):
            self._advance(request.start_stage, chunk)
        return job

    async def answer(self, request: Request, deliver: Deliver) -> None:
        """Answer every row of a request; as `submit`, for callers that wait. Cancelling it withdraws the request.

        Raises:
            RequestError: for the rows that no exit could answer.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(error: RequestError | None) -> None:
            if not done.done():
                done.set_result(None)

        job = self.submit(request, deliver, ended)
        try:
            await done
        finally:
            job.withdraw()
        if job.error is not None:
            raise job.error

    def refused(self, code: str) -> None:
        """Count a request that a door turned away."""
        self.metrics.refused(code)

    async def close(self) -> None:
        """Stop what is still under way."""
        self.forwarder.close()
        self.batcher.close()

    # ------------------------------------------------------------------ the way in

    def _admit(self, request: Request, deliver: Deliver, ended: Ended) -> Job:
        if request.bundle != self.bundle.digest:
            raise FailedPrecondition(
                f"This tier serves bundle {self.bundle.digest}. The request names {request.bundle[:80]!r}.",
                "unknown_bundle",
            )
        stages = len(self._manifest.stages)
        if request.start_stage >= stages:
            raise Malformed(
                f"start_stage is {request.start_stage}. The bundle's last stage is {stages - 1}.", "bad_stage"
            )
        if request.start_stage < self.stop:
            self._require_stages(request.start_stage)
        point = self._manifest.operating_points.get(request.operating_point or self.operating_point)
        if point is None:
            known = ", ".join(sorted(self._manifest.operating_points))
            raise Unprocessable(
                f"operating_point is {request.operating_point[:80]!r}. It must be one of {known}.",
                "unknown_operating_point",
            )
        thresholds = request.thresholds or point.thresholds
        if len(thresholds) != len(self._manifest.exits):
            raise Malformed(
                f"thresholds has {len(thresholds)} entries. There must be one for each of the "
                f"{len(self._manifest.exits)} exits.",
                "bad_thresholds",
            )
        self._check_room(request)
        return Job(
            request,
            tier=self.name,
            rule=self._rules[point.name],
            thresholds=thresholds,
            deliver=deliver,
            ended=ended,
            over=self._over,
        )

    def _over(self, job: Job) -> None:
        self.in_flight -= 1
        if job.request.purpose is _ANSWER:
            self.metrics.request_seconds.observe(time.monotonic() - job.received)

    def _require_stages(self, start: int) -> None:
        for stage in range(start, self.stop):
            if stage not in self.runners:
                raise FailedPrecondition(f"This tier does not hold stage {stage}.", "missing_stage")

    def _check_room(self, request: Request) -> None:
        """What is not for a caller may fill only half of the queue, so it is shed first."""
        most, rows = self.limits.queue_rows, len(request.rows.ids)
        room = most if request.purpose is _ANSWER else most // 2
        if self.batcher.rows + rows <= room:
            return
        if rows > most:  # trying again would not help
            raise TooLarge(f"The request has {rows} rows. At most {most} may wait on this tier.", "batch_too_large")
        self.batcher.make_room()
        if self.batcher.rows + rows > room:
            raise Overloaded(f"{self.batcher.rows} rows are waiting. This tier queues at most {room}: retry later.")

    def _key(self, job: Job, chunk: Chunk) -> tuple[object, ...]:
        """Equal keys at one stage may share a batch: same rule and, where sizes vary, same row shapes."""
        if not self._symbolic:
            return job.rule.key
        return (*job.rule.key, *sorted((name, tensor.shape[1:]) for name, tensor in chunk.tensors.items()))

    def _advance(self, stage: int, chunk: Chunk) -> None:
        if stage < self.stop:
            self.batcher.submit(stage, chunk)
        elif chunk.job.request.forward:
            self.forwarder.submit(stage, chunk)
        elif chunk.best is not None:
            self._answer_best(chunk)
        else:
            chunk.job.fail(len(chunk), Unavailable("No exit lies on this tier, and the rows may not be forwarded."))

    # ------------------------------------------------------------------ after a run

    def _finish(self, stage: int, chunks: list[Chunk], tensors: Tensors, outputs: Tensors) -> None:
        """Answer the rows that the stage's exit accepts; send only the others on."""
        exit = self._manifest.stages[stage].exit
        verdict = None if exit is None else self._exits.judge(exit, chunks, outputs)
        no_more = verdict is not None and all(verdict.accepted)
        going: list[Chunk] = []
        decided: list[Chunk] = []  # of callers whose other rows go on
        rows: list[int] = []  # those of the run that go on
        at = 0
        for chunk in chunks:
            begin, at = at, at + len(chunk.ids)
            if chunk.job.over:
                continue
            left: Sequence[int] = range(begin, at)
            if verdict is not None:
                part = slice(begin, at)
                accepted = verdict.accepted[part]
                if no_more or all(accepted):
                    self._answer(chunk, verdict.outcome, begin)
                    continue
                chunk.tensors = {}
                chunk.best = verdict.outcome.part(part, probabilities=chunk.job.request.want_probabilities)
                chunk.state = {name: value[part] for name, value in verdict.state.items()}
                if any(accepted):
                    left = [row for row, yes in zip(left, accepted, strict=True) if not yes]
                    decided.append(chunk.take([i for i, yes in enumerate(accepted) if yes]))
                    chunk = chunk.take([row - begin for row in left])
            going.append(chunk)
            rows += left
        if going:
            self._go_on(stage + 1, going, self._live(stage + 1, tensors, outputs), None if len(rows) == at else rows)
        for chunk in decided:
            self._answer_best(chunk)

    def _go_on(self, stage: int, chunks: list[Chunk], live: Tensors, rows: list[int] | None) -> None:
        """Send chunks to their next stage with their share of the given rows of a run; None: of all its rows.

        Rows are gathered for all chunks at once, so that they lie side by side and need not be copied again when the
        chunks meet in the next run.
        """
        if rows is not None:
            live = {name: tensor[rows] for name, tensor in live.items()}
        at = 0
        for chunk in chunks:
            part = slice(at, at + len(chunk.ids))
            at = part.stop
            chunk.tensors = {name: tensor[part] for name, tensor in live.items()}
            self._advance(stage, chunk)

    def _live(self, stage: int, before: Tensors, written: Tensors) -> Tensors:
        """The tensors that must be there before `stage`: written just now, or passing through."""
        return {name: written[name] if name in written else before[name] for name in self._manifest.live(stage)}

    def _answer(self, chunk: Chunk, outcome: Outcome, at: int, degraded: Degraded | None = None) -> None:
        """Answer a chunk from an exit computed here; its rows stand in the outcome from `at` on."""
        if (row := outcome.undecided(at, at + len(chunk.ids))) is not None:
            message = f"Row {chunk.ids[row - at]} leads to numbers that are not finite at exit {outcome.exit}."
            chunk.job.abort(Malformed(f"{message} Its numbers must be such as the network was made for.", "not_finite"))
            return
        chunk.job.answer(chunk, outcome, at, degraded)
        if chunk.job.request.purpose is _ANSWER:
            self.metrics.answered(self.name, outcome.exit, degraded, len(chunk.ids))
        else:
            self.metrics.audit.inc(len(chunk.ids))

    def _answer_best(self, chunk: Chunk, degraded: Degraded | None = None) -> None:
        """Answer a chunk from the deepest exit computed here."""
        assert chunk.best is not None
        self._answer(chunk, chunk.best, 0, degraded)

    def _expire(self, chunk: Chunk) -> None:
        self._give_up(chunk, DeadlineExceeded("The time ran out while the request waited for a free runtime."))

    def _give_up(self, chunk: Chunk, error: RequestError) -> None:
        """The rows get no later exit: answer from the deepest one computed, or report why there is none."""
        if chunk.job.over or not chunk.ids:
            return
        if chunk.best is None:
            chunk.job.fail(len(chunk), error)
        else:
            self._answer_best(chunk, degraded_reason(error))

    def _received(self, chunk: Chunk, answers: list[Answer]) -> None:
        """Upstream's answers go to the caller."""
        if chunk.job.request.purpose is _ANSWER:
            for answer in answers:
                self.metrics.answered(answer.tier, answer.exit, answer.degraded, 1)
        else:
            self.metrics.audit.inc(len(answers))
        chunk.job.deliver_some(answers)
