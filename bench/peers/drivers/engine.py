"""Quiver itself: the real program, `quiver serve`, loaded by `quiver send` over QUIC.

The devices are enrolled and the digits of each field are declared before anything is measured.
Loaded means that every row is acknowledged, which is when it is durable and visible. Queries go
through the HTTP door, planning included. One more load, of fields that are not declared, is for
its bytes alone.
"""
from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path

from .common import (Failed, Result, Server, cpu_seconds, directory_bytes, exchange, free_port,
                     median_ms)
from .data import DataSet

QUERIES = {
    "last_point": "SELECT device, latitude, longitude FROM last_cache('readings')",
    "hourly_by_fleet": "SELECT fleet, date_bin(INTERVAL '1 hour', ts) AS hour, avg(velocity) "
                       "FROM readings GROUP BY fleet, hour",
    "threshold": "SELECT count(*) AS found FROM readings WHERE velocity > 90",
    "full_scan": "SELECT device, avg(velocity), max(elevation) FROM readings GROUP BY device",
}
# Asked of Quiver only: its time in the server is what counts.
LAST_POINT_OF_FLEET = ("SELECT device, latitude, longitude FROM last_cache('readings') "
                       "WHERE fleet = 'South'")
# Digits after the point that the trucks' sensors have.
DECLARED = {
    "readings": ["fleet=utf8", "latitude=decimal(5)", "longitude=decimal(5)",
                 "elevation=decimal(0)", "velocity=decimal(0)", "heading=decimal(0)",
                 "grade=decimal(0)", "fuel_consumption=decimal(1)"],
    "diagnostics": ["fleet=utf8", "fuel_state=decimal(1)", "current_load=decimal(0)",
                    "status=int64"],
}
STREAMS = list(DECLARED)
# Columns that Quiver adds to every row.
ADDED = ("arrival", "position")


class Engine:
    """A running server and its data directory."""

    def __init__(self, binary: Path, work: Path):
        self.binary, self.directory = binary, work / "data"
        self.http = free_port()
        self.server = Server(
            [binary, "serve", "--data-dir", self.directory, "--quic", "127.0.0.1:0",
             "--http", f"127.0.0.1:{self.http}", "--enroll-unknown", "--log", "warn"],
            work / "log")
        self.server.until(self._is_ready)

    def _is_ready(self) -> bool:
        addresses = self.directory / "server.json"
        if not addresses.exists():
            return False
        if json.loads(addresses.read_text())["pid"] != self.server.pid:
            return False
        return bool(self.sql("SELECT 1 AS one"))

    def ask(self, text: str) -> tuple[list, float]:
        """The rows, and the milliseconds in the server from the text to the first rows."""
        token = (self.directory / "http-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = json.dumps({"sql": text, "format": "json"}).encode()
        answer, timing = exchange(self.http, "POST", "/api/v1/sql", body, headers)
        found = re.search(r"dur=([0-9.]+)", timing.get("Server-Timing", ""))
        return json.loads(answer), float(found[1]) if found else 0.0

    def sql(self, text: str) -> list:
        return self.ask(text)[0]

    def run(self, *words: object) -> None:
        """A verb of the program, for this data directory."""
        verb = [str(word) for word in words]
        done = subprocess.run([self.binary, *verb], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"quiver {' '.join(verb)}: {done.stderr[-500:]}")

    def send(self, stream: str, file: Path) -> None:
        # Over a quick network bytes are cheaper than compressing them well.
        self.run("send", "--data-dir", self.directory, "--compression", "lz4", "--stream", stream, file)

    def declare(self) -> None:
        for stream, fields in DECLARED.items():
            self.run("streams", "declare", "--data-dir", self.directory, stream, *fields)

    def archived(self, added: bool) -> int:
        """Bytes of the archive's columns: those that Quiver adds, or the others."""
        import pyarrow.parquet as pq
        total = 0
        for stream in STREAMS:
            for file in (self.directory / "archive" / stream).rglob("*.parquet"):
                if "_delta_log" in file.parts:
                    continue
                footer = pq.ParquetFile(file).metadata
                for group in range(footer.num_row_groups):
                    for column in range(footer.num_columns):
                        chunk = footer.row_group(group).column(column)
                        if (chunk.path_in_schema in ADDED) == added:
                            total += chunk.total_compressed_size
        return total


def children_cpu() -> float:
    """Processor seconds of this process and of its children that have ended."""
    import resource
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu_seconds() + used.ru_utime + used.ru_stime


def load(engine: Engine, data: DataSet) -> None:
    """Both streams at the same time."""
    faults: list[Exception] = []

    def send(stream: str) -> None:
        try:
            engine.send(stream, data.path / "quiver" / f"{stream}.parquet")
        except Failed as fault:
            faults.append(fault)

    threads = [threading.Thread(target=send, args=(stream,))
               for stream in STREAMS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def settle(engine: Engine, result: Result, data: DataSet) -> None:
    """Merges the files of a stopped engine; bytes per point of all files and of its columns."""
    for stream in STREAMS:
        engine.run("archive", "compact", "--data-dir", engine.directory, stream)
        # At once: nobody reads what was merged.
        engine.run("archive", "vacuum", "--older-than", "0s", "--data-dir", engine.directory,
                   stream)
    archive = engine.directory / "archive"
    stored = sum(directory_bytes(archive / stream) for stream in STREAMS)
    result.bytes_per_point = stored / data.points
    result.notes["fields and ts"] = engine.archived(added=False) / data.points
    result.notes["arrival and position"] = engine.archived(added=True) / data.points


def measure(binary: Path, data: DataSet, work: Path, runs: int, repetitions: int) -> Result:
    """Loads the data so many times; the last time it is also asked."""
    if not binary.exists():
        raise Failed(f"{binary} is missing; build it: cargo build --release")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    version = re.sub(r"^quiver ", "", version.stdout.strip())
    result = Result("quiver", version, "synced, over QUIC")
    plain = Result("quiver", version, "")
    for run in range(-1, runs):
        is_declared = run >= 0
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        engine = Engine(binary, work)
        with engine.server as server:
            engine.send("enrolled", data.path / "quiver" / "enroll.parquet")
            if is_declared:
                engine.declare()
            server.begin()
            own, start = children_cpu(), time.perf_counter()
            load(engine, data)
            if is_declared:
                result.points_per_s.append(data.points / (time.perf_counter() - start))
                result.cpu_s.append(server.cpu())
                result.client_cpu_s.append(children_cpu() - own)
                result.peak_bytes.append(server.peak())
            found = engine.sql("SELECT count(*) AS found FROM readings")[0]["found"]
            if found != data.rows:
                raise Failed(f"quiver holds {found} of {data.rows} readings")
        # A stop flushes everything.
        if not is_declared:
            settle(engine, plain, data)
            result.notes["fields and ts, not declared"] = plain.notes["fields and ts"]
        if run == runs - 1:
            settle(engine, result, data)
            query(engine, result, repetitions)
    shutil.rmtree(work, ignore_errors=True)
    return result


def messages(binary: Path, work: Path, runs: int, messages_of_cpu: int) -> Result:
    """Durable messages: `quiver bench`, whose scenario `messages` is offered more than is taken."""
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    result = Result("quiver", re.sub(r"^quiver ", "", version.stdout.strip()),
                    "synced, over QUIC; what is due within 2 ms goes into one batch")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shown = subprocess.run([binary, "bench", "--scenario", "messages", "--show"],
                           capture_output=True, text=True, check=True).stdout
    scenario, answer = work / "messages.toml", work / "answer.json"
    scenario.write_text(re.sub(r"(?m)^rate = .*", "rate = 250000", shown))
    for _ in range(runs):
        subprocess.run([binary, "bench", "--serve", "--work-dir", work, "--scenario", scenario,
                        "--json", answer], capture_output=True, check=True)
        run = json.loads(answer.read_text())["runs"][0]
        result.messages_per_s.append(run["acked_rows_per_second"])
        result.cpu_s.append(run["server_cpu_per_million"] * messages_of_cpu / 1e6)
        result.peak_bytes.append(run["server_bytes_max"])
        result.bytes_per_message = (run["server"]["archived_bytes"]
                                    / max(run["server"]["archived_rows"], 1))
    shutil.rmtree(work, ignore_errors=True)
    return result


def query(engine: Engine, result: Result, repetitions: int) -> None:
    """Asks an engine that has just been started again."""
    engine = Engine(engine.binary, engine.directory.parent)
    with engine.server:
        for name, text in QUERIES.items():
            def ask() -> int:
                rows = engine.sql(text)
                return rows[0]["found"] if name == "threshold" else len(rows)
            result.queries[name], result.answers[name] = median_ms(ask, repetitions)
        for title, text in (("last point of each truck, ms in the server", QUERIES["last_point"]),
                            ("last point of a fleet, ms in the server", LAST_POINT_OF_FLEET)):
            engine.ask(text)
            taken = [engine.ask(text)[1] for _ in range(max(repetitions, 11))]
            result.notes[title] = statistics.median(taken)
