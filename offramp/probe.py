"""Asking one door of a tier whether it is ready, with as few imports as possible: probes call it often."""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from common.address import Address, parse_address
from common.errors import ConfigError

_PATH = "/v2/health/ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a door said of its tier."""

    ready: bool
    detail: str  # one phrase


def parse_target(text: str) -> tuple[str, Address]:
    """Read `host:port`, `http://host:port` or `grpc://host:port`.

    Returns:
        The protocol, empty where none was written, and the address.

    Raises:
        ConfigError: when it is none of these.
    """
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme not in ("http", "grpc"):
        raise ConfigError(f"ADDRESS is {text!r}. It must start with http:// or grpc://, or be host:port alone.")
    try:
        address = parse_address(rest.removesuffix("/"))
        if address.port == 0:
            raise ValueError("has port 0, which cannot be dialled")
    except ValueError as error:
        raise ConfigError(f"ADDRESS is {text!r}. It {error}.") from None
    return scheme, address


def probe(scheme: str, address: Address, timeout_s: float) -> Health:
    """Ask a door; without a scheme, HTTP first and gRPC where the other end does not speak it."""
    if scheme == "grpc":
        return _probe_grpc(address, timeout_s)
    try:
        return _probe_http(address, timeout_s)
    except http.client.HTTPException:
        if scheme == "http":
            return Health(ready=False, detail="the answer is not HTTP")
        return _probe_grpc(address, timeout_s)


def _probe_http(address: Address, timeout_s: float) -> Health:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    try:
        connection.request("GET", _PATH, headers={"Connection": "close"})
        status = connection.getresponse().status
    except TimeoutError:
        return Health(ready=False, detail=f"no answer within {timeout_s:g} s")
    except ConnectionResetError as error:
        raise http.client.RemoteDisconnected(str(error)) from None
    except OSError as error:
        return Health(ready=False, detail=f"no connection: {error.strerror or error}")
    finally:
        connection.close()
    return Health(ready=status == 200, detail=f"HTTP status {status}")


def _probe_grpc(address: Address, timeout_s: float) -> Health:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(str(address)) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            return Health(ready=False, detail=f"gRPC status {error.code().name}")
    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
    return Health(
        ready=serving, detail=f"gRPC health {health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}"
    )
