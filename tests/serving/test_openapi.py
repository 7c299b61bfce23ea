"""The OpenAPI document is true: what it allows is answered, what it forbids is refused, nothing else comes back."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from common.limits import Limits
from common.serving.rest import RestDoor
from tests.serving.doors import FakeCore, digits, texts


def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), 7).save(file, kind)
    return file.getvalue()


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((1, 2, 2), np.uint8))
    return file.getvalue()


FILES = {"image/png": _picture("PNG"), "image/jpeg": _picture("JPEG"), "application/x-npy": _array()}
for media_type, file in FILES.items():
    schemathesis.openapi.media_type(media_type, st.just(file))


REFUSED = {"negative_data_rejection": {"expected-statuses": [400, 413, 415, 422]}}
CONFIG = SchemathesisConfig.from_dict({"checks": REFUSED})
BUNDLES = {"digits": digits(size=(2, 2)), "texts": texts(), "floats": digits("float32", (2, 2))}


def _beyond_schema(case: Any) -> bool:
    """What a schema cannot say: options stand in one place; tensors of one row agree in their symbolic sizes."""
    body = case.body if isinstance(case.body, dict) else {}
    if set(case.query or {}) & set(body):
        return True
    rows = [row for row in body.get("inputs", []) if isinstance(row, dict)]
    return any(len({len(tensor) for tensor in row.values()}) > 1 for row in rows)


def _excluded(case: Any, mode: GenerationMode) -> list[Any]:
    if mode is GenerationMode.POSITIVE:
        return [positive_data_acceptance] if _beyond_schema(case) else []
    # A form loses the types of its values, and a list of none is nothing at all.
    return [negative_data_rejection] if case.media_type == "multipart/form-data" else []


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_document_is_true(bundle: str, mode: GenerationMode, tmp_path: Path) -> None:
    door = RestDoor(FakeCore(tmp_path, BUNDLES[bundle], Limits(batch_rows=3)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", door, config=CONFIG)
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and operation.path != "/predict":
            continue  # takes nothing that could be wrong

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(excluded_checks=_excluded(case, mode))

        check()
