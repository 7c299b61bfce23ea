"""What an exit says about a run: labels, calibrated confidences, and which rows it may answer.

A batch is decided in numpy; few rows of few classes in plain Python, which takes a fifth of the time for one row and
as long for five rows of ten classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.criteria import softmax_row
from common.manifest import Manifest
from common.serving.chunk import Chunk, Outcome
from common.types import Array, Tensors

_FEW = 64  # probabilities; up to here plain Python is the quicker one


@dataclass(slots=True)
class Verdict:
    """An exit's word on the joined rows of several chunks."""

    outcome: Outcome
    accepted: Sequence[bool]  # [B]
    state: Tensors  # for the next exit


class Exits:
    """The exits of a bundle."""

    def __init__(self, manifest: Manifest) -> None:
        self._exits = manifest.exits
        self._last = len(manifest.exits) - 1

    def judge(self, exit: int, chunks: list[Chunk], outputs: Tensors) -> Verdict:
        """Decide about the rows of a run.

        Args:
            exit: which one.
            chunks: whose rows were joined, in order; their rules decide alike.
            outputs: what the stage wrote, the exit's logits [B, C] among it.
        """
        leave = self._exits[exit]
        logits_BC = outputs[leave.logits]
        rule = chunks[0].job.rule
        if rule.by_row and logits_BC.size <= _FEW:
            return self._judge_few(exit, chunks, logits_BC)
        gate_B = None if leave.gate is None else outputs[leave.gate].reshape(-1)
        state = {name: np.concatenate([chunk.state[name] for chunk in chunks]) for name in chunks[0].state}
        thresholds_B = np.array([chunk.job.thresholds[exit] for chunk in chunks])
        if len(thresholds_B) < len(logits_BC):
            thresholds_B = np.repeat(thresholds_B, [len(chunk.ids) for chunk in chunks])
        said, accepted_B, state = rule.decide(exit, logits_BC, gate_B, state, thresholds_B)
        outcome = Outcome(
            exit=exit,
            labels=said.labels_B.tolist(),
            confidences=said.probs_BC.max(axis=1).tolist(),
            probs_BC=said.probs_BC,
        )
        return Verdict(outcome, accepted_B.tolist(), state)

    def _judge_few(self, exit: int, chunks: list[Chunk], logits_BC: Array) -> Verdict:
        temperature, last = self._exits[exit].temperature, exit == self._last
        accepts = chunks[0].job.rule.criterion.accepts
        rows = iter(logits_BC.tolist())
        labels: list[int] = []
        confidences: list[float] = []
        accepted: list[bool] = []
        every: list[list[float]] = []
        wanted = False
        for chunk in chunks:
            wanted = wanted or chunk.job.request.want_probabilities
            threshold = chunk.job.thresholds[exit]
            for _ in chunk.ids:
                label, probs = softmax_row(next(rows), temperature)
                labels.append(label)
                confidences.append(probs[label])
                accepted.append(last or accepts(probs, threshold))
                every.append(probs)
        probs_BC = np.array(every, np.float32) if wanted else None
        return Verdict(Outcome(exit=exit, labels=labels, confidences=confidences, probs_BC=probs_BC), accepted, {})
