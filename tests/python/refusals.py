"""Scenarios of section 4's "Trouble" and of `OpenStream`: what is refused, and what goes on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa

import quiver_protocol as q
from harness import TS, Context, Skipped, scenario
from quiver_client import Stopped, TelemetryStream, draw
from quiver_protocol import RejectCode, StreamCode

ROWS = 20
DAY = 86_400_000_000


def malformed(data: bytes, old: bytes, new: bytes) -> bytes:
    """IPC messages with something in the body of the last one overwritten."""
    *before, last = q.split_ipc(data)
    assert len(old) == len(new) and last.body.count(old) >= 1
    last = q.IpcMessage(last.metadata, last.body.replace(old, new, 1))
    return b"".join(message.to_bytes() for message in [*before, last])


def plain(rows: int) -> pa.Array:
    """Values of an ordinary field."""
    return pa.array([1.0] * rows)


def _end_of(telemetry: TelemetryStream) -> Callable[[Any], bool]:
    """Recognises the StreamClosed of a QUIC stream."""
    return lambda item: isinstance(item, q.StreamClosed) and item.quic_stream == telemetry.id


@scenario
async def reject_conflict(ctx: Context) -> None:
    """A conflicting type rejects each batch; their QUIC stream and all others go on."""
    producer, other = draw(), draw()
    good = ctx.batch(ROWS)
    wrong = ctx.batch(ROWS, temperature=pa.array(["warm"] * ROWS))
    times = ctx.batch(ROWS, count=pa.array(range(ROWS), TS))
    async with ctx.session() as connection:
        bystander = connection.open(ctx.stream, other, good.schema)
        bystander.write(ctx.batch(ROWS, 10 * ROWS))
        first = connection.open(ctx.stream, producer, good.schema)
        first.write(good)
        await connection.acknowledged(producer, ctx.stream, 0)
        first.finish()
        second = connection.open(ctx.stream, producer, wrong.schema, first_sequence=1)
        second.write(wrong)
        await ctx.rejected(connection, producer, 1, RejectCode.TYPE_CONFLICT)
        second.write(wrong)
        await ctx.rejected(connection, producer, 2, RejectCode.TYPE_CONFLICT)
        bystander.write(ctx.batch(ROWS, 11 * ROWS))
        await connection.acknowledged(other, ctx.stream, 1)
        await connection.acknowledged(producer, ctx.stream, 2)
        second.finish()
        third = connection.open(ctx.stream, producer, times.schema, first_sequence=3)
        third.write(times)
        await ctx.rejected(connection, producer, 3, RejectCode.TYPE_CONFLICT)
        await connection.acknowledged(producer, ctx.stream, 3)
        third.finish()
        fourth = connection.open(ctx.stream, producer, good.schema, first_sequence=4)
        fourth.write(ctx.batch(ROWS, ROWS))
        await connection.acknowledged(producer, ctx.stream, 4)
        closes = [i for i in connection.received if isinstance(i, (q.StreamClosed, Stopped))]
        ctx.check(not closes, "the QUIC stream goes on after a Reject", closes)
        await ctx.stored(4 * ROWS)


@scenario
async def reject_malformed(ctx: Context) -> None:
    """A batch with broken content is rejected alone; those around it on its QUIC stream go on."""
    offsets = struct.pack("<3i", 0, len(ctx.run), 2 * len(ctx.run))
    beyond = struct.pack("<3i", 0, 0x7FFFFFF0, 2 * len(ctx.run))
    negative = struct.pack("<3i", 0, -8, 2 * len(ctx.run))
    text = ctx.run.encode()
    async with ctx.session() as connection:
        producer = draw()
        telemetry = connection.open(ctx.stream, producer, ctx.batch(0).schema)
        for n in range(7):
            data = telemetry.encode(ctx.batch(ROWS, n * ROWS))
            if n == 1:
                data = malformed(data, text, b"\xff" * len(text))  # no UTF-8
            elif n == 3:
                data = malformed(data, offsets, beyond)
            elif n == 5:
                data = malformed(data, offsets, negative)
            telemetry.send(data)
        for n in (1, 3, 5):
            await ctx.rejected(connection, producer, n, RejectCode.MALFORMED_BATCH)
        await connection.acknowledged(producer, ctx.stream, 6)
        closes = [i for i in connection.received if isinstance(i, (q.StreamClosed, Stopped))]
        ctx.check(not closes, "the QUIC stream goes on", closes)
        await ctx.stored(4 * ROWS)


@scenario
async def reject_codes(ctx: Context) -> None:
    """Each reason to reject a whole batch, by its code."""
    rows = 3
    fields = {f"many_{n}": pa.array([1.0] * rows) for n in range(1_004)}
    today = {f"today_{draw():x}": pa.array([1.0] * rows) for n in range(65)}
    without_ts = ctx.batch(rows).drop_columns(["ts"])
    wrong: list[tuple[str, RejectCode, pa.RecordBatch]] = [
        (f"a column of {kind}", RejectCode.UNSUPPORTED_TYPE, ctx.batch(rows, extra=array))
        for kind, array in {
            "binary": pa.array([b"a"] * rows),
            "decimal": pa.array([1] * rows, pa.decimal128(10, 2)),
            "date": pa.array([1] * rows, pa.date32()),
            "time": pa.array([1] * rows, pa.time64("us")),
            "lists": pa.array([[1]] * rows),
            "structs": pa.array([{"a": 1}] * rows),
            "views": pa.array(["a"] * rows, pa.string_view()),
            "duration": pa.array([1] * rows, pa.duration("us")),
        }.items()
    ]
    arrival = ctx.batch(rows).column("ts")
    late = [1_700_000_000_000_000 + n * 184 * DAY for n in range(rows)]
    wrong += [
        ("position", RejectCode.RESERVED_COLUMN, ctx.batch(rows, position=pa.array([1, 2, 3]))),
        ("quiver_day", RejectCode.RESERVED_COLUMN, ctx.batch(rows, quiver_day=pa.array([1, 2, 3]))),
        ("a space in a name", RejectCode.FIELD_NAME, ctx.batch(rows, **{"a b": plain(rows)})),
        ("a digit first", RejectCode.FIELD_NAME, ctx.batch(rows, **{"1st": plain(rows)})),
        ("64 characters", RejectCode.FIELD_NAME, ctx.batch(rows, **{"a" * 64: plain(rows)})),
        ("names alike", RejectCode.FIELD_NAME, ctx.batch(rows, Count=plain(rows))),
        ("65 new fields", RejectCode.FIELD_LIMIT, ctx.batch(rows, **today)),
        ("no ts", RejectCode.MISSING_TIMESTAMP, without_ts),
        ("ts is int64", RejectCode.MISSING_TIMESTAMP, ctx.batch(rows, ts=pa.array([1, 2, 3]))),
        ("368 days", RejectCode.BATCH_SPAN, ctx.batch(rows, ts=pa.array(late, TS))),
        ("65,537 rows", RejectCode.BATCH_TOO_LARGE, ctx.batch(65_537)),
        ("1,008 columns", RejectCode.BATCH_TOO_LARGE, ctx.batch(rows, **fields)),
    ]
    if ctx.kind != "gateway":
        wrong.append(("arrival", RejectCode.RESERVED_COLUMN, ctx.batch(rows, arrival=arrival)))
    if ctx.kind != "device":
        nobody = ctx.batch(rows).drop_columns(["device"])
        wrong.append(("no device", RejectCode.MISSING_DEVICE, nobody))
        number = ctx.batch(rows, device=pa.array([1, 2, 3]))
        wrong.append(("device is a number", RejectCode.MISSING_DEVICE, number))
    for what, code, batch in wrong:
        async with ctx.session() as connection:
            producer = draw()
            telemetry = connection.open(ctx.stream, producer, batch.schema)
            telemetry.write(batch)
            try:
                reject = await connection.until(
                    lambda i: isinstance(i, (q.Reject, q.StreamClosed, q.Ack)), timeout=15
                )
            except Exception as error:
                ctx.check(False, f"{what}: rejected with {code.name}", error)
                continue
            kept = isinstance(reject, q.Reject) and reject.code == code
            ctx.check(kept, f"{what}: rejected with {code.name}", reject)
            await connection.acknowledged(producer, ctx.stream, 0)
            closes = [i for i in connection.received if isinstance(i, q.StreamClosed)]
            ctx.check(not closes, f"{what}: the QUIC stream goes on", closes)
    await ctx.stored(0)


@scenario
async def resume_rejects(ctx: Context) -> None:
    """Rejects that were sent while nobody listened are told again in Welcome."""
    instance, producer = draw(), draw()
    wrong = ctx.batch(ROWS, temperature=pa.array(["warm"] * ROWS))
    async with ctx.session(instance) as connection:
        telemetry = connection.open(ctx.stream, producer, ctx.batch(0).schema)
        telemetry.write(ctx.batch(ROWS))
        await connection.acknowledged(producer, ctx.stream, 0)
        telemetry.finish()
        telemetry = connection.open(ctx.stream, producer, wrong.schema, first_sequence=1)
        telemetry.write(wrong)
        telemetry.write(wrong)
        await connection.acknowledged(producer, ctx.stream, 2)
    for since, sequences in ((0, [1, 2]), (1, [1, 2]), (2, [2]), (3, [])):
        last_acks = [q.LastAck(producer, ctx.stream, since)]
        async with ctx.session(instance, last_acks=last_acks) as connection:
            assert connection.welcome is not None
            (resumed,) = connection.welcome.resume
            kept = resumed.known and resumed.next_sequence == 3
            ctx.check(kept, "rejected batches are settled: next_sequence is behind them", resumed)
            got = [(r.sequence, r.code) for r in resumed.rejects]
            want = [(n, RejectCode.TYPE_CONFLICT) for n in sequences]
            ctx.check(got == want, f"rejects from sequence {since} on", resumed)
            ctx.check(all(r.message for r in resumed.rejects), "they say why", resumed)
            total = resumed.rejects_total
            ctx.check(total == len(sequences), "rejects_total counts them", resumed)


@scenario
async def refused_rows(ctx: Context) -> None:
    """Single rows that cannot be stored are counted in Ack and Welcome; the others are stored."""
    instance, producer = draw(), draw()
    times = ctx.batch(ROWS).column("ts").to_pylist()
    broken = ctx.batch(ROWS, ts=pa.array([None, *times[1:]], TS))
    want = [q.RefusedRows(q.RowCode.NULL_TIMESTAMP, 2)]
    async with ctx.session(instance) as connection:
        telemetry = connection.open(ctx.stream, producer, broken.schema)
        telemetry.write(broken)
        telemetry.write(ctx.batch(ROWS, ROWS))
        telemetry.write(ctx.batch(ROWS, 2 * ROWS, ts=broken.column("ts")))
        ack = await connection.acknowledged(producer, ctx.stream, 2)
        ctx.check(ack.refused_rows == want, "the Ack counts the rows of all batches", ack)
    async with ctx.session(instance, last_acks=[q.LastAck(producer, ctx.stream, 3)]) as connection:
        assert connection.welcome is not None
        (resumed,) = connection.welcome.resume
        ctx.check(resumed.refused_rows == want, "Welcome repeats the counts", resumed)
    await ctx.stored(3 * ROWS - 2)


@scenario
async def framing(ctx: Context) -> None:
    """Bytes that are no Arrow message: Reject, then StreamClosed FRAMING; reopen behind it."""
    run = ctx.run
    wrong = {"garbage": b"This is no Arrow message at all. " * 4}
    wrong["no continuation"] = struct.pack("<i", 256) + bytes(256)
    wrong["negative metadata length"] = q.CONTINUATION + struct.pack("<i", -16) + bytes(64)
    wrong["metadata of zeros"] = q.CONTINUATION + struct.pack("<i", 256) + bytes(256)
    wrong["bytes behind the end marker"] = q.END_OF_STREAM + bytes(range(1, 65))
    for what, data in wrong.items():
        ctx.run = f"{run}-{what}"
        async with ctx.session() as connection:
            producer = draw()
            telemetry = connection.open(ctx.stream, producer, ctx.batch(0).schema)
            telemetry.write(ctx.batch(ROWS))
            telemetry.send(data)
            await ctx.rejected(connection, producer, 1, RejectCode.MALFORMED_BATCH)
            closed = await ctx.stream_closed(connection, telemetry, StreamCode.FRAMING)
            behind = closed.next_sequence == 2 and closed.producer == producer
            ctx.check(behind, f"{what}: next_sequence is behind the rejected batch", closed)
            kinds = [type(i) for i in connection.received]
            order = kinds.index(q.Reject) < kinds.index(q.StreamClosed)
            ctx.check(order, f"{what}: Reject, then StreamClosed", kinds)
            again = connection.open(ctx.stream, producer, ctx.batch(0).schema, first_sequence=2)
            again.write(ctx.batch(ROWS, ROWS))
            await connection.acknowledged(producer, ctx.stream, 2)
            await ctx.stored(2 * ROWS)


@scenario
async def framing_instead_of_schema(ctx: Context) -> None:
    """Bytes that are no Arrow message in place of the schema count as batch 0."""
    async with ctx.session() as connection:
        for first in (0, 1):
            producer = draw()
            if first:
                connection.open(ctx.stream, producer, ctx.batch(0).schema).write(ctx.batch(1))
                await connection.acknowledged(producer, ctx.stream, 0)
            opening = q.OpenStream(
                stream=ctx.stream, producer=producer, first_sequence=first, encoding=1
            )
            telemetry = connection.open_raw(q.delimited(opening) + b"no schema at all" * 8)
            await ctx.rejected(connection, producer, first, RejectCode.MALFORMED_BATCH)
            closed = await ctx.stream_closed(connection, telemetry, StreamCode.FRAMING)
            ctx.check(closed.next_sequence == first + 1, "next_sequence is behind it", closed)
        await ctx.alive(connection)


@scenario
async def gap(ctx: Context) -> None:
    """A first_sequence ahead of what is expected, with and without lost_before."""
    instance, producer = draw(), draw()
    schema = ctx.batch(0).schema
    async with ctx.session(instance) as connection:
        first = connection.open(ctx.stream, producer, schema)
        first.write(ctx.batch(ROWS))
        await connection.acknowledged(producer, ctx.stream, 0)
        first.finish()
        for lost_before in (0, 3):
            ahead = connection.open(
                ctx.stream, producer, schema, first_sequence=5, lost_before=lost_before
            )
            ahead.write(ctx.batch(ROWS, 7 * ROWS))
            closed = await ctx.stream_closed(connection, ahead, StreamCode.GAP)
            kept = (closed.producer, closed.stream, closed.next_sequence)
            expected = (producer, ctx.stream, 1)
            ctx.check(kept == expected, "GAP names the next_sequence expected", closed)
        await ctx.stored(ROWS)
        declared = connection.open(ctx.stream, producer, schema, first_sequence=5, lost_before=5)
        declared.write(ctx.batch(ROWS, ROWS))
        await connection.acknowledged(producer, ctx.stream, 5)
        ctx.check(True, "with lost_before = first_sequence the server goes on")
        await ctx.stored(2 * ROWS)
        rejects = [i for i in connection.received if isinstance(i, q.Reject)]
        ctx.observe("Rejects for declared losses", rejects)
    async with ctx.session(instance, last_acks=[q.LastAck(producer, ctx.stream, 1)]) as connection:
        assert connection.welcome is not None
        (resumed,) = connection.welcome.resume
        ctx.check(resumed.next_sequence == 6, "the loss is recorded durably", resumed)
        ctx.observe("Resume of declared losses", resumed)
        late = connection.open(ctx.stream, producer, schema, first_sequence=3)
        for n in range(4):  # 3 and 4 were declared lost, 5 is a duplicate, 6 is new
            late.write(ctx.batch(ROWS, (10 + n) * ROWS))
        await connection.acknowledged(producer, ctx.stream, 6)
        await ctx.stored(3 * ROWS)


@scenario
async def unknown_producer(ctx: Context) -> None:
    """A producer that the server does not know must begin at 0, lost_before or not."""
    schema = ctx.batch(0).schema
    async with ctx.session() as connection:
        for lost_before in (0, 3):
            producer = draw()
            telemetry = connection.open(
                ctx.stream, producer, schema, first_sequence=3, lost_before=lost_before
            )
            telemetry.write(ctx.batch(ROWS))
            closed = await ctx.stream_closed(connection, telemetry, StreamCode.UNKNOWN_PRODUCER)
            pair = (closed.producer, closed.stream) == (producer, ctx.stream)
            ctx.check(pair, "StreamClosed names the pair", closed)
            ctx.observe("next_sequence of an unknown producer", closed.next_sequence)
        renumbered = draw()
        connection.open(ctx.stream, renumbered, schema).write(ctx.batch(ROWS))
        await connection.acknowledged(renumbered, ctx.stream, 0)
        ctx.check(True, "the batch is taken under a new producer, numbered from 0")
        await ctx.stored(ROWS)


@scenario
async def bad_open(ctx: Context) -> None:
    """OpenStream that cannot be read, or must not be: the QUIC stream is closed, no more."""
    async with ctx.session() as connection:
        telemetry = connection.open_raw(b"\x05\xff\xff\xff\xff\xff" + bytes(32))
        closed = await ctx.stream_closed(connection, telemetry, StreamCode.BAD_OPEN)
        unread = (closed.producer, closed.stream) == (0, "")
        ctx.check(unread, "producer 0 and no stream if OpenStream could not be read", closed)
        for name in ("alerts", "rejects", "quiver_private"):
            telemetry = connection.open(name, draw(), ctx.batch(0).schema)
            telemetry.write(ctx.batch(1))
            closed = await ctx.stream_closed(connection, telemetry, StreamCode.NOT_ALLOWED)
            ctx.check(closed.stream == name, "StreamClosed names the stream", closed)
        for what, data in {
            "OpenStream of 1,025 bytes": q.encode_varint(1_025),
            "a wrong stream name": q.delimited(q.OpenStream("Bad-Name", 1, encoding=1)),
            "no stream name": q.delimited(q.OpenStream("", 1, encoding=1)),
            "encoding 9": q.delimited(q.OpenStream(ctx.stream, draw(), encoding=9)),
            "encoding 0": q.delimited(q.OpenStream(ctx.stream, draw())),
            "ack_level 9": q.delimited(q.OpenStream(ctx.stream, draw(), encoding=1, ack_level=9)),
            "producer 0": q.delimited(q.OpenStream(ctx.stream, 0, encoding=1)),
            "lost_before beyond first_sequence": q.delimited(
                q.OpenStream(ctx.stream, draw(), lost_before=4, encoding=1)
            ),
            "first_sequence beyond 2^62": q.delimited(
                q.OpenStream(ctx.stream, draw(), first_sequence=(1 << 62) + 1, encoding=1)
            ),
        }.items():
            telemetry = connection.open_raw(data)
            try:
                closed = await connection.until(_end_of(telemetry), timeout=2)
                ctx.observe(what, f"{StreamCode(closed.code).name}: {closed.message}")
            except TimeoutError:
                ctx.observe(what, "nothing")
                telemetry.reset()
        await ctx.alive(connection)


@scenario
async def gateway_rows(ctx: Context) -> None:
    """A gateway's rows for a device not enrolled behind it are refused, the others stored."""
    if ctx.kind == "device":
        raise Skipped("needs the certificate of a gateway or operator (--cert, --device)")
    device = pa.array([ctx.device, "nobody_knows_me", ctx.device, "nobody_knows_me"])
    async with ctx.session() as connection:
        producer = draw()
        for n, column in enumerate(
            (device, device.dictionary_encode(), device.cast("large_string"))
        ):
            batch = ctx.batch(4, n * 4, device=column)
            connection.open(ctx.stream, producer, batch.schema, first_sequence=n).write(batch)
            await connection.acknowledged(producer, ctx.stream, n)
        rejects = [i for i in connection.received if isinstance(i, q.Reject)]
        ctx.check(not rejects, "their batch is not rejected", rejects)
        await ctx.stored(6)
