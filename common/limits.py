"""The bounds of a tier: how much of anything one caller may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Most of everything that is accepted at once; what goes beyond is refused, never cut short."""

    # per request
    batch_rows: int = 1024
    body_bytes: int = 32 << 20  # of an HTTP request
    max_message_bytes: int = 64 << 20  # of a gRPC message
    image_pixels: int = 16 << 20  # of one image file, before it is fitted
    request_pixels: int = 128 << 20  # of all image files of a request together
    json_depth: int = 16  # nested arrays and objects

    # per tier
    buffered_bytes: int = 256 << 20  # of HTTP bodies beyond 64 KiB that arrive or wait for their answer
    queue_rows: int = 4096  # rows that wait for a stage
    run_rows: int = 64  # rows in one run of a stage; a larger request is run in parts
    stream_requests: int = 1024  # in flight on one stream
    grpc_connections: int = 1024  # open at the gRPC door, of tiers and of everybody else


DEFAULT_LIMITS = Limits()
