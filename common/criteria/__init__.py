"""Criteria: the rules that accept an exit's answer.

Each criterion is one small object. `decide` sees a batch, the state that earlier exits left for it, and one
threshold per row; a threshold of NaN never accepts. The last exit accepts whatever the criterion says; the
caller takes care of that.
"""

from __future__ import annotations

from common.criteria.criterion import Criterion, Outputs
from common.criteria.entropy import Entropy
from common.criteria.gate import Gate
from common.criteria.margin import Margin
from common.criteria.max_probability import MaxProbability
from common.criteria.patience import Patience
from common.criteria.probabilities import log_softmax, softmax, softmax_row

__all__ = ["CRITERIA", "Criterion", "Outputs", "log_softmax", "softmax", "softmax_row"]

CRITERIA: dict[str, Criterion] = {c.name: c for c in (MaxProbability(), Entropy(), Margin(), Patience(), Gate())}
