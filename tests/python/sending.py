"""Scenarios of sections 4 and 6: batches that are stored, sequences, reconnecting, takeover."""

from __future__ import annotations

import asyncio

import pyarrow as pa

import quiver_protocol as q
from harness import TS, Context, scenario
from quiver_client import Connection, ConnectionClosed, IpcWriter, Producer, TelemetryStream, draw

ROWS = 50
# The least and the greatest time that a field holds: 0001-01-01 and the end of 9999.
FIRST_TIME, LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999


def _open(ctx: Context, connection: Connection, producer: int, first: int) -> TelemetryStream:
    """A telemetry QUIC stream for the ordinary columns."""
    return connection.open(ctx.stream, producer, ctx.batch(0).schema, first_sequence=first)


async def _gone(ctx: Context, connection: Connection, code: q.ConnectionCode, what: str) -> None:
    """Checks the application code with which a connection ended."""
    closed = await connection.closing()
    ctx.check(closed.application and closed.code == code, f"{what} is {code.name}", closed)
    for bye in (item for item in connection.received if isinstance(item, q.Bye)):
        ctx.check(bye.code == closed.code, "Bye has the code with which the connection ends", bye)


@scenario
async def acks(ctx: Context) -> None:
    """Batches in each compression, many on one QUIC stream, are acknowledged in sequence."""
    async with ctx.session() as connection:
        total = 0
        for compression in (None, "lz4", "zstd", "whole", "compact"):
            producer = draw()
            whole, compact = compression == "whole", compression == "compact"
            telemetry = connection.open(
                ctx.stream,
                producer,
                ctx.batch(0).schema,
                whole=whole,
                compact=compact,
                **({} if compact else {"compression": None if whole else compression}),
            )
            for _ in range(5):
                telemetry.write(ctx.batch(ROWS, total))
                total += ROWS
            await connection.acknowledged(producer, ctx.stream, 4)
            telemetry.write(ctx.batch(ROWS, total))
            total += ROWS
            telemetry.finish(marker=compression is not None)
            await connection.acknowledged(producer, ctx.stream, 5)
            ctx.check(True, f"compression {compression}: all acknowledged")
        unexpected = [item for item in connection.received[1:] if not isinstance(item, q.Ack)]
        ctx.check(not unexpected, "nothing but Acks is sent for good batches", unexpected)
        await ctx.stored(total)


@scenario
async def dictionaries(ctx: Context) -> None:
    """Dictionary columns: new, replaced, extended by deltas, with nulls and any index type."""
    words = ["n0", "n1", "n2"]
    async with ctx.session() as connection:
        total = 0
        for index, options in (
            (pa.int8(), {}),
            (pa.uint16(), {"compression": "zstd"}),
            (pa.int32(), {"compression": "lz4", "emit_dictionary_deltas": True}),
        ):
            producer, telemetry = draw(), None
            for values in (words, words + ["n3"], list(reversed(words)), words + ["n4", "n5"]):
                keys = pa.array([i % len(values) for i in range(ROWS - 1)] + [None], index)
                word = pa.DictionaryArray.from_arrays(keys, pa.array(values))
                batch = ctx.batch(ROWS, total, word=word)
                if telemetry is None:
                    telemetry = connection.open(ctx.stream, producer, batch.schema, **options)
                telemetry.write(batch)
                total += ROWS
            await connection.acknowledged(producer, ctx.stream, 3)
            ctx.check(True, f"dictionary of {index} with {options}: all acknowledged")
        rejects = [item for item in connection.received if isinstance(item, q.Reject)]
        ctx.check(not rejects, "dictionary columns are not rejected", rejects)
        await ctx.stored(total)
        got = await ctx.query("count(word) AS words, count(DISTINCT word) AS different")
        if got is not None:
            numbers = (int(got[0]["words"]), int(got[0]["different"]))
            ctx.check(numbers == (total - 12, 6), "dictionaries hold their words", numbers)


@scenario
async def types(ctx: Context) -> None:
    """All types of section 5 are normalised; rows that do not fit are refused alone."""
    n = 4
    alike = {
        "count_i8": pa.array(range(n), pa.int8()),
        "count_u16": pa.array(range(n), pa.uint16()),
        "count_u64": pa.array([1, 2, 3, (1 << 64) - 1], pa.uint64()),
        "real_f16": pa.array([0.5, 1.5, None, 2.5], pa.float32()).cast(pa.float16()),
        "real_f32": pa.array([0.5, 1.5, None, 2.5], pa.float32()),
        "text_large": pa.array(["a", None, "b", "c"], pa.large_string()),
        "flag": pa.array([True, False, None, True]),
        "nothing": pa.nulls(n),
        "at_us": pa.array([FIRST_TIME, None, LAST_TIME, 0], TS),
        "at_s": pa.array([-7, None, 7, 0], pa.timestamp("s")),
        "at_ns": pa.array([-1, None, 1_999, 0], pa.timestamp("ns", "Europe/Berlin")),
    }
    async with ctx.session() as connection:
        total = 0
        for column in (
            {"ts": pa.array([1_700_000_000 + i for i in range(n)], pa.timestamp("s"))},
            {"ts": pa.array([1_700_000_100_000 + i for i in range(n)], pa.timestamp("ms", "UTC"))},
            {"ts": pa.array([1_700_000_200 * 10**9 + i for i in range(n)], pa.timestamp("ns"))},
            {"temperature": pa.array(range(n), pa.int64())},  # exact as float64
        ):
            producer, batch = draw(), ctx.batch(n, total, **column)
            connection.open(ctx.stream, producer, batch.schema).write(batch)
            await connection.acknowledged(producer, ctx.stream, 0)
            total += n
        refused = 0
        for count, columns in (
            (1, alike),  # the last of count_u64
            (1, {"temperature": pa.array([1, 2, 3, (1 << 53) + 1], pa.int64())}),
            (1, {"ts": pa.array([None] + [1_700_000_300_000_000 + i for i in range(3)], TS)}),
            (1, {"ts": pa.array([-1, 1, 2, 3], TS)}),
            (2, {"at_us": pa.array([FIRST_TIME - 1, None, 5, LAST_TIME + 1], TS)}),
            (1, {"at_s": pa.array([1 << 62, None, 5, 6], pa.timestamp("s"))}),
        ):
            producer, batch = draw(), ctx.batch(n, total, **columns)
            connection.open(ctx.stream, producer, batch.schema).write(batch)
            await connection.acknowledged(producer, ctx.stream, 0)
            total += n
            refused += count
        rejects = [item for item in connection.received if isinstance(item, q.Reject)]
        ctx.check(not rejects, "rows that cannot be stored do not reject their batch", rejects)
        await ctx.stored(total - refused)
        for column, least, greatest in (
            ("at_us", FIRST_TIME, LAST_TIME),
            ("at_s", -7_000_000, 7_000_000),
            ("at_ns", -1, 1),
        ):
            naive = "CAST(arrow_cast({}, 'Timestamp(Microsecond, None)') AS BIGINT) AS {}".format
            least_of, greatest_of = naive(f"min({column})", "least"), naive(f"max({column})", "greatest")
            got = await ctx.query(f"{least_of}, {greatest_of}")
            if got is not None:
                bounds = (int(got[0]["least"]), int(got[0]["greatest"]))
                ctx.check(bounds == (least, greatest), f"{column} is microseconds UTC", bounds)


@scenario
async def largest_batch(ctx: Context) -> None:
    """A batch exactly at the limits of rows and body is acknowledged."""
    limits = q.version_1_limits(ctx.kind)
    rows = limits.batch_rows

    def built(text: int) -> tuple[pa.RecordBatch, int]:
        each, more = divmod(text, rows)
        note = pa.array(["x" * (each + (i < more)) for i in range(rows)], pa.string())
        batch = ctx.batch(rows, note=note)
        return batch, len(list(q.split_ipc(IpcWriter(batch.schema).batch(batch)))[-1].body)

    async with ctx.session() as connection:
        _, overhead = built(0)
        batch, body = built(limits.batch_body_bytes - overhead)
        ctx.require(body == limits.batch_body_bytes, "test: the body has the limit's size", body)
        producer = draw()
        connection.open(ctx.stream, producer, batch.schema).write(batch)
        await connection.acknowledged(producer, ctx.stream, 0, timeout=30)
        rejects = [item for item in connection.received if isinstance(item, q.Reject)]
        ctx.check(not rejects, "a batch at the limits is stored", rejects)


@scenario
async def received_level(ctx: Context) -> None:
    """With ack_level 1 a batch is acknowledged too."""
    async with ctx.session() as connection:
        producer, batch = draw(), ctx.batch(ROWS)
        connection.open(ctx.stream, producer, batch.schema, ack_level=1).write(batch)
        await connection.acknowledged(producer, ctx.stream, 0)
        ctx.check(True, "acknowledged")


@scenario
async def backlog(ctx: Context) -> None:
    """Live data and a replayed backlog of one stream, as two producers side by side."""
    async with ctx.session() as connection:
        live, old = Producer(ctx.stream), Producer(ctx.stream)
        for n in range(20):
            old.add(ctx.batch(ROWS, n * ROWS))
        connection.resume(old, replayed=True)
        live.add(ctx.batch(ROWS, 20 * ROWS))
        connection.resume(live)
        await connection.settled(live)
        await connection.settled(old)
        ctx.check(True, "both are acknowledged")
        await ctx.stored(21 * ROWS)


@scenario
async def resume(ctx: Context) -> None:
    """After a lost connection: last_acks, resume, go on at next_sequence; overlap is discarded."""
    instance, producer = draw(), Producer(ctx.stream)
    sent: list[pa.RecordBatch] = []

    def add(count: int) -> None:
        for _ in range(count):
            sent.append(ctx.batch(ROWS, len(sent) * ROWS))
            producer.add(sent[-1])

    connection = await ctx.dial()
    await connection.hello(instance)
    add(5)
    telemetry = connection.resume(producer)
    await connection.settled(producer)
    add(20)
    for sequence in sorted(producer.unsettled):
        telemetry.write(producer.unsettled[sequence])
    await asyncio.sleep(0.005)
    connection.vanish()
    ctx.check_order(connection)

    add(2)
    async with ctx.session(instance, last_acks=[producer.last_ack()]) as connection:
        assert connection.welcome is not None
        (resumed,) = connection.welcome.resume
        pair = (resumed.producer, resumed.stream)
        ctx.check(pair == (producer.id, ctx.stream), "Resume names the pair", resumed)
        ctx.check(resumed.known, "the server knows the pair", resumed)
        ctx.check(5 <= resumed.next_sequence <= 25, "next_sequence is settled", resumed)
        ctx.check(not resumed.rejects and not resumed.rejects_total, "nothing rejected", resumed)
        ctx.observe("settled before the reconnect", resumed.next_sequence)
        connection.resume(producer).finish()
        await connection.settled(producer)
        await ctx.stored(27 * ROWS)

    overlap = Producer(ctx.stream)
    overlap.id = producer.id
    for batch in sent:
        overlap.add(batch)
    sent.append(ctx.batch(ROWS, len(sent) * ROWS))
    overlap.add(sent[-1])
    async with ctx.session(instance) as connection:
        connection.resume(overlap)  # from 0: all but the last is overlap
        await connection.settled(overlap)
        ctx.check(True, "overlap is acknowledged, and what follows it")
        await ctx.stored(28 * ROWS)

    async with ctx.session(instance, last_acks=[q.LastAck(producer.id, ctx.stream, 28)]) as last:
        assert last.welcome is not None
        (resumed,) = last.welcome.resume
        kept = resumed.known and resumed.next_sequence == 28
        ctx.check(kept, "next_sequence is behind the last acknowledged batch", resumed)


@scenario
async def duplicates(ctx: Context) -> None:
    """The same producer sent twice, in one connection and in another, is stored once."""
    producer, count = draw(), 6
    batches = [ctx.batch(ROWS, n * ROWS) for n in range(count)]
    for connections in range(2):
        async with ctx.session() as connection:
            for turn in range(2):
                since = len(connection.received)
                telemetry = _open(ctx, connection, producer, 0)
                for batch in batches:
                    telemetry.write(batch)
                telemetry.finish()
                await connection.acknowledged(producer, ctx.stream, count - 1, since=since)
                ctx.check(True, f"connection {connections}, time {turn}: acknowledged")
                await ctx.stored(count * ROWS)


@scenario
async def takeover(ctx: Context) -> None:
    """A second connection of one identity and instance replaces the first."""
    instance, producer = draw(), draw()
    batches = [ctx.batch(ROWS, n * ROWS) for n in range(4)]
    first = await ctx.dial()
    welcome = await first.hello(instance)
    telemetry = _open(ctx, first, producer, 0)
    telemetry.write(batches[0])
    await first.acknowledged(producer, ctx.stream, 0)

    last_acks = [q.LastAck(producer, ctx.stream, 1)]
    async with ctx.session(instance, last_acks=last_acks) as second:
        assert second.welcome is not None
        rises = second.welcome.session > welcome.session
        ctx.check(rises, "the session rises with each connection", second.welcome.session)
        await _gone(ctx, first, q.ConnectionCode.REPLACED, "the close of the older connection")
        byes = [item for item in first.received if isinstance(item, q.Bye)]
        ctx.observe("Bye before the close", bool(byes))
        ctx.check_order(first)
        telemetry = _open(ctx, second, producer, second.welcome.resume[0].next_sequence)
        for batch in batches[1:]:
            telemetry.write(batch)
        await second.acknowledged(producer, ctx.stream, 3)
        await ctx.stored(4 * ROWS)
    await first.close()


@scenario
async def instances(ctx: Context) -> None:
    """Different instances live side by side; a producer follows the one that opened it last."""
    producer = draw()
    async with ctx.session() as first, ctx.session() as second:
        telemetry = _open(ctx, first, producer, 0)
        telemetry.write(ctx.batch(ROWS))
        await first.acknowledged(producer, ctx.stream, 0)
        newer = _open(ctx, second, producer, 1)
        newer.write(ctx.batch(ROWS, ROWS))
        await second.acknowledged(producer, ctx.stream, 1)
        await ctx.stream_closed(first, telemetry, q.StreamCode.SUPERSEDED)
        await ctx.alive(first)
        await ctx.alive(second)
        await ctx.stored(2 * ROWS)


@scenario
async def superseded(ctx: Context) -> None:
    """Two live QUIC streams of one producer: the one with the higher id counts."""
    producer = draw()
    async with ctx.session() as connection:
        older = _open(ctx, connection, producer, 0)
        older.write(ctx.batch(ROWS))
        await connection.acknowledged(producer, ctx.stream, 0)
        newer = _open(ctx, connection, producer, 1)
        newer.write(ctx.batch(ROWS, ROWS))
        await connection.acknowledged(producer, ctx.stream, 1)
        await ctx.stream_closed(connection, older, q.StreamCode.SUPERSEDED)
        newer.write(ctx.batch(ROWS, 2 * ROWS))
        await connection.acknowledged(producer, ctx.stream, 2)
        await ctx.stored(3 * ROWS)


@scenario
async def ends_inside_batch(ctx: Context) -> None:
    """A QUIC stream that ends or is reset inside a batch did not send that batch."""
    run = ctx.run
    for how in ("FIN", "RESET_STREAM", "CONNECTION_CLOSE"):
        producer, instance = draw(), draw()
        ctx.run = f"{run}-{how}"
        whole, cut = ctx.batch(ROWS), ctx.batch(ROWS, ROWS)
        connection = await ctx.dial()
        await connection.hello(instance)
        telemetry = _open(ctx, connection, producer, 0)
        telemetry.write(whole)
        await connection.acknowledged(producer, ctx.stream, 0)
        data = telemetry.encode(cut)
        telemetry.send(data[: len(data) // 2])
        if how == "FIN":
            telemetry.finish(marker=False)
        elif how == "RESET_STREAM":
            await asyncio.sleep(0.2)
            telemetry.reset()
        else:
            await asyncio.sleep(0.2)
            await connection.close()
            connection = await ctx.dial()
            await connection.hello(instance, last_acks=[q.LastAck(producer, ctx.stream, 1)])
            assert connection.welcome is not None
            (resumed,) = connection.welcome.resume
            free = resumed.next_sequence == 1 and not resumed.rejects
            ctx.check(free, f"{how}: the sequence stays free", resumed)
        await ctx.silence(connection, q.Reject, f"{how}: no Reject")
        closes = [i for i in connection.received if isinstance(i, q.StreamClosed)]
        ctx.observe(f"StreamClosed after {how}", closes)
        await ctx.stored(ROWS)
        _open(ctx, connection, producer, 1).write(cut)
        await connection.acknowledged(producer, ctx.stream, 1)
        ctx.check(True, f"{how}: the batch is taken when it is sent again, whole")
        await ctx.stored(2 * ROWS)
        await connection.close()
        ctx.check_order(connection)


@scenario
async def reset_and_reopen(ctx: Context) -> None:
    """A client may reset a QUIC stream with unsettled batches, and resend them on another."""
    producer = Producer(ctx.stream)
    for n in range(10):
        producer.add(ctx.batch(ROWS, n * ROWS))
    async with ctx.session() as connection:
        connection.resume(producer).reset()
        newer = connection.resume(producer)
        try:
            await connection.settled(producer)
        except ConnectionClosed as error:
            ctx.check(False, "the connection goes on", error)
            return
        rejects = [i for i in connection.received if isinstance(i, q.Reject)]
        ctx.check(not rejects, "what was reset is not rejected", rejects)
        closes = [i for i in connection.received if isinstance(i, q.StreamClosed)]
        kept = all(i.quic_stream != newer.id for i in closes)
        ctx.check(kept, "the newer QUIC stream goes on", closes)
        await ctx.stored(10 * ROWS)
