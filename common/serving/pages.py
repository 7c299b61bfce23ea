"""The REST door's quiet routes: the list of doors, health, the OpenAPI document and a page to read it."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from common.serving.asgi import error_body
from common.serving.core import Core
from common.serving.docs_page import docs_page
from common.serving.openapi import add_predict
from common.version import VERSION


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Door(_Strict):
    """A route of this server."""

    method: Literal["GET", "POST"]
    path: str
    does: str


class Doors(_Strict):
    """What this server offers."""

    service: str
    version: str
    tier: str
    bundle: str
    doors: list[Door]


class Live(_Strict):
    """The process answers."""

    live: Literal[True]


class Ready(_Strict):
    """The tier can answer predictions."""

    ready: Literal[True]


class ErrorDetail(_Strict):
    """What was wrong."""

    code: str
    message: str


class Error(_Strict):
    """The one form of every error."""

    error: ErrorDetail


_DOORS = [
    Door(method="GET", path="/", does="lists the doors"),
    Door(method="POST", path="/predict", does="answers inputs: JSON, npy, PNG, JPEG or several files"),
    Door(method="GET", path="/v2/health/live", does="tells that the process answers"),
    Door(method="GET", path="/v2/health/ready", does="tells whether the tier can answer predictions"),
    Door(method="GET", path="/openapi.json", does="describes all of this for programs"),
    Door(method="GET", path="/docs", does="describes all of this for people"),
]
_NO_SCRIPTS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


def pages(core: Core, body_types: tuple[str, ...]) -> FastAPI:
    """The application that answers everything but predictions.

    Args:
        core: the tier.
        body_types: what `POST /predict` takes for this bundle.
    """
    app = FastAPI(
        title=f"offramp, tier {core.name}",
        version=VERSION,
        description="Answers inputs with an early-exit network that is spread over device, edge and cloud.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    listed = Doors(service="offramp", version=VERSION, tier=core.name, bundle=core.bundle.name, doors=_DOORS)

    @app.get("/", summary="List the doors")
    async def doors() -> Doors:
        return listed

    @app.get("/v2/health/live", summary="Whether the process answers")
    async def live() -> Live:
        return Live(live=True)

    @app.get(
        "/v2/health/ready",
        summary="Whether the tier can answer predictions",
        responses={503: {"model": Error, "description": "The tier starts, or shuts down"}},
        response_model=Ready,
    )
    async def ready() -> Response | Ready:
        if core.ready:
            return Ready(ready=True)
        return _error(503, "not_ready", f"Tier {core.name} is not ready.")

    document: dict[str, Any] = add_predict(app.openapi(), core, body_types)
    page = docs_page(document)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_NO_SCRIPTS)

    return app


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(error_body(code, message), status, headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    path = request.url.path[:80]
    if error.status_code == 404:
        return _error(404, "not_found", f"There is no {path} here. GET / lists what there is.", headers)
    if error.status_code == 405:
        return _error(405, "method_not_allowed", f"{path} does not take {request.method}.", headers)
    return _error(error.status_code, "error", str(error.detail), headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    return _error(500, "internal", "The request failed on this tier. The tier goes on.")
