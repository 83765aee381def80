"""The wire protocol ``quiver/1`` without input or output.

Written from docs/protocol.md alone, to prove that the page is enough. Holds what both ends of a
connection agree on: the delimited protobuf messages of the control stream, ``OpenStream``, the
numbers and names of codes and limits, and just enough of Arrow's IPC framing to cut an IPC stream
into its messages (pyarrow writes them). Nothing here opens a socket, waits, or draws randomness:
bytes go in, values come out, or the other way round.

The messages are small and flat, so they are encoded by hand: a message is a dataclass whose fields
carry their protobuf number and wire kind, and two functions walk them.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

ALPN = "quiver/1"
PROTOCOL_VERSION = 1
DEFAULT_PORT = 4433
ENCODING_ARROW = 1
ENCODING_ARROW_ZSTD = 2
ENCODING_COMPACT = 3
HELLO_TIMEOUT_SECONDS = 10

# Section 8. Fixed in this version; `Welcome.limits` announces those that are fields of `Limits`.
MAX_CONTROL_MESSAGE = 65_536
MAX_OPEN_STREAM = 1_024
MAX_LAST_ACKS = 256
MAX_FIRST_SEQUENCE = 1 << 62
MAX_MESSAGE_TEXT = 512


class ProtocolError(Exception):
    """Bytes that are not what docs/protocol.md says they are."""


# --------------------------------------------------------------------------------------- codes


class RejectCode(enum.IntEnum):
    """``Reject.code``: why a batch is refused for ever."""

    MALFORMED_BATCH = 1
    UNSUPPORTED_TYPE = 2
    TYPE_CONFLICT = 3
    RESERVED_COLUMN = 4
    FIELD_NAME = 5
    FIELD_LIMIT = 6
    MISSING_TIMESTAMP = 7
    BATCH_SPAN = 8
    MISSING_DEVICE = 9
    BATCH_TOO_LARGE = 10
    DECLARED_LOST = 11
    UNDECLARED_FIELD = 12


class RowCode(enum.IntEnum):
    """``RefusedRows.code``: why single rows are refused."""

    NULL_TIMESTAMP = 100
    TIMESTAMP_RANGE = 101
    FUTURE_TIMESTAMP = 102
    NOT_ENROLLED = 103
    INTEGER_RANGE = 104
    INEXACT_FLOAT = 105
    DECIMAL_SCALE = 106


class StreamCode(enum.IntEnum):
    """``StreamClosed.code``, also the number of the STOP_SENDING that goes with it."""

    GAP = 1
    UNKNOWN_PRODUCER = 2
    FRAMING = 3
    SUPERSEDED = 4
    BAD_OPEN = 5
    NOT_ALLOWED = 6
    TOO_LARGE = 7
    STORAGE_FULL = 64
    OVERLOADED = 65
    RATE_LIMITED = 66
    RETRY = 67


def is_retryable(stream_code: int) -> bool:
    """Whether waiting ``retry_after`` and reopening is right, also for codes of later versions."""
    return stream_code >= 64


class ConnectionCode(enum.IntEnum):
    """Application error code of CONNECTION_CLOSE, and ``Bye.code``."""

    OK = 0
    PROTOCOL_VIOLATION = 1
    UNSUPPORTED_VERSION = 2
    UNAUTHENTICATED = 3
    NOT_ENROLLED = 4
    REVOKED = 5
    REPLACED = 6
    TOO_MANY_STREAMS = 7
    LIMIT_EXCEEDED = 8
    SHUTTING_DOWN = 9
    OVERLOADED = 10
    INTERNAL = 11
    HELLO_TIMEOUT = 12


class CryptoError(enum.IntEnum):
    """Transport error codes (0x100 + TLS alert) with which a handshake is refused."""

    CERTIFICATE_EXPIRED = 0x12D
    UNKNOWN_CA = 0x130
    CERTIFICATE_REQUIRED = 0x174
    NO_APPLICATION_PROTOCOL = 0x178


# ------------------------------------------------------------------------------------- varints


def encode_varint(value: int) -> bytes:
    """Protobuf's base-128 varint of a number below 2^64."""
    if not 0 <= value < 1 << 64:
        raise ValueError(f"a varint holds 0 to 2^64 - 1, not {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes | bytearray, at: int = 0) -> tuple[int, int] | None:
    """The varint at ``at`` and the index behind it; ``None`` if more bytes are needed."""
    value = 0
    for index in range(10):
        if at + index >= len(data):
            return None
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 1 << 64:
                raise ProtocolError("a varint is beyond 64 bits")
            return value, at + index + 1
    raise ProtocolError("a varint is longer than 10 bytes")


# ------------------------------------------------------------------------------------ protobuf

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

UINT, BOOL, FIXED, TEXT, MESSAGE = "uint", "bool", "fixed64", "string", "message"
_WIRE = {UINT: VARINT, BOOL: VARINT, FIXED: FIXED64, TEXT: BYTES, MESSAGE: BYTES}

T = TypeVar("T")


def _proto(number: int, kind: str, *, of: str | None = None, repeated: bool = False) -> Any:
    """A dataclass field with its protobuf number and kind; ``of`` names the type of a message."""
    meta = {"number": number, "kind": kind, "of": of, "repeated": repeated}
    if repeated:
        return field(default_factory=list, metadata=meta)
    default = {UINT: 0, BOOL: False, FIXED: 0, TEXT: "", MESSAGE: None}[kind]
    return field(default=default, metadata=meta)


def encode(message: Any) -> bytes:
    """Protobuf of a message: fields by number, those with their default value left out."""
    out = bytearray()
    for spec in dataclasses.fields(message):
        kind = spec.metadata["kind"]
        value = getattr(message, spec.name)
        for item in value if spec.metadata["repeated"] else [value]:
            if not spec.metadata["repeated"] and (item is None or (kind != MESSAGE and not item)):
                continue
            out += encode_varint(spec.metadata["number"] << 3 | _WIRE[kind])
            if kind in (UINT, BOOL):
                out += encode_varint(int(item))
            elif kind == FIXED:
                out += struct.pack("<Q", item)
            else:
                body = encode(item) if kind == MESSAGE else item.encode()
                out += encode_varint(len(body)) + body
    return bytes(out)


def _wire_fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and raw value of each field, known or not."""
    at = 0

    def varint() -> int:
        nonlocal at
        got = decode_varint(data, at)
        if got is None:
            raise ProtocolError("a message ends inside a varint")
        value, at = got
        return value

    def take(count: int) -> bytes:
        nonlocal at
        if at + count > len(data):
            raise ProtocolError("a message ends inside a field")
        at += count
        return data[at - count : at]

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ProtocolError("field number 0")
        if wire == VARINT:
            yield number, wire, varint()
        elif wire == FIXED64:
            yield number, wire, struct.unpack("<Q", take(8))[0]
        elif wire == BYTES:
            yield number, wire, take(varint())
        elif wire == FIXED32:
            yield number, wire, struct.unpack("<I", take(4))[0]
        else:
            raise ProtocolError(f"wire type {wire} is not used")


def decode(message_type: type[T], data: bytes) -> T:
    """A message from its protobuf. Fields that this version does not know are ignored."""
    message = message_type()
    specs = {spec.metadata["number"]: spec for spec in dataclasses.fields(message_type)}  # type: ignore[arg-type]
    for number, wire, raw in _wire_fields(data):
        spec = specs.get(number)
        if spec is None:
            continue
        kind = spec.metadata["kind"]
        if wire != _WIRE[kind]:
            raise ProtocolError(f"{message_type.__name__}.{spec.name} has wire type {wire}")
        value: Any = raw
        if kind == BOOL:
            value = raw != 0
        elif kind == TEXT:
            try:
                value = raw.decode()
            except UnicodeDecodeError as error:
                raise ProtocolError(f"{message_type.__name__}.{spec.name}: {error}") from error
        elif kind == MESSAGE:
            value = decode(globals()[spec.metadata["of"]], raw)
        if spec.metadata["repeated"]:
            getattr(message, spec.name).append(value)
        else:
            setattr(message, spec.name, value)
    return message


# ------------------------------------------------------------------------------------ messages
# Section 3. The order of the fields is the order of their numbers.


@dataclass
class LastAck:
    producer: int = _proto(1, FIXED)
    stream: str = _proto(2, TEXT)
    next_sequence: int = _proto(3, UINT)


@dataclass
class Hello:
    protocol: int = _proto(1, UINT)
    device_id: str = _proto(2, TEXT)
    instance: int = _proto(3, FIXED)
    token: str = _proto(4, TEXT)
    client: str = _proto(5, TEXT)
    last_acks: list[LastAck] = _proto(6, MESSAGE, of="LastAck", repeated=True)


@dataclass
class Limits:
    quic_streams: int = _proto(1, UINT)
    control_message_bytes: int = _proto(2, UINT)
    ipc_metadata_bytes: int = _proto(3, UINT)
    batch_body_bytes: int = _proto(4, UINT)
    batch_decoded_bytes: int = _proto(5, UINT)
    batch_rows: int = _proto(6, UINT)
    batch_columns: int = _proto(7, UINT)
    dictionary_bytes: int = _proto(8, UINT)
    dictionary_values: int = _proto(9, UINT)
    last_acks: int = _proto(10, UINT)


def version_1_limits(kind: str) -> Limits:
    """What a server announces to a ``device``, ``gateway`` or ``operator`` (section 8)."""
    return Limits(
        quic_streams=16 if kind == "device" else 128,
        control_message_bytes=MAX_CONTROL_MESSAGE,
        ipc_metadata_bytes=524_288,
        batch_body_bytes=4_194_304,
        batch_decoded_bytes=16_777_216,
        batch_rows=65_536,
        batch_columns=1_005,
        dictionary_bytes=1_048_576,
        dictionary_values=65_536,
        last_acks=MAX_LAST_ACKS,
    )


@dataclass
class ResumeReject:
    sequence: int = _proto(1, UINT)
    code: int = _proto(2, UINT)
    message: str = _proto(3, TEXT)


@dataclass
class RefusedRows:
    code: int = _proto(1, UINT)
    rows: int = _proto(2, UINT)


@dataclass
class Resume:
    producer: int = _proto(1, FIXED)
    stream: str = _proto(2, TEXT)
    next_sequence: int = _proto(3, UINT)
    known: bool = _proto(4, BOOL)
    rejects: list[ResumeReject] = _proto(5, MESSAGE, of="ResumeReject", repeated=True)
    rejects_total: int = _proto(6, UINT)
    refused_rows: list[RefusedRows] = _proto(7, MESSAGE, of="RefusedRows", repeated=True)


@dataclass
class Welcome:
    limits: Limits | None = _proto(1, MESSAGE, of="Limits")
    resume: list[Resume] = _proto(2, MESSAGE, of="Resume", repeated=True)
    session: int = _proto(3, UINT)
    server: str = _proto(4, TEXT)


@dataclass
class Ack:
    producer: int = _proto(1, FIXED)
    stream: str = _proto(2, TEXT)
    sequence: int = _proto(3, UINT)
    refused_rows: list[RefusedRows] = _proto(4, MESSAGE, of="RefusedRows", repeated=True)


@dataclass
class Reject:
    producer: int = _proto(1, FIXED)
    stream: str = _proto(2, TEXT)
    sequence: int = _proto(3, UINT)
    code: int = _proto(4, UINT)
    message: str = _proto(5, TEXT)


@dataclass
class StreamClosed:
    producer: int = _proto(1, FIXED)
    stream: str = _proto(2, TEXT)
    next_sequence: int = _proto(3, UINT)
    code: int = _proto(4, UINT)
    retry_after: int = _proto(5, UINT)
    message: str = _proto(6, TEXT)
    quic_stream: int = _proto(7, UINT)


@dataclass
class Bye:
    code: int = _proto(1, UINT)
    message: str = _proto(2, TEXT)
    reconnect_after: int = _proto(3, UINT)


@dataclass
class ClientMessage:
    """What a client sends: one member, or none if it is of a later version."""

    hello: Hello | None = _proto(1, MESSAGE, of="Hello")


@dataclass
class ServerMessage:
    """What a server sends: one member, or none if it is of a later version."""

    welcome: Welcome | None = _proto(1, MESSAGE, of="Welcome")
    ack: Ack | None = _proto(2, MESSAGE, of="Ack")
    reject: Reject | None = _proto(3, MESSAGE, of="Reject")
    stream_closed: StreamClosed | None = _proto(4, MESSAGE, of="StreamClosed")
    bye: Bye | None = _proto(5, MESSAGE, of="Bye")


@dataclass
class OpenStream:
    """First on a telemetry QUIC stream (section 4)."""

    stream: str = _proto(1, TEXT)
    producer: int = _proto(2, FIXED)
    first_sequence: int = _proto(3, UINT)
    lost_before: int = _proto(4, UINT)
    encoding: int = _proto(5, UINT)
    ack_level: int = _proto(6, UINT)
    replayed: bool = _proto(7, BOOL)


def member(message: ClientMessage | ServerMessage) -> Any:
    """The member of the ``oneof`` that is set, ``None`` if this version does not know it."""
    for spec in dataclasses.fields(message):
        value = getattr(message, spec.name)
        if value is not None:
            return value
    return None


# ------------------------------------------------------------------------------------- framing


def delimited(message: Any) -> bytes:
    """A message with its length in front, as it stands on the wire."""
    body = encode(message)
    return encode_varint(len(body)) + body


class Splitter:
    """Cuts delimited messages from bytes that arrive in pieces of any size.

    ``limit`` bounds one message without its length; a longer one raises :class:`ProtocolError` as
    soon as its length is known.
    """

    def __init__(self, limit: int = MAX_CONTROL_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every message that is complete with these bytes."""
        self.append(data)
        while True:
            body = self.take()
            if body is None:
                return
            yield body

    def append(self, data: bytes) -> None:
        """Adds bytes as they arrived."""
        self._buffer += data

    def take(self) -> bytes | None:
        """The next complete message, if there is one."""
        got = decode_varint(self._buffer)
        if got is None:
            return None
        length, start = got
        if length > self._limit:
            raise ProtocolError(f"a message of {length} bytes; at most {self._limit} are allowed")
        if len(self._buffer) < start + length:
            return None
        body = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        return body

    @property
    def rest(self) -> bytes:
        """Bytes behind the last message taken: the Arrow IPC stream behind an ``OpenStream``."""
        return bytes(self._buffer)


# ----------------------------------------------------------------------------- Arrow IPC framing

CONTINUATION = b"\xff\xff\xff\xff"
END_OF_STREAM = CONTINUATION + b"\0\0\0\0"

SCHEMA, DICTIONARY_BATCH, RECORD_BATCH = 1, 2, 3  # MessageHeader of Arrow's Message.fbs
_SLOT_HEADER_TYPE, _SLOT_BODY_LENGTH = 1, 3  # fields of the table Message


@dataclass
class IpcMessage:
    """One encapsulated Arrow IPC message, as bytes.

    ``metadata`` is the flatbuffer with its padding, without continuation and length.
    """

    metadata: bytes
    body: bytes

    def to_bytes(self) -> bytes:
        return CONTINUATION + struct.pack("<i", len(self.metadata)) + self.metadata + self.body

    @property
    def header_type(self) -> int:
        at = _flatbuffer_field(self.metadata, _SLOT_HEADER_TYPE)
        return 0 if at is None else self.metadata[at]

    def announcing(self, body_length: int) -> IpcMessage:
        """The same message with another ``bodyLength`` in its metadata: a forgery for tests."""
        at = _flatbuffer_field(self.metadata, _SLOT_BODY_LENGTH)
        if at is None:
            raise ValueError("a message without a body announces no length that could be forged")
        metadata = bytearray(self.metadata)
        struct.pack_into("<q", metadata, at, body_length)
        return IpcMessage(bytes(metadata), self.body)


def _flatbuffer_field(table_bytes: bytes, slot: int) -> int | None:
    """Where a field of the root table stands; ``None`` if it has its default."""
    (table,) = struct.unpack_from("<I", table_bytes, 0)
    (back,) = struct.unpack_from("<i", table_bytes, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", table_bytes, vtable)
    entry = 4 + 2 * slot
    if entry + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", table_bytes, vtable + entry)
    return table + offset if offset else None


def split_ipc(data: bytes) -> Iterator[IpcMessage]:
    """The messages of an Arrow IPC stream, without the end marker."""
    at = 0
    while at < len(data):
        if data[at : at + 4] != CONTINUATION:
            raise ProtocolError(f"no continuation marker at byte {at} of the IPC stream")
        (length,) = struct.unpack_from("<i", data, at + 4)
        at += 8
        if length == 0:
            if at != len(data):
                raise ProtocolError("bytes behind the end marker of the IPC stream")
            return
        metadata = data[at : at + length]
        where = _flatbuffer_field(metadata, _SLOT_BODY_LENGTH)
        body_length = 0 if where is None else struct.unpack_from("<q", metadata, where)[0]
        at += length
        if at + body_length > len(data):
            raise ProtocolError("the IPC stream ends inside a message")
        yield IpcMessage(metadata, data[at : at + body_length])
        at += body_length
