"""Texts as token ids, `.txt`: per line a label, then the ids, separated by blanks.

Rows differ in length. They are filled up with 0 to the longest one, and a mask says which ids are real. Words are
turned into ids by a tokenizer, which offramp does not have: a function of the user's own reads plain text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.data.files import content
from calibration.settings import DataSettings
from common.errors import ConfigError
from common.types import Array

IDS, MASK = "input_ids", "attention_mask"


def read_tokens(path: Path, settings: DataSettings) -> dict[str, Array]:
    """Arrays by name: ids and mask, [N, tokens] int64 each, and the labels under "labels".

    Raises:
        ConfigError: naming the line.
    """
    try:
        lines = content(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}.") from None
    labels: list[str] = []
    rows: list[list[int]] = []
    for number, line in enumerate(lines, start=1):
        label, *ids = line.split() or [""]
        if not label:
            continue
        if not ids:
            raise ConfigError(f"{path}, line {number} holds a label but no token ids.")
        labels.append(label)
        rows.append([_id(text, path, number) for text in ids])
    if not rows:
        raise ConfigError(f"{path} holds no rows. Each line must hold a label, then token ids.")
    ids_NT, mask_NT = filled_up(rows)
    names = settings.input or [IDS, MASK]
    if len(names) > 2:
        raise ConfigError(f"data.input has {len(names)} names. Token ids become the ids, and a mask beside them.")
    return {**dict(zip(names, (ids_NT, mask_NT), strict=False)), "labels": np.array(labels)}


def filled_up(rows: list[list[int]]) -> tuple[Array, Array]:
    """Ids and mask, [N, longest row] int64."""
    longest = max(map(len, rows))
    ids_NT = np.zeros((len(rows), longest), np.int64)
    mask_NT = np.zeros((len(rows), longest), np.int64)
    for number, ids in enumerate(rows):
        ids_NT[number, : len(ids)] = ids
        mask_NT[number, : len(ids)] = 1
    return ids_NT, mask_NT


def _id(text: str, path: Path, number: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ConfigError(
            f"{path}, line {number} holds {text[:40]!r}, which is no token id. Text is turned into ids by a function "
            "of your own: dataset: ./FILE.py:FUNCTION."
        )
    return int(text)
