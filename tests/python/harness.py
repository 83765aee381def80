"""What every scenario uses: the server it talks to, the batches it sends, and its report.

A scenario is an async function registered with :func:`scenario`. It states promises of
docs/protocol.md with `Context.check`, each with the words of the page, and notes with
`Context.observe` what the page leaves open. All of its rows carry one random text in the column
``note``, so that a query can tell what became of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import io
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

import certificates
import quiver_protocol as q
from quiver_client import Connection, Credentials, Stopped, TelemetryStream, dial, draw

Scenario = Callable[["Context"], Awaitable[None]]

#: Every scenario by name.
SCENARIOS: dict[str, Scenario] = {}

TS = pa.timestamp("us", "UTC")


def scenario(run: Scenario) -> Scenario:
    """Registers a scenario under the name of its function."""
    SCENARIOS[run.__name__] = run
    return run


class Skipped(Exception):
    """A scenario that lacks something it was not given on the command line."""


class Failed(Exception):
    """A promise without which the scenario cannot go on."""


@dataclass
class Context:
    """One run of one scenario."""

    arguments: argparse.Namespace
    directory: Path
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    observed: dict[str, Any] = field(default_factory=dict)
    run: str = field(default_factory=lambda: f"run-{draw():016x}")

    def __post_init__(self) -> None:
        a = self.arguments
        self.stream: str = a.stream
        self.credentials = Credentials(a.ca, a.cert, a.key)
        self.kind, self.id = certificates.identity(a.cert)
        #: Device that rows of a gateway or operator are for.
        self.device: str = self.id if self.kind == "device" else a.device

    # ---- verdicts

    def check(self, kept: bool, promise: str, got: Any = None) -> bool:
        """Notes whether a promise of the page was kept."""
        if kept:
            self.passed.append(promise)
        else:
            self.failed.append(promise if got is None else f"{promise}; got {got}")
        return kept

    def require(self, kept: bool, promise: str, got: Any = None) -> None:
        """The same, for what the rest depends on."""
        if not self.check(kept, promise, got):
            raise Failed

    def observe(self, what: str, value: Any) -> None:
        """Notes what the server does where the page promises nothing."""
        self.observed[what] = value if isinstance(value, (int, bool, list)) else str(value)

    # ---- connections

    async def dial(self, credentials: Credentials | None = None, **options: Any) -> Connection:
        """A connection without ``Hello``."""
        host, _, port = self.arguments.server.rpartition(":")
        options.setdefault("server_name", self.arguments.server_name)
        return await dial(host.strip("[]"), int(port), credentials or self.credentials, **options)

    @contextlib.asynccontextmanager
    async def session(self, instance: int | None = None, **hello: Any) -> AsyncIterator[Connection]:
        """A connection after ``Welcome``, closed at the end, its messages checked for order."""
        connection = await self.dial()
        try:
            await connection.hello(instance, **hello)
            yield connection
        finally:
            if not connection.closed.done():
                await connection.close()
            self.check_order(connection)

    def check_order(self, connection: Connection) -> None:
        """What holds for everything that any server sends on any connection."""
        settled: dict[tuple[int, str], int] = {}
        for item in connection.received:
            if isinstance(item, q.Ack):
                pair = (item.producer, item.stream)
                if item.sequence < settled.get(pair, 0):
                    self.failed.append(f"Acks of a pair never go back; got {item}")
                settled[pair] = item.sequence
            elif isinstance(item, q.Reject):
                passed = settled.get((item.producer, item.stream), -1) >= item.sequence
                if passed:
                    self.failed.append(f"a Reject comes before its Ack; got {item}")
        if connection.unexpected:
            self.failed.append(f"the server opens no QUIC streams; got {connection.unexpected}")
        for item in connection.received:
            text = getattr(item, "message", "")
            if len(text.encode()) > q.MAX_MESSAGE_TEXT:
                self.failed.append(f"a message text has at most 512 bytes; got {len(text)}")
            if isinstance(item, (q.Reject, q.StreamClosed)) and not text:
                self.failed.append(f"a refusal says what is wrong and how to mend it; got {item}")

    async def stream_closed(
        self, connection: Connection, telemetry: TelemetryStream, code: q.StreamCode
    ) -> q.StreamClosed:
        """Waits for both halves of the end of a telemetry QUIC stream, and checks their codes."""
        closed = await connection.until(
            lambda i: isinstance(i, q.StreamClosed) and i.quic_stream == telemetry.id
        )
        stop = await connection.until(
            lambda i: isinstance(i, Stopped) and i.quic_stream == telemetry.id
        )
        self.check(closed.code == code, f"StreamClosed says {code.name}", closed)
        self.check(stop.code == closed.code, "STOP_SENDING carries the code of StreamClosed", stop)
        return closed

    async def rejected(
        self, connection: Connection, producer: int, sequence: int, *codes: q.RejectCode
    ) -> q.Reject:
        """Waits for the Reject of a sequence and checks its code."""
        reject = await connection.until(
            lambda i: isinstance(i, q.Reject) and (i.producer, i.sequence) == (producer, sequence)
        )
        names = " or ".join(code.name for code in codes)
        self.check(reject.code in codes, f"batch {sequence} is rejected with {names}", reject)
        self.check(reject.stream == self.stream, "a Reject names its stream", reject)
        return reject

    async def silence(self, connection: Connection, unwanted: type, promise: str) -> None:
        """Gives the server time for a message that it must not send."""
        await asyncio.sleep(self.arguments.patience)
        found = [item for item in connection.received if isinstance(item, unwanted)]
        self.check(not found, promise, found)

    async def alive(self, connection: Connection) -> None:
        """Checks that a connection still takes and acknowledges telemetry."""
        producer = draw()
        batch = self.batch(1, note=pa.array(["alive"]))
        connection.open(self.stream, producer, batch.schema).write(batch)
        try:
            await connection.acknowledged(producer, self.stream, 0)
        except Exception as error:  # whatever it is, the verdict is the same
            self.check(False, "the connection goes on", error)
        else:
            self.check(True, "the connection goes on")

    # ---- rows

    def batch(self, rows: int, start: int = 0, **columns: pa.Array) -> pa.RecordBatch:
        """A batch of this run. ``columns`` replace those of the same name, or are added."""
        base = time.time_ns() // 1_000_000 * 1_000 - 60_000_000
        arrays: dict[str, pa.Array] = {
            "ts": pa.array([base + start + i for i in range(rows)], TS),
            "temperature": pa.array([20.0 + (start + i) / 8 for i in range(rows)], pa.float64()),
            "count": pa.array(range(start, start + rows), pa.int64()),
            "note": pa.array([self.run] * rows, pa.string()),
        }
        if self.kind != "device":
            arrays["device"] = pa.array([self.device] * rows, pa.string())
        arrays.update(columns)
        return pa.RecordBatch.from_pydict(arrays)

    async def query(self, columns: str) -> list[dict[str, str]] | None:
        """Asks the server about the rows of this run, if ``--sql`` says how."""
        if self.arguments.sql is None:
            return None
        statement = f"SELECT {columns} FROM {self.stream} WHERE note = '{self.run}'"
        process = await asyncio.create_subprocess_exec(
            *shlex.split(self.arguments.sql),
            statement,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"query failed: {err.decode().strip()}")
        return list(csv.DictReader(io.StringIO(out.decode())))

    async def stored(self, rows: int) -> None:
        """Checks that exactly so many distinct rows of this run are visible, each once."""
        got = await self.query("count(*) AS n, count(DISTINCT count) AS d")
        if got is not None:
            numbers = (int(got[0]["n"]), int(got[0]["d"]))
            self.check(numbers == (rows, rows), f"{rows} rows are visible, each once", numbers)
