from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_ANSWER: _ClassVar[Purpose]
    PURPOSE_AUDIT: _ClassVar[Purpose]
    PURPOSE_HEDGE: _ClassVar[Purpose]
    PURPOSE_PROBE: _ClassVar[Purpose]

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_BOOL: _ClassVar[DType]
    DTYPE_UINT8: _ClassVar[DType]
    DTYPE_INT8: _ClassVar[DType]
    DTYPE_INT16: _ClassVar[DType]
    DTYPE_INT32: _ClassVar[DType]
    DTYPE_INT64: _ClassVar[DType]
    DTYPE_FLOAT16: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_FLOAT64: _ClassVar[DType]

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_RAW: _ClassVar[Codec]
    CODEC_U8: _ClassVar[Codec]
    CODEC_FLOAT16: _ClassVar[Codec]
    CODEC_BFLOAT16: _ClassVar[Codec]
    CODEC_U8C: _ClassVar[Codec]
    CODEC_U4: _ClassVar[Codec]
    CODEC_U4C: _ClassVar[Codec]

class Compression(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPRESSION_NONE: _ClassVar[Compression]
    COMPRESSION_ZSTD: _ClassVar[Compression]
    COMPRESSION_LZ4: _ClassVar[Compression]

class Degraded(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADED_NONE: _ClassVar[Degraded]
    DEGRADED_DEADLINE: _ClassVar[Degraded]
    DEGRADED_UPSTREAM_UNAVAILABLE: _ClassVar[Degraded]
    DEGRADED_UPSTREAM_OVERLOADED: _ClassVar[Degraded]
    DEGRADED_UPSTREAM_REJECTED: _ClassVar[Degraded]
PURPOSE_ANSWER: Purpose
PURPOSE_AUDIT: Purpose
PURPOSE_HEDGE: Purpose
PURPOSE_PROBE: Purpose
DTYPE_UNSPECIFIED: DType
DTYPE_BOOL: DType
DTYPE_UINT8: DType
DTYPE_INT8: DType
DTYPE_INT16: DType
DTYPE_INT32: DType
DTYPE_INT64: DType
DTYPE_FLOAT16: DType
DTYPE_FLOAT32: DType
DTYPE_FLOAT64: DType
CODEC_RAW: Codec
CODEC_U8: Codec
CODEC_FLOAT16: Codec
CODEC_BFLOAT16: Codec
CODEC_U8C: Codec
CODEC_U4: Codec
CODEC_U4C: Codec
COMPRESSION_NONE: Compression
COMPRESSION_ZSTD: Compression
COMPRESSION_LZ4: Compression
DEGRADED_NONE: Degraded
DEGRADED_DEADLINE: Degraded
DEGRADED_UPSTREAM_UNAVAILABLE: Degraded
DEGRADED_UPSTREAM_OVERLOADED: Degraded
DEGRADED_UPSTREAM_REJECTED: Degraded

class Up(_message.Message):
    __slots__ = ("request", "cancel", "ping")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    request: InferRequest
    cancel: Cancel
    ping: Ping
    def __init__(self, request: _Optional[_Union[InferRequest, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ...) -> None: ...

class Down(_message.Message):
    __slots__ = ("reply", "refusal", "pong")
    REPLY_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    reply: InferReply
    refusal: Refusal
    pong: Pong
    def __init__(self, reply: _Optional[_Union[InferReply, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "codec", "compression", "scale", "offset", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    codec: Codec
    compression: Compression
    scale: _containers.RepeatedScalarFieldContainer[float]
    offset: _containers.RepeatedScalarFieldContainer[float]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., codec: _Optional[_Union[Codec, str]] = ..., compression: _Optional[_Union[Compression, str]] = ..., scale: _Optional[_Iterable[float]] = ..., offset: _Optional[_Iterable[float]] = ..., data: _Optional[bytes] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("request_id", "bundle", "start_stage", "operating_point", "thresholds", "time_left_us", "purpose", "want_probabilities", "traceparent", "row_ids", "tensors", "state", "observation", "view")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    START_STAGE_FIELD_NUMBER: _ClassVar[int]
    OPERATING_POINT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_US_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    WANT_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    ROW_IDS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    bundle: str
    start_stage: int
    operating_point: str
    thresholds: _containers.RepeatedScalarFieldContainer[float]
    time_left_us: int
    purpose: Purpose
    want_probabilities: bool
    traceparent: str
    row_ids: _containers.RepeatedScalarFieldContainer[int]
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    state: _containers.RepeatedCompositeFieldContainer[Tensor]
    observation: str
    view: int
    def __init__(self, request_id: _Optional[str] = ..., bundle: _Optional[str] = ..., start_stage: _Optional[int] = ..., operating_point: _Optional[str] = ..., thresholds: _Optional[_Iterable[float]] = ..., time_left_us: _Optional[int] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., want_probabilities: _Optional[bool] = ..., traceparent: _Optional[str] = ..., row_ids: _Optional[_Iterable[int]] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., state: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., observation: _Optional[str] = ..., view: _Optional[int] = ...) -> None: ...

class Hop(_message.Message):
    __slots__ = ("tier", "queue_us", "compute_us", "network_us")
    TIER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    NETWORK_US_FIELD_NUMBER: _ClassVar[int]
    tier: str
    queue_us: int
    compute_us: int
    network_us: int
    def __init__(self, tier: _Optional[str] = ..., queue_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., network_us: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("row_id", "label", "confidence", "exit", "tier", "degraded", "hops", "probabilities")
    ROW_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    row_id: int
    label: int
    confidence: float
    exit: int
    tier: str
    degraded: Degraded
    hops: _containers.RepeatedCompositeFieldContainer[Hop]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, row_id: _Optional[int] = ..., label: _Optional[int] = ..., confidence: _Optional[float] = ..., exit: _Optional[int] = ..., tier: _Optional[str] = ..., degraded: _Optional[_Union[Degraded, str]] = ..., hops: _Optional[_Iterable[_Union[Hop, _Mapping]]] = ..., probabilities: _Optional[_Iterable[float]] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("request_id", "answers", "last", "elapsed_us")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_US_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    last: bool
    elapsed_us: int
    def __init__(self, request_id: _Optional[str] = ..., answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., last: _Optional[bool] = ..., elapsed_us: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("request_id", "status")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    status: _status_pb2.Status
    def __init__(self, request_id: _Optional[str] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StageInfo(_message.Message):
    __slots__ = ("stage", "runtime", "precision")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    stage: int
    runtime: str
    precision: str
    def __init__(self, stage: _Optional[int] = ..., runtime: _Optional[str] = ..., precision: _Optional[str] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("tier", "version", "bundle", "bundle_name", "start_stage", "stop_stage", "stages", "operating_points")
    TIER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    START_STAGE_FIELD_NUMBER: _ClassVar[int]
    STOP_STAGE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    OPERATING_POINTS_FIELD_NUMBER: _ClassVar[int]
    tier: str
    version: str
    bundle: str
    bundle_name: str
    start_stage: int
    stop_stage: int
    stages: _containers.RepeatedCompositeFieldContainer[StageInfo]
    operating_points: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tier: _Optional[str] = ..., version: _Optional[str] = ..., bundle: _Optional[str] = ..., bundle_name: _Optional[str] = ..., start_stage: _Optional[int] = ..., stop_stage: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[StageInfo, _Mapping]]] = ..., operating_points: _Optional[_Iterable[str]] = ...) -> None: ...
