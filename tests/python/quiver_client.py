"""An asyncio client for the wire protocol ``quiver/1``, with aioquic and pyarrow.

Written from docs/protocol.md alone. A :class:`Connection` is one QUIC connection: `dial` makes it,
`Connection.hello` opens the control stream, `Connection.open` a telemetry QUIC stream. Whatever the
server sends is appended to `Connection.received` in the order of arrival, where tests can look at
it afterwards, and wakes those who wait for it. A :class:`Producer` numbers batches and keeps them
until they are settled; `Connection.resume` sends what a producer still has.

    async with await dial("127.0.0.1", 4433, credentials) as connection:
        await connection.hello(instance=installed_instance)
        producer = Producer("readings")
        producer.add(batch)
        await connection.resume(producer)
        await connection.settled(producer)

The client keeps to what a well-behaved one must do, and lets tests break it deliberately: raw bytes
can be sent on every QUIC stream, and a connection can vanish without a word.
"""

from __future__ import annotations

import asyncio
import io
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import SessionTicket

import quiver_compact as compact
import quiver_protocol as q

CONTROL_STREAM = 0
DEFAULT_TIMEOUT = 10.0

_random = random.SystemRandom()


def draw() -> int:
    """A random 64-bit number: a producer or an instance."""
    return _random.getrandbits(64) | 1


# -------------------------------------------------------------------------------- what can happen


@dataclass(frozen=True)
class Closed:
    """How a connection ended. ``application`` tells an application code from a transport one."""

    code: int
    application: bool
    reason: str

    def __str__(self) -> str:
        kind = "application" if self.application else "transport"
        return f"{kind} close {self.code:#x} {self.reason!r}"


@dataclass(frozen=True)
class Stopped:
    """STOP_SENDING on a telemetry QUIC stream."""

    quic_stream: int
    code: int


class ConnectionClosed(Exception):
    """The connection ended while something was expected from it."""

    def __init__(self, closed: Closed) -> None:
        super().__init__(str(closed))
        self.closed = closed


class StreamStopped(Exception):
    """The server has closed the telemetry QUIC stream that was to be written."""


class TooManyStreams(Exception):
    """As many telemetry QUIC streams are live as the server allows."""


# ------------------------------------------------------------------------------------ connection


@dataclass(frozen=True)
class Credentials:
    """Files in PEM. Without ``certificate`` no client certificate is presented."""

    authority: str
    certificate: str | None = None
    key: str | None = None


class _Protocol(QuicConnectionProtocol):
    """Hands aioquic's events to the connection that owns it."""

    owner: Connection | None = None

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if self.owner is not None:
            self.owner._event(event)


async def dial(
    host: str,
    port: int,
    credentials: Credentials,
    *,
    alpn: str | None = q.ALPN,
    server_name: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Connection:
    """A QUIC connection whose handshake is complete on this side. No stream is opened yet.

    Raises :class:`ConnectionClosed` if the server refuses the handshake. Refusal of the client's
    certificate may come later, as the end of an established connection: TLS 1.3 works like that.
    """
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=[alpn] if alpn is not None else None,
        server_name=server_name or host,
        idle_timeout=30.0,
    )
    configuration.load_verify_locations(credentials.authority)
    if credentials.certificate is not None:
        configuration.load_cert_chain(credentials.certificate, credentials.key)
    tickets: list[SessionTicket] = []
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, _, _, _, address = infos[0]
    local = "::" if family == socket.AF_INET6 else "0.0.0.0"
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Protocol(
            QuicConnection(configuration=configuration, session_ticket_handler=tickets.append)
        ),
        local_addr=(local, 0),
        family=family,
    )
    connection = Connection(protocol, transport)
    connection.tickets = tickets
    protocol.connect(address)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.wait(
                {connection._handshake, connection.closed},  # type: ignore[type-var]
                return_when=asyncio.FIRST_COMPLETED,
            )
    except TimeoutError:
        connection.vanish()
        raise
    if not connection._handshake.done():
        transport.close()
        raise ConnectionClosed(connection.closed.result())
    return connection


class Connection:
    """One connection: its control stream, its telemetry QUIC streams, and what was received."""

    def __init__(self, protocol: _Protocol, transport: asyncio.DatagramTransport) -> None:
        loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._quic = protocol._quic
        self._transport = transport
        self._handshake: asyncio.Future[None] = loop.create_future()
        self._splitter = q.Splitter()
        self._changed = asyncio.Event()
        self._streams: dict[int, TelemetryStream] = {}
        self._settled: dict[tuple[int, str], int] = {}  # next sequence of each pair
        protocol.owner = self
        #: Resolves with the way in which the connection ended.
        self.closed: asyncio.Future[Closed] = loop.create_future()
        #: The ALPN that was agreed on.
        self.alpn: str | None = None
        #: Everything the server sent, in order: members of ``ServerMessage`` and :class:`Stopped`.
        self.received: list[Any] = []
        #: Ids of QUIC streams other than the control stream on which the server sent something.
        self.unexpected: set[int] = set()
        #: TLS session tickets that the server handed out.
        self.tickets: list[SessionTicket] = []
        #: Answer to `hello`.
        self.welcome: q.Welcome | None = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- from aioquic

    def _event(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.HandshakeCompleted):
            self.alpn = event.alpn_protocol
            if not self._handshake.done():
                self._handshake.set_result(None)
        elif isinstance(event, events.StreamDataReceived) and event.stream_id == CONTROL_STREAM:
            for body in self._splitter.feed(event.data):
                message = q.member(q.decode(q.ServerMessage, body))
                if message is not None:  # None: of a later version, ignored
                    self._note(message)
        elif isinstance(event, events.StreamDataReceived):
            self.unexpected.add(event.stream_id)
        elif isinstance(event, events.StopSendingReceived):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.stopped = True
            self._note(Stopped(event.stream_id, event.error_code))
        elif isinstance(event, events.ConnectionTerminated):
            if not self.closed.done():
                application = event.frame_type is None
                self.closed.set_result(Closed(event.error_code, application, event.reason_phrase))
            self._changed.set()

    def _note(self, item: Any) -> None:
        if isinstance(item, q.Ack):
            self._settled[item.producer, item.stream] = item.sequence + 1
        elif isinstance(item, q.StreamClosed) and item.quic_stream in self._streams:
            self._streams[item.quic_stream].stopped = True
        self.received.append(item)
        self._changed.set()

    # ---- control stream

    def send_control(self, data: bytes, *, end: bool = False) -> None:
        """Bytes on the control stream, as they are."""
        self._quic.send_stream_data(CONTROL_STREAM, data, end_stream=end)
        self._protocol.transmit()

    def finish_control(self) -> None:
        """FIN on the control stream: the server settles what is pending, then closes."""
        self.send_control(b"", end=True)

    async def hello(self, instance: int | None = None, **fields: Any) -> q.Welcome:
        """Sends ``Hello`` and returns ``Welcome``. ``fields`` are those of the message."""
        hello = q.Hello(
            **{"protocol": q.PROTOCOL_VERSION, "client": "quiver-python-tests/1", **fields},
            instance=draw() if instance is None else instance,
        )
        self.send_control(q.delimited(q.ClientMessage(hello=hello)))
        self.welcome = await self.until(lambda item: isinstance(item, q.Welcome))
        return self.welcome

    # ---- waiting

    async def until(
        self, wanted: Callable[[Any], bool], *, since: int = 0, timeout: float = DEFAULT_TIMEOUT
    ) -> Any:
        """The first item of `received`, from index ``since`` on, that is ``wanted``.

        Raises :class:`ConnectionClosed` or ``TimeoutError`` if it does not come.
        """
        at = since
        end = time.monotonic() + timeout
        while True:
            while at < len(self.received):
                if wanted(self.received[at]):
                    return self.received[at]
                at += 1
            if self.closed.done():
                raise ConnectionClosed(self.closed.result())
            self._changed.clear()
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                raise TimeoutError(
                    f"not received within {timeout} s; got {self.received}"
                ) from None

    async def acknowledged(
        self,
        producer: int,
        stream: str,
        sequence: int,
        *,
        since: int = 0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> q.Ack:
        """The first ``Ack`` that covers a sequence."""

        def covers(item: Any) -> bool:
            return (
                isinstance(item, q.Ack)
                and (item.producer, item.stream) == (producer, stream)
                and item.sequence >= sequence
            )

        return await self.until(covers, since=since, timeout=timeout)

    async def closing(self, timeout: float = DEFAULT_TIMEOUT) -> Closed:
        """Waits for the end of the connection."""
        async with asyncio.timeout(timeout):
            return await asyncio.shield(self.closed)

    # ---- telemetry

    def open(
        self,
        stream: str,
        producer: int,
        schema: pa.Schema,
        *,
        first_sequence: int = 0,
        lost_before: int = 0,
        ack_level: int = 0,
        replayed: bool = False,
        whole: bool = False,
        compact: bool = False,
        **options: Any,
    ) -> TelemetryStream:
        """A telemetry QUIC stream with its ``OpenStream`` sent. ``options`` are pyarrow's.

        With ``whole`` messages are compressed one by one (encoding 2), with ``compact`` each batch is
        what changed since the one before (encoding 3).
        """
        encoding = q.ENCODING_ARROW_ZSTD if whole else q.ENCODING_ARROW
        if compact:
            encoding = q.ENCODING_COMPACT
        telemetry = self.open_raw(
            q.delimited(
                q.OpenStream(
                    stream=stream,
                    producer=producer,
                    first_sequence=first_sequence,
                    lost_before=lost_before,
                    encoding=encoding,
                    ack_level=ack_level,
                    replayed=replayed,
                )
            )
        )
        telemetry.pair = (producer, stream)
        telemetry.start(schema, first_sequence, whole=whole, compact=compact, **options)
        return telemetry

    def open_raw(self, data: bytes, *, beyond_limit: bool = False) -> TelemetryStream:
        """A telemetry QUIC stream that begins with these bytes.

        Raises :class:`TooManyStreams` if as many are live as ``Welcome`` allows.
        """
        limits = self.welcome.limits if self.welcome else None
        if limits is not None and self.live() >= limits.quic_streams and not beyond_limit:
            raise TooManyStreams(f"{self.live()} telemetry QUIC streams are live")
        stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        telemetry = TelemetryStream(self, stream_id)
        self._streams[stream_id] = telemetry
        telemetry.send(data)
        return telemetry

    def live(self) -> int:
        """How many telemetry QUIC streams are live.

        One is live until it was finished and all on it is settled, or reset, or closed by the
        server.
        """
        for stream_id, telemetry in list(self._streams.items()):
            settled = self._settled.get(telemetry.pair, 0) >= telemetry.next_sequence
            if telemetry.stopped or telemetry.was_reset or (telemetry.finished and settled):
                del self._streams[stream_id]
        return len(self._streams)

    def send_elsewhere(self, data: bytes) -> int:
        """Bytes on another bidirectional QUIC stream, which has no use. Returns its id."""
        stream_id = CONTROL_STREAM + 4
        self._quic.send_stream_data(stream_id, data)
        self._protocol.transmit()
        return stream_id

    def resume(self, producer: Producer, **options: Any) -> TelemetryStream:
        """Sends the unsettled batches of a producer, from where ``Welcome`` says if it does.

        All of them must have one schema.
        """
        for resume in self.welcome.resume if self.welcome else []:
            if (resume.producer, resume.stream) == (producer.id, producer.stream):
                producer.settle(resume.next_sequence)
        sequences = sorted(producer.unsettled)
        telemetry = self.open(
            producer.stream,
            producer.id,
            producer.unsettled[sequences[0]].schema,
            first_sequence=sequences[0],
            **options,
        )
        for sequence in sequences:
            telemetry.write(producer.unsettled[sequence])
        return telemetry

    async def settled(self, producer: Producer, timeout: float = DEFAULT_TIMEOUT) -> q.Ack:
        """Waits until everything a producer has numbered is acknowledged, and forgets it."""
        last = producer.next_sequence - 1
        ack = await self.acknowledged(producer.id, producer.stream, last, timeout=timeout)
        producer.settle(ack.sequence + 1)
        return ack

    # ---- ending

    async def close(self) -> Closed:
        """Closes with application code 0, unless the server closed before."""
        if not self.closed.done():
            self._protocol.close(error_code=q.ConnectionCode.OK)
            self._protocol.transmit()
        await asyncio.shield(self.closed)
        self._transport.close()
        return self.closed.result()

    def vanish(self) -> None:
        """Ends without telling the server, as a lost network does."""
        self._protocol.owner = None
        if self._protocol._timer is not None:
            self._protocol._timer.cancel()
        self._transport.abort()
        if not self.closed.done():
            self.closed.set_result(Closed(0, False, "vanished"))
        self._changed.set()


# -------------------------------------------------------------------------------------- telemetry


class IpcWriter:
    """pyarrow's IPC stream writer, piece by piece: what it writes is taken away as bytes."""

    def __init__(self, schema: pa.Schema, *, whole: bool = False, **options: Any) -> None:
        self._sink = io.BytesIO()
        self._whole = whole
        self._writer = ipc.new_stream(self._sink, schema, options=ipc.IpcWriteOptions(**options))

    def batch(self, batch: pa.RecordBatch) -> bytes:
        """The messages of a batch: before it the schema if it is the first, and dictionaries."""
        self._writer.write_batch(batch)
        return self._take()

    def end(self) -> bytes:
        """The end marker (and the schema, if there was no batch)."""
        self._writer.close()
        return self._take()

    def _take(self) -> bytes:
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return compress_messages(data) if self._whole else data


class CompactWriter:
    """As :class:`IpcWriter`, in the compact encoding."""

    def __init__(self, schema: pa.Schema) -> None:
        self._encoder = compact.Encoder(schema)
        self._begun = False

    def batch(self, batch: pa.RecordBatch) -> bytes:
        return self._opening() + self._encoder.batch(batch)

    def end(self) -> bytes:
        return self._opening() + b"\0"

    def _opening(self) -> bytes:
        begun, self._begun = self._begun, True
        return b"" if begun else self._encoder.schema()


def compress_messages(data: bytes) -> bytes:
    """The messages of an IPC stream, each compressed as a whole (encoding 2)."""
    out = bytearray()
    reader = pa.BufferReader(data)
    start = 0
    while start < len(data):
        if data[start:] == q.END_OF_STREAM:
            return bytes(out) + struct.pack("<II", 0, 0)
        ipc.read_message(reader)
        raw = data[start : reader.tell()]
        frame = pa.compress(raw, codec="zstd", asbytes=True)
        out += struct.pack("<II", len(frame), len(raw)) + frame
        start = reader.tell()
    return bytes(out)


class TelemetryStream:
    """A telemetry QUIC stream."""

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self._connection = connection
        self._writer: IpcWriter | CompactWriter | None = None
        #: Id of the QUIC stream.
        self.id = stream_id
        #: Whether the server sent STOP_SENDING.
        self.stopped = False
        #: Whether it was finished, or reset, on this side.
        self.finished = False
        self.was_reset = False
        #: Producer and stream that it was opened for.
        self.pair = (0, "")
        #: Sequence of the next batch.
        self.next_sequence = 0

    def start(
        self, schema: pa.Schema, first_sequence: int, *, compact: bool = False, **options: Any
    ) -> None:
        """Prepares what follows ``OpenStream``."""
        self._writer = CompactWriter(schema) if compact else IpcWriter(schema, **options)
        self.next_sequence = first_sequence

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """What `write` would send for a batch, whose sequence is then used."""
        assert self._writer is not None
        self.next_sequence += 1
        return self._writer.batch(batch)

    def write(self, batch: pa.RecordBatch) -> int:
        """Sends a batch and returns its sequence."""
        self.send(self.encode(batch))
        return self.next_sequence - 1

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        if self.stopped:
            raise StreamStopped(f"the server closed QUIC stream {self.id}")
        self._connection._quic.send_stream_data(self.id, data)
        self._connection._protocol.transmit()

    def finish(self, *, marker: bool = True) -> None:
        """FIN, after the end marker unless told otherwise."""
        self.finished = True
        data = self._writer.end() if marker and self._writer is not None else b""
        if not self.stopped:
            self._connection._quic.send_stream_data(self.id, data, end_stream=True)
            self._connection._protocol.transmit()

    def reset(self, code: int = 0) -> None:
        """RESET_STREAM: what was not read yet is void."""
        self.was_reset = True
        self._connection._quic.reset_stream(self.id, code)
        self._connection._protocol.transmit()


class Producer:
    """Batches of one (producer, stream) by sequence, kept until they are settled.

    Lives in memory only, so each instance draws a new producer.
    """

    def __init__(self, stream: str) -> None:
        self.id = draw()
        self.stream = stream
        self.next_sequence = 0
        self.unsettled: dict[int, pa.RecordBatch] = {}

    def add(self, batch: pa.RecordBatch) -> int:
        """Gives a batch its sequence, for ever."""
        self.unsettled[self.next_sequence] = batch
        self.next_sequence += 1
        return self.next_sequence - 1

    def settle(self, next_sequence: int) -> None:
        """Forgets everything before a sequence that the server named."""
        self.unsettled = {n: batch for n, batch in self.unsettled.items() if n >= next_sequence}

    def last_ack(self) -> q.LastAck:
        """What ``Hello`` says about this producer."""
        first = min(self.unsettled, default=self.next_sequence)
        return q.LastAck(self.id, self.stream, first)
