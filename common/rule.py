"""How an operating point decides: its criterion, whether exits answer together, and its fitted gates.

What an exit writes becomes what it says here, for a tier and for calibration alike. State goes from exit to exit
and over the wire as named tensors with one entry per row:

- `exits:log_probs` [k, C] float32: what the k exits before said, where exits answer together;
- `exits:label` int32: what the exit before answered, for patience and for fitted gates;
- `exits:agreed` int32: how many exits in a row have answered that, for patience.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.criteria import CRITERIA, Criterion, Outputs, log_softmax
from common.criteria.criterion import AGREED, LABEL
from common.criteria.entropy import normalised_entropy
from common.criteria.margin import gap
from common.criteria.probabilities import LOWEST, softmax
from common.manifest import Combination, Exit, FittedGate, Manifest, OperatingPoint
from common.types import Array, Tensors

LOG_PROBS = "exits:log_probs"
_LEAST = 1e-6  # of 1 - p, when odds are taken


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Type, row shape and range of a named state."""

    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float


class Rule:
    """What decides at one operating point.

    Args:
        criterion: compares scores with thresholds.
        exits: of the bundle, with temperatures and combinations.
        classes: how many the bundle has.
        combine: one of `common.manifest.COMBINE`.
        gates: see `OperatingPoint.gates`.
    """

    def __init__(
        self,
        criterion: Criterion,
        exits: Sequence[Exit],
        classes: int,
        *,
        combine: str = "none",
        gates: Sequence[FittedGate | None] = (),
    ) -> None:
        self.criterion = criterion
        self.combine = combine
        self.gates = tuple(gates)
        self.by_row = criterion.by_row and combine == "none"  # see `Criterion.by_row`
        self.key = (criterion.name, combine, self.gates)  # rules of equal keys decide alike
        self.exits = len(exits)
        self._exits = tuple(exits)
        self._gates = self.gates or (None,) * len(self._exits)
        self._combined = tuple(self._combination(number, combine) for number in range(len(self._exits)))
        self._state = tuple(self._needed(number, classes) for number in range(len(self._exits)))
        self.keeps_state = any(self._state)

    @classmethod
    def of(cls, manifest: Manifest, point: OperatingPoint) -> Rule:
        """The rule of one of a bundle's operating points."""
        return cls(
            CRITERIA[point.criterion],
            manifest.exits,
            len(manifest.classes),
            combine=point.combine,
            gates=point.gates,
        )

    def state_before(self, exit: int) -> dict[str, StateSpec]:
        """What `exit` must be told of the exits before it, by name."""
        return self._state[exit]

    def says(self, exit: int, logits_BC: Array, gate_B: Array | None, state: Tensors) -> tuple[Outputs, Tensors]:
        """What an exit says: calibrated, combined with the exits before, and with its gate's logit.

        Args:
            exit: which one.
            logits_BC: as its stage writes them.
            gate_B: as its stage writes it, if it does.
            state: what the exit before left, `state_before(exit)`.

        Returns:
            Its outputs, and the state that later exits need of them; the criterion's own is not among it.
        """
        left: Tensors = {}
        said = Outputs.of(logits_BC, self._exits[exit].temperature, gate_B)
        combined, gate, kept = self._combined[exit], self._gates[exit], self._after(exit)
        if combined is not None or LOG_PROBS in kept:
            left[LOG_PROBS] = passed_BKC = self._passed(exit, logits_BC, state)
            if combined is not None:
                said = replace(said, **_answer(together(passed_BKC, combined)))
        if gate is not None:
            said = replace(said, gate_B=gate_logit(gate, said, state.get(LABEL)))
        if LABEL in kept:
            left[LABEL] = said.labels_B.astype(np.int32)
        return said, {name: left[name] for name in left if name in kept}

    def decide(
        self, exit: int, logits_BC: Array, gate_B: Array | None, state: Tensors, thresholds_B: Array
    ) -> tuple[Outputs, Array, Tensors]:
        """What an exit says, which rows it accepts ([B] bool; the last exit all), and the state for the next exit."""
        said, left = self.says(exit, logits_BC, gate_B, state)
        if exit == self.exits - 1:
            return said, np.ones(len(logits_BC), bool), {}
        accepted_B, own = self.criterion.decide(said, state, thresholds_B)
        kept = self._after(exit)
        return said, accepted_B, left | {name: own[name] for name in self.criterion.state if name in kept}

    def _passed(self, exit: int, logits_BC: Array, state: Tensors) -> Array:
        """Log-probabilities of the exits before and of this one, [B, exit + 1, C]."""
        own_BKC = log_softmax(logits_BC, self._exits[exit].temperature)[:, None]
        return own_BKC if exit == 0 else np.concatenate([state[LOG_PROBS], own_BKC], axis=1)

    def _combination(self, number: int, combine: str) -> Combination | None:
        own = combine == "none" or (combine == "early" and number == len(self._exits) - 1)
        return None if own else self._exits[number].combine

    def _needed(self, number: int, classes: int) -> dict[str, StateSpec]:
        """Nothing before the first exit; before the last only what its answer is made of."""
        if number == 0:
            return {}
        last = number == len(self._exits) - 1
        needed: dict[str, StateSpec] = {}
        if any(self._combined[number:]):
            needed[LOG_PROBS] = StateSpec("float32", (number, classes), float(LOWEST), 0.0)
        if not last:
            bounds = {LABEL: (0.0, classes - 1.0), AGREED: (1.0, float(number))}
            wanted = dict(self.criterion.state)
            if any(gate is not None and gate.agreement for gate in self._gates[number:]):
                wanted[LABEL] = "int32"
            needed |= {name: StateSpec(dtype, (), *bounds[name]) for name, dtype in wanted.items()}
        return needed

    def _after(self, exit: int) -> dict[str, StateSpec]:
        return self._state[exit + 1] if exit + 1 < len(self._state) else {}


def _answer(probs_BC: Array) -> dict[str, Array]:
    return {"probs_BC": probs_BC, "labels_B": probs_BC.argmax(axis=1)}


def together(log_probs_BKC: Array, how: Combination) -> Array:
    """Class probabilities of several exits together, [B, C] float32: a weighted geometric mean, normalised."""
    weighted_BC = np.einsum("bkc,k->bc", log_probs_BKC, np.array(how.weights, np.float32))
    return softmax(weighted_BC + np.array(how.bias, np.float32))


def gate_features(said: Outputs, before_B: Array | None) -> Array:
    """What a fitted gate looks at, [B, 4]: log-odds, entropy, margin, agreement with the exit before (0 without)."""
    top_B = said.probs_BC.max(axis=1)
    agreement_B = np.zeros(len(top_B)) if before_B is None else said.labels_B == before_B
    log_odds_B = np.log(np.maximum(top_B, _LEAST) / np.maximum(1.0 - top_B, _LEAST))
    features = (log_odds_B, normalised_entropy(said.probs_BC), gap(said.probs_BC), agreement_B)
    return np.stack([feature.astype(np.float32) for feature in features], axis=1)


def gate_logit(gate: FittedGate, said: Outputs, before_B: Array | None) -> Array:
    """Logit of a fitted gate, [B] float32."""
    weights = np.array([gate.log_odds, gate.entropy, gate.margin, gate.agreement], np.float32)
    result: Array = gate_features(said, before_B) @ weights + np.float32(gate.bias)
    return result
