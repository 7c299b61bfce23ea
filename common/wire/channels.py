"""gRPC settings that every channel and server of offramp shares."""

from __future__ import annotations

from collections.abc import Sequence

SERVICE = "offramp.v1.Tier"
INFER = f"/{SERVICE}/Infer"
INFER_STREAM = f"/{SERVICE}/InferStream"
DESCRIBE = f"/{SERVICE}/Describe"
REFUSAL_KEY = "offramp-refusal"  # in a unary call's trailing metadata: a tier refused, the network did not fail

_FRAME_BYTES = 16384  # HTTP/2's default largest frame
_FRAME_HEADER = 9
_GRPC_PREFIX = 5

Options = Sequence[tuple[str, int | str]]


def channel_options(max_message_bytes: int) -> Options:
    """Options of a channel to upstream: explicit sizes, quick reconnection (the breaker is ours)."""
    return (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),  # two tiers in one process never share a connection
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    )


def server_options(max_message_bytes: int) -> Options:
    """Options of a tier's server."""
    return (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second tier on the same address must fail, not share it
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    )


def framed_bytes(message_bytes: int) -> int:
    """Bytes of a message on the wire with gRPC's prefix and HTTP/2's frame headers."""
    body = message_bytes + _GRPC_PREFIX
    return body + _FRAME_HEADER * -(-body // _FRAME_BYTES)
