"""The JSON body of a prediction: {"inputs": [...], "timeout_ms", "operating_point", "probabilities", "forward"}."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence

import orjson

from common.errors import Malformed, TooLarge, Unprocessable
from common.limits import Limits
from common.manifest import Manifest
from common.serving.admission import Sizes, bucket_sizes, check_rows
from common.serving.bounds import bounds
from common.serving.columns import Column, stack
from common.serving.options import DEFAULTS, Options, described, options_from_json
from common.types import Array, Tensors

_SMALL = 64 << 10  # bytes up to which nothing can take long


class JsonBody:
    """Reads JSON bodies for one bundle, straight into numpy.

    A row is a list of numbers of the tensor's row shape, or flat with the right count. A bundle with several
    input tensors takes an object of such lists per row; with one, both forms are accepted.
    """

    def __init__(self, manifest: Manifest, limits: Limits) -> None:
        self._manifest = manifest
        self._limits = limits
        self._bounds = bounds(manifest, limits)
        self._columns = {name: Column(manifest.tensors[name], limits.json_depth) for name in manifest.inputs}
        self._only = manifest.inputs[0] if len(manifest.inputs) == 1 else None
        self._plain = None if self._only is None else self._columns[self._only]
        if self._only is None or manifest.tensors[self._only].dtype == "bool":
            self._plain = None

    def read(self, body: bytes, given: Mapping[str, object] | None = None) -> tuple[Tensors, Options]:
        """The tensors, [B, ...] each, and the options.

        Args:
            body: UTF-8.
            given: options that stood elsewhere, in the query string; none may stand in both places.

        Raises:
            Malformed: not JSON, too deep, or inputs that the bundle does not take.
            Unprocessable: unknown or missing keys, options that are not allowed.
            TooLarge: too many rows.
        """
        if len(body) > _SMALL:
            self._check_counts(body)
        document = self._parse(body)
        if not isinstance(document, dict):
            raise Malformed(
                f'The body is {described(document)}. It must be an object such as {{"inputs": [...]}}.', "bad_json"
            )
        if "inputs" not in document:
            raise Unprocessable("The body has no key inputs. It must hold a list with one input per row.", "no_inputs")
        inputs = document.pop("inputs")
        if not isinstance(inputs, list):
            raise Malformed(f"inputs is {described(inputs)}. It must be a list with one input per row.", "bad_shape")
        check_rows(len(inputs), self._limits)
        options = self._options(document, given)
        column = self._plain
        if column is not None and isinstance(inputs[0], list) and _is_plain(body, document, column.marks):
            array = column.plain(inputs)
            if array is not None:
                return {column.spec.name: array}, options
        _check_twins(body, document, inputs)
        return self._exactly(inputs), options

    def _check_counts(self, body: bytes) -> None:
        """Refuse what no batch can need before millions of small values are made of it."""
        for what, found, most in (
            ("values", body.count(b","), self._bounds.json_values),
            ("arrays and objects", body.count(b"[") + body.count(b"{"), self._bounds.json_lists),
        ):
            if found > most:
                raise TooLarge(
                    f"The body holds about {found} {what}. A batch of {self._limits.batch_rows} inputs, the most "
                    f"that is accepted, has no more than {int(most)}.",
                    "batch_too_large",
                )

    def _parse(self, body: bytes) -> object:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            text = str(error)
            if "depth" in text or "ecursion" in text:
                raise Malformed(
                    f"The body is nested deeper than {self._limits.json_depth} levels.", "too_deep"
                ) from None
            raise Malformed(f"The body is not JSON: {text}.", "bad_json") from None

    def _options(self, document: Mapping[str, object], given: Mapping[str, object] | None) -> Options:
        if not given:
            return options_from_json(document) if document else DEFAULTS
        for key in given:
            if key in document:
                raise Unprocessable(f"{key} is given more than once.", "bad_option")
        return options_from_json({**document, **given})

    def _exactly(self, inputs: list[object]) -> Tensors:
        sizes_of_rows: list[Sizes] = [{} for _ in inputs]
        read: dict[str, list[Array]] = {name: [] for name in self._columns}
        for number, (value, sizes) in enumerate(zip(inputs, sizes_of_rows, strict=True)):
            for name, (part, where) in self._parts(value, f"inputs[{number}]").items():
                read[name].append(self._columns[name].row(part, where, sizes))
        longest: Sizes = {}
        for sizes in sizes_of_rows:
            for symbol, size in sizes.items():
                longest[symbol] = max(size, longest.get(symbol, 0))
        padded = bucket_sizes(self._manifest, longest)
        return {name: stack(rows, self._columns[name].spec, padded) for name, rows in read.items()}

    def _parts(self, value: object, where: str) -> dict[str, tuple[object, str]]:
        """The values of one row by tensor, each with its name in messages."""
        if not isinstance(value, dict):
            if self._only is not None:
                return {self._only: (value, where)}
            raise Malformed(
                f"{where} is {described(value)}. It must be an object with the keys {', '.join(self._columns)}.",
                "bad_tensors",
            )
        if value.keys() != self._columns.keys():
            has = ", ".join(described(key) for key in list(value)[:16]) or "no keys"
            raise Malformed(f"{where} has {has}. It must have the keys {', '.join(self._columns)}.", "bad_tensors")
        return {name: (value[name], f"{where}.{name}") for name in self._columns}


def _is_plain(body: bytes, options: Mapping[str, object], marks: Sequence[bytes]) -> bool:
    """Whether the inputs hold no strings, and nothing that is spelled with one of the marks.

    Counts what the keys and options account for; everything beyond them could be in the inputs. It may say no too
    often, never yes.
    """
    if not options:  # the first and the last quote of all can enclose no more than the word inputs
        return body.rfind(b'"') == body.find(b'"') + 7 and not any(map(body.__contains__, marks))
    if b"\\" in body:
        return False
    spelled = ""  # the letters that keys and options account for; "inputs" holds none of the marks
    quoted = 1 + len(options)
    for key, value in options.items():
        if isinstance(value, str):
            quoted += 1
            spelled += key + value
        elif isinstance(value, bool):
            spelled += key + ("true" if value else "false")
        else:
            spelled += key
    if not _stands(body, b'"', 2 * quoted):
        return False
    return all(_stands(body, mark, spelled.count(mark.decode())) for mark in marks)


def _stands(body: bytes, character: bytes, times: int) -> bool:
    """Whether a character stands in the body exactly so often; for few times much quicker than counting them."""
    at = -1
    for _ in range(times):
        at = body.find(character, at + 1)
        if at < 0:
            return False
    return body.find(character, at + 1) < 0


def _check_twins(body: bytes, options: Mapping[str, object], inputs: list[object]) -> None:
    """Refuse an object that has a key twice (Malformed): parsing keeps the last one and says nothing.

    Where keys and texts account for every quote there is no twin, and the body is not parsed again.
    """
    quoted = 1 + len(options) + sum(isinstance(value, str) for value in options.values())
    quoted += sum(len(value) for value in inputs if isinstance(value, dict))
    if body.count(b'"') == 2 * quoted and b"\\" not in body:
        return
    with contextlib.suppress(RecursionError):  # whoever looks at the values refuses such depth
        json.loads(body, object_pairs_hook=_without_twins, parse_int=len, parse_float=len)


def _without_twins(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise Malformed(f"The body has the key {described(key)} more than once.", "bad_json")
        seen.add(key)
