"""Scenarios of section 9: what wrong doing gets as an answer."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

import certificates
import quiver_protocol as q
from harness import Context, Skipped, scenario
from quiver_client import (
    Closed,
    Connection,
    ConnectionClosed,
    Credentials,
    IpcWriter,
    draw,
)
from quiver_protocol import CryptoError, RejectCode, StreamCode

ROWS = 10


async def _attempt(ctx: Context, credentials: Credentials, **options: object) -> Closed:
    """How the server ends a connection that says Hello with these credentials."""
    try:
        connection = await ctx.dial(credentials, **options)
    except ConnectionClosed as error:
        return error.closed
    ctx.observe("client's handshake completed", True)
    try:
        await connection.hello()
    except ConnectionClosed as error:
        return error.closed
    except TimeoutError:
        connection.vanish()
        return Closed(-1, False, "nothing happened")
    await connection.close()
    return Closed(-1, False, "the server said Welcome")


def _handshake_fails(ctx: Context, closed: Closed, what: str, *codes: CryptoError | int) -> None:
    kept = not closed.application and closed.code in codes
    names = " or ".join(f"{code:#06x}" for code in codes)
    ctx.check(kept, f"{what}: CRYPTO_ERROR {names}", closed)


@scenario
async def wrong_alpn(ctx: Context) -> None:
    """A wrong ALPN, or none, fails the handshake."""
    for alpn in ("quiver/2", "h3", None):
        closed = await _attempt(ctx, ctx.credentials, alpn=alpn)
        _handshake_fails(ctx, closed, f"ALPN {alpn}", CryptoError.NO_APPLICATION_PROTOCOL)
    async with ctx.session() as connection:
        await ctx.alive(connection)


@scenario
async def no_certificate(ctx: Context) -> None:
    """No client certificate: refused, in TLS or, where tokens are allowed, as UNAUTHENTICATED."""
    closed = await _attempt(ctx, Credentials(ctx.credentials.authority))
    if closed.application:
        kept = closed.code == q.ConnectionCode.UNAUTHENTICATED
        ctx.check(kept, "where tokens are allowed: UNAUTHENTICATED", closed)
    else:
        _handshake_fails(ctx, closed, "no certificate", CryptoError.CERTIFICATE_REQUIRED)


@scenario
async def wrong_authority(ctx: Context) -> None:
    """A certificate of another authority, or of nobody, fails the handshake."""
    uri = f"urn:quiver:{ctx.kind}:{ctx.id}"
    ca = ctx.credentials.authority
    if ctx.arguments.foreign_cert:
        given = Credentials(ca, ctx.arguments.foreign_cert, ctx.arguments.foreign_key)
        closed = await _attempt(ctx, given)
        _handshake_fails(ctx, closed, "the certificate given", CryptoError.UNKNOWN_CA)
    stranger = certificates.Authority.make()
    forged = stranger.issue(ctx.directory, ca, [uri], name="foreign")
    closed = await _attempt(ctx, forged)
    _handshake_fails(ctx, closed, "another authority", CryptoError.UNKNOWN_CA)

    real = x509.load_pem_x509_certificates(Path(ca).read_bytes())[0]
    impostor = certificates.Authority.make(real.subject)
    closed = await _attempt(ctx, impostor.issue(ctx.directory, ca, [uri], name="impostor"))
    _handshake_fails(ctx, closed, "another authority of the same name", CryptoError.UNKNOWN_CA, 0x133)

    closed = await _attempt(ctx, certificates.self_signed(ctx.directory, ca, uri))
    _handshake_fails(ctx, closed, "self-signed", CryptoError.UNKNOWN_CA, 0x12A)
    async with ctx.session() as connection:
        await ctx.alive(connection)


@scenario
async def expired_certificate(ctx: Context) -> None:
    """An expired certificate fails the handshake."""
    if ctx.arguments.expired_cert:
        given = Credentials(
            ctx.credentials.authority, ctx.arguments.expired_cert, ctx.arguments.expired_key
        )
    else:
        uri = f"urn:quiver:{ctx.kind}:{ctx.id}"
        ca = ctx.credentials.authority
        given = _authority(ctx).issue(ctx.directory, ca, [uri], name="expired", expired=True)
    closed = await _attempt(ctx, given)
    _handshake_fails(ctx, closed, "expired", CryptoError.CERTIFICATE_EXPIRED)


@scenario
async def certificate_names(ctx: Context) -> None:
    """A genuine certificate without exactly one good SAN URI, or of an unknown device."""
    authority, ca = _authority(ctx), ctx.credentials.authority
    uri = f"urn:quiver:{ctx.kind}:{ctx.id}"
    for n, (what, uris) in enumerate(
        {
            "no SAN, the id as common name": [],
            "two URIs": [uri, f"urn:quiver:device:{ctx.id}2"],
            "another kind of URI": ["https://example.com/"],
            "an unknown kind of sender": [f"urn:quiver:admin:{ctx.id}"],
            "an id with a space": ["urn:quiver:device:a b"],
            "an id that begins with a dot": ["urn:quiver:device:.a"],
            "an empty id": ["urn:quiver:device:"],
            "an id of 129 characters": ["urn:quiver:device:" + "a" * 129],
        }.items()
    ):
        name = ctx.id.replace("/", "_") if n == 0 else f"name-{n}"
        closed = await _attempt(ctx, authority.issue(ctx.directory, ca, uris, name=name))
        kept = closed.application and closed.code == q.ConnectionCode.UNAUTHENTICATED
        ctx.check(kept, f"{what}: UNAUTHENTICATED", closed)
    stranger = [f"urn:quiver:device:never-enrolled-{draw():x}"]
    closed = await _attempt(ctx, authority.issue(ctx.directory, ca, stranger, name="stranger"))
    kept = closed.application and closed.code == q.ConnectionCode.NOT_ENROLLED
    ctx.check(kept, "a device that is not enrolled: NOT_ENROLLED", closed)
    server = authority.issue(
        ctx.directory, ca, [uri], name="usage", usage=ExtendedKeyUsageOID.SERVER_AUTH
    )
    closed = await _attempt(ctx, server)
    ctx.check(closed.code != -1, "a certificate without clientAuth is refused", closed)
    ctx.observe("extended key usage serverAuth alone", closed)


@scenario
async def revoked_certificate(ctx: Context) -> None:
    """A revoked credential is refused with REVOKED."""
    if not ctx.arguments.revoked_cert:
        raise Skipped("needs --revoked-cert and --revoked-key")
    given = Credentials(
        ctx.credentials.authority, ctx.arguments.revoked_cert, ctx.arguments.revoked_key
    )
    closed = await _attempt(ctx, given)
    kept = closed.application and closed.code == q.ConnectionCode.REVOKED
    ctx.check(kept, "REVOKED", closed)


@scenario
async def forged_device(ctx: Context) -> None:
    """A device's own device column is ignored; its rows are stored under its identity."""
    if ctx.kind != "device":
        raise Skipped("needs the certificate of a device")
    async with ctx.session() as connection:
        producer = draw()
        names = pa.array(["someone_else"] * ROWS)
        for n, column in enumerate((names, names.dictionary_encode(), pa.array([7] * ROWS))):
            batch = ctx.batch(ROWS, n * ROWS, device=column)
            connection.open(ctx.stream, producer, batch.schema, first_sequence=n).write(batch)
            if n < 2:
                await connection.acknowledged(producer, ctx.stream, n)
            else:
                item = await connection.until(
                    lambda i: isinstance(i, (q.Ack, q.Reject)) and i.sequence == 2
                )
                ctx.observe("a device column of int64", item)
        rejects = [i for i in connection.received if isinstance(i, q.Reject) and i.sequence < 2]
        ctx.check(not rejects, "the batches are not rejected", rejects)
        got = await ctx.query("min(device) AS a, max(device) AS b, count(*) AS n")
        if got is not None:
            identity = (got[0]["a"], got[0]["b"]) == (ctx.id, ctx.id)
            ctx.check(identity, "stored under the identity of the connection", got)
            ctx.check(int(got[0]["n"]) >= 2 * ROWS, "all rows are stored", got)


@scenario
async def oversized_frame(ctx: Context) -> None:
    """An announced body or metadata over the limit: Reject, StreamClosed TOO_LARGE, no waiting."""
    limits = q.version_1_limits(ctx.kind)
    writer = IpcWriter(ctx.batch(0).schema)
    _, batch = q.split_ipc(writer.batch(ctx.batch(ROWS)))
    over, run = limits.batch_body_bytes, ctx.run
    for what, data in {
        "a body 8 bytes over": q.IpcMessage(batch.announcing(over + 8).metadata, b"").to_bytes(),
        "a body of 2^62": q.IpcMessage(batch.announcing(1 << 62).metadata, b"").to_bytes(),
        "metadata 8 bytes over": q.CONTINUATION + struct.pack("<i", limits.ipc_metadata_bytes + 8),
        "metadata of 2 GiB": q.CONTINUATION + struct.pack("<i", 0x7FFFFFF8),
    }.items():
        ctx.run = f"{run}-{what}"
        async with ctx.session() as connection:
            producer = draw()
            telemetry = connection.open(ctx.stream, producer, ctx.batch(0).schema)
            telemetry.write(ctx.batch(ROWS))
            telemetry.send(data)  # and nothing of what it announces
            await ctx.rejected(connection, producer, 1, RejectCode.BATCH_TOO_LARGE)
            closed = await ctx.stream_closed(connection, telemetry, StreamCode.TOO_LARGE)
            ctx.check(closed.next_sequence == 2, f"{what}: next_sequence is behind it", closed)
            kinds = [type(i) for i in connection.received]
            order = kinds.index(q.Reject) < kinds.index(q.StreamClosed)
            ctx.check(order, f"{what}: Reject, then StreamClosed", kinds)
            again = connection.open(ctx.stream, producer, ctx.batch(0).schema, first_sequence=2)
            again.write(ctx.batch(ROWS, ROWS))
            await connection.acknowledged(producer, ctx.stream, 2)
            await ctx.stored(2 * ROWS)


@scenario
async def oversized_control(ctx: Context) -> None:
    """A control message over 65,536 bytes closes the connection on its length alone."""
    over = q.encode_varint(q.MAX_CONTROL_MESSAGE + 1)

    async def refused(connection: Connection, when: str) -> None:
        closed = await connection.closing()
        kept = closed.application and closed.code == q.ConnectionCode.PROTOCOL_VIOLATION
        ctx.check(kept, f"{when}: PROTOCOL_VIOLATION", closed)
        await connection.close()

    for length in (over, q.encode_varint((1 << 64) - 1), b"\xff" * 11):
        connection = await ctx.dial()
        connection.send_control(length)
        await refused(connection, f"instead of Hello, {length.hex()}")
    connection = await ctx.dial()
    await connection.hello()
    connection.send_control(over)
    await refused(connection, "after Welcome")

    async with ctx.session() as connection:  # exactly the limit, of a later version
        body = b"\x7a" + q.encode_varint(65_536 - 4) + bytes(65_536 - 4)
        ctx.require(len(body) == q.MAX_CONTROL_MESSAGE, "test: the message has the limit's size")
        connection.send_control(q.encode_varint(len(body)) + body)
        await ctx.alive(connection)


@scenario
async def too_many_last_acks(ctx: Context) -> None:
    """256 pairs in Hello are resumed; what happens beyond is noted."""
    pairs = [q.LastAck(draw(), ctx.stream, 0) for _ in range(q.MAX_LAST_ACKS)]
    async with ctx.session(last_acks=pairs) as connection:
        assert connection.welcome is not None
        got = [r.producer for r in connection.welcome.resume]
        ctx.check(got == [a.producer for a in pairs], "256 pairs, each answered", len(got))
    for what, last_acks in {
        "257 pairs": [*pairs, q.LastAck(draw(), ctx.stream, 0)],
        "a pair twice": [pairs[0], pairs[0]],
        "an invalid stream name": [q.LastAck(1, "Bad-Name", 0)],
    }.items():
        connection = await ctx.dial()
        try:
            welcome = await connection.hello(last_acks=last_acks)
            ctx.observe(what, f"Welcome with {len(welcome.resume)} resumes")
        except ConnectionClosed as error:
            ctx.observe(what, error.closed)
        await connection.close()


@scenario
async def bombs(ctx: Context) -> None:
    """Decompression bombs and forged lengths are rejected; their QUIC stream goes on."""
    rows = 65_536
    zeros = pa.array([0.0] * rows)
    wide = {f"bomb_{n}": zeros for n in range(30)}  # 16.5 MiB with the others
    for compression in ("lz4", "zstd"):
        async with ctx.session() as connection:
            producer = draw()
            batch = ctx.batch(ROWS, note=pa.array(["bomb"] * ROWS))
            telemetry = connection.open(ctx.stream, producer, batch.schema, compression=compression)
            forged = {1: 1 << 40, 3: (1 << 63) - 1, 5: 8 * ROWS - 8, 7: 8 * ROWS + 8, 9: -2}
            for n in range(11):
                *before, last = q.split_ipc(telemetry.encode(batch))
                if n in forged:
                    body = struct.pack("<q", forged[n]) + last.body[8:]
                    last = q.IpcMessage(last.metadata, body)
                telemetry.send(b"".join(m.to_bytes() for m in [*before, last]))
            for n in forged:
                await ctx.rejected(
                    connection,
                    producer,
                    n,
                    RejectCode.BATCH_TOO_LARGE,
                    RejectCode.MALFORMED_BATCH,
                )
            await connection.acknowledged(producer, ctx.stream, 10)
            bomb = ctx.batch(rows, note=pa.array([""] * rows), **wide)
            producer = draw()
            telemetry = connection.open(ctx.stream, producer, bomb.schema, compression=compression)
            telemetry.write(bomb)
            await ctx.rejected(connection, producer, 0, RejectCode.BATCH_TOO_LARGE)
            telemetry.write(ctx.batch(1, **{name: zeros[:1] for name in wide}).slice(0, 0))
            await connection.acknowledged(producer, ctx.stream, 1)
            closes = [i for i in connection.received if isinstance(i, q.StreamClosed)]
            ctx.check(not closes, f"{compression}: the QUIC streams go on", closes)


def _authority(ctx: Context) -> certificates.Authority:
    """The server's authority, which needs its key."""
    if not ctx.arguments.ca_key:
        raise Skipped("needs --ca-key to make the certificate")
    return certificates.Authority.load(ctx.credentials.authority, ctx.arguments.ca_key)
