"""Scenarios of section 2 and 3: Hello, Welcome, and how a connection is refused or ended."""

from __future__ import annotations

import asyncio
import time

import quiver_protocol as q
from harness import Context, scenario
from quiver_client import Connection, TooManyStreams, draw


async def _refused(
    ctx: Context, connection: Connection, code: q.ConnectionCode, what: str, timeout: float = 10.0
) -> None:
    """Checks that a connection is closed with an application code, and that a Bye agrees."""
    try:
        closed = await connection.closing(timeout)
    except TimeoutError:
        ctx.check(False, f"{what}: closed with {code.name}", "nothing")
        connection.vanish()
        return
    kept = closed.application and closed.code == code
    ctx.check(kept, f"{what}: closed with {code.name}", closed)
    ctx.check(bool(closed.reason), f"{what}: the reason phrase says what to mend", closed)
    for bye in (item for item in connection.received if isinstance(item, q.Bye)):
        ctx.check(bye.code == closed.code, f"{what}: Bye has the code of the close", bye)
    await connection.close()


@scenario
async def hello(ctx: Context) -> None:
    """Hello is answered by Welcome: limits, resumes in order, a session that rises."""
    instance, unknown = draw(), [draw(), draw(), draw()]
    pairs = [q.LastAck(producer, ctx.stream, n) for n, producer in enumerate(unknown)]
    sessions = []
    for last_acks in ([], pairs):
        async with ctx.session(instance, last_acks=last_acks) as connection:
            welcome = connection.welcome
            assert welcome is not None
            ctx.check(connection.alpn == q.ALPN, "ALPN is quiver/1", connection.alpn)
            ctx.check(connection.received[0] is welcome, "the first message is Welcome")
            expected = q.version_1_limits(ctx.kind)
            ctx.check(welcome.limits == expected, "the limits of section 8", welcome.limits)
            early = [ticket.max_early_data_size for ticket in connection.tickets]
            ctx.check(not any(early), "the server offers no 0-RTT", early)
            ctx.check(bool(welcome.server), "the server names its software", welcome)
            sessions.append(welcome.session)
            got = [(r.producer, r.stream, r.known, r.rejects) for r in welcome.resume]
            want: list[tuple[int, str, bool, list[q.ResumeReject]]] = [
                (a.producer, a.stream, False, []) for a in last_acks
            ]
            ctx.check(got == want, "one Resume for each of last_acks, in order", welcome.resume)
            ctx.observe("server", welcome.server)
            ctx.observe("next_sequence of unknown pairs", [r.next_sequence for r in welcome.resume])
    ctx.check(sessions[1] > sessions[0], "the session rises with each connection", sessions)


@scenario
async def hello_identity(ctx: Context) -> None:
    """Hello.device_id stays empty or equals the certificate's id."""
    async with ctx.session(device_id=ctx.id):
        ctx.check(True, "device_id may equal the certificate's")
    connection = await ctx.dial()
    _send_hello(connection, q.Hello(protocol=1, device_id=ctx.id + "x", instance=draw()))
    await _refused(ctx, connection, q.ConnectionCode.UNAUTHENTICATED, "another device_id")


@scenario
async def hello_version(ctx: Context) -> None:
    """Hello.protocol other than 1 is refused."""
    for version in (0, 2):
        connection = await ctx.dial()
        _send_hello(connection, q.Hello(protocol=version, instance=draw()))
        code = q.ConnectionCode.UNSUPPORTED_VERSION
        await _refused(ctx, connection, code, f"protocol {version}")


@scenario
async def hello_order(ctx: Context) -> None:
    """Hello comes first and once; members of later versions are ignored after it."""
    later = b"\x7a\x02\x08\x01"  # member 15
    violation = q.ConnectionCode.PROTOCOL_VIOLATION

    connection = await ctx.dial()
    connection.send_control(q.encode_varint(len(later)) + later)
    await _refused(ctx, connection, violation, "another message before Hello")

    connection = await ctx.dial()
    await connection.hello()
    _send_hello(connection, q.Hello(protocol=1, instance=draw()))
    await _refused(ctx, connection, violation, "a second Hello")

    async with ctx.session() as connection:
        connection.send_control(q.encode_varint(len(later)) + later)
        await ctx.alive(connection)

    connection = await ctx.dial()
    connection.send_control(b"\x04\xff\xff\xff\xff")
    await _refused(ctx, connection, violation, "a first message that is no protobuf")


@scenario
async def hello_in_pieces(ctx: Context) -> None:
    """Bytes may arrive in pieces of any size, and unknown fields of Hello are ignored."""
    connection = await ctx.dial()
    body = q.encode(q.Hello(protocol=1, instance=draw())) + b"\xa2\x06\x03new"  # field 100
    member = b"\x0a" + q.encode_varint(len(body)) + body
    for byte in q.encode_varint(len(member)) + member:
        connection.send_control(bytes([byte]))
        await asyncio.sleep(0.002)
    await connection.until(lambda item: isinstance(item, q.Welcome))
    await ctx.alive(connection)
    await connection.close()


@scenario
async def hello_timeout(ctx: Context) -> None:
    """A client that says nothing is given up after 10 seconds."""
    connection = await ctx.dial()
    start = time.monotonic()
    await _refused(ctx, connection, q.ConnectionCode.HELLO_TIMEOUT, "no Hello", 20.0)
    waited = time.monotonic() - start
    ctx.check(9.0 < waited < 12.0, "the server waits 10 seconds for Hello", f"{waited:.1f} s")


@scenario
async def telemetry_before_welcome(ctx: Context) -> None:
    """QUIC streams that are opened before Hello are read after Welcome."""
    connection = await ctx.dial()
    producer, batch = draw(), ctx.batch(2)
    telemetry = connection.open(ctx.stream, producer, batch.schema)
    telemetry.write(batch)
    await asyncio.sleep(0.3)
    ctx.check(not connection.received, "nothing is sent before Hello", connection.received)
    await connection.hello()
    await connection.acknowledged(producer, ctx.stream, 0)
    ctx.check(True, "telemetry from before Welcome is read after it")
    await ctx.stored(2)
    await connection.close()


@scenario
async def finish_control(ctx: Context) -> None:
    """After FIN on the control stream the server settles what is pending and closes with 0."""
    async with ctx.session() as connection:
        producer, batch = draw(), ctx.batch(3)
        telemetry = connection.open(ctx.stream, producer, batch.schema)
        telemetry.write(batch)
        telemetry.finish()
        connection.finish_control()
        await connection.acknowledged(producer, ctx.stream, 0)
        closed = await connection.closing()
        kept = closed.application and closed.code == q.ConnectionCode.OK
        ctx.check(kept, "closed with code 0 when all is settled", closed)


@scenario
async def quic_stream_limits(ctx: Context) -> None:
    """As many telemetry QUIC streams may be live as Welcome says; too many end the connection."""
    limit = q.version_1_limits(ctx.kind).quic_streams
    batch = ctx.batch(1)
    async with ctx.session() as connection:
        for turn in range(2):
            live = []
            for _ in range(limit):
                producer = draw()
                live.append((connection.open(ctx.stream, producer, batch.schema), producer))
                live[-1][0].write(batch)
            try:
                connection.open(ctx.stream, draw(), batch.schema)
            except TooManyStreams:
                ctx.check(True, "a client reports an error instead of opening one too many")
            else:
                ctx.check(False, "a client reports an error instead of opening one too many")
            for telemetry, producer in live:
                telemetry.finish()
                await connection.acknowledged(producer, ctx.stream, 0)
            ctx.check(True, f"{limit} may be live together, time {turn}")

    connection = await ctx.dial()
    await connection.hello()
    for _ in range(2 * limit):
        opening = q.OpenStream(ctx.stream, draw(), encoding=1)
        connection.open_raw(q.delimited(opening), beyond_limit=True)
        await asyncio.sleep(0.01)
    await _refused(ctx, connection, q.ConnectionCode.TOO_MANY_STREAMS, "twice as many")


@scenario
async def second_bidirectional(ctx: Context) -> None:
    """Another bidirectional QUIC stream is not read and gets no answer."""
    async with ctx.session() as connection:
        hello = q.ClientMessage(hello=q.Hello(protocol=1, instance=draw()))
        other = connection.send_elsewhere(q.delimited(hello))
        await asyncio.sleep(ctx.arguments.patience)
        got = [item for item in connection.received[1:]]
        ctx.check(not got and other not in connection.unexpected, "no answer", got)
        await ctx.alive(connection)


def _send_hello(connection: Connection, message: q.Hello) -> None:
    connection.send_control(q.delimited(q.ClientMessage(hello=message)))
