"""Quiver itself: the real program, `quiver serve`, loaded by `quiver send` over QUIC.

The devices are enrolled before anything is measured. Loaded means that every row is acknowledged,
which is when it is durable and visible. Queries go through the HTTP door, planning included.
"""
from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

from .common import (Failed, Result, Server, cpu_seconds, directory_bytes, free_port, median_ms,
                     request)
from .data import DataSet

QUERIES = {
    "last_point": "SELECT device, latitude, longitude FROM last_cache('readings')",
    "hourly_by_fleet": "SELECT fleet, date_bin(INTERVAL '1 hour', ts) AS hour, avg(velocity) "
                       "FROM readings GROUP BY fleet, hour",
    "threshold": "SELECT count(*) AS found FROM readings WHERE velocity > 90",
    "full_scan": "SELECT device, avg(velocity), max(elevation) FROM readings GROUP BY device",
}


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

    def sql(self, text: str) -> list:
        token = (self.directory / "http-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = json.dumps({"sql": text, "format": "json"}).encode()
        return json.loads(request(self.http, "POST", "/api/v1/sql", body, headers))

    def send(self, stream: str, file: Path) -> None:
        done = subprocess.run(
            [self.binary, "send", "--data-dir", self.directory, "--stream", stream, file],
            capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"quiver send {file.name}: {done.stderr[-500:]}")


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
               for stream in ("readings", "diagnostics")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def measure(binary: Path, data: DataSet, work: Path, runs: int, repetitions: int) -> Result:
    """Loads the data so many times; the last time it is also asked."""
    if not binary.exists():
        raise Failed(f"{binary} is missing; build it: cargo build --release")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    version = re.sub(r"^quiver ", "", version.stdout.strip())
    result = Result("quiver", version, "synced, over QUIC")
    for run in range(runs):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        engine = Engine(binary, work)
        with engine.server as server:
            engine.send("enrolled", data.path / "quiver" / "enroll.parquet")
            server.begin()
            own, start = children_cpu(), time.perf_counter()
            load(engine, data)
            result.points_per_s.append(data.points / (time.perf_counter() - start))
            result.cpu_s.append(server.cpu())
            result.client_cpu_s.append(children_cpu() - own)
            result.peak_bytes.append(server.peak())
            found = engine.sql("SELECT count(*) AS found FROM readings")[0]["found"]
            if found != data.rows:
                raise Failed(f"quiver holds {found} of {data.rows} readings")
        # A stop flushes everything.
        if run == runs - 1:
            archive = engine.directory / "archive"
            stored = sum(directory_bytes(archive / stream)
                         for stream in ("readings", "diagnostics"))
            result.bytes_per_point = stored / data.points
            engine = Engine(binary, work)
            with engine.server:
                for name, text in QUERIES.items():
                    def ask() -> int:
                        rows = engine.sql(text)
                        return rows[0]["found"] if name == "threshold" else len(rows)
                    result.queries[name], result.answers[name] = median_ms(ask, repetitions)
    shutil.rmtree(work, ignore_errors=True)
    return result
