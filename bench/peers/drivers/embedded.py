"""Engines inside a process: DuckDB, and ClickHouse as chdb.

Every chunk is one insert that is synced before the next one. Each run is a process of its own, so
that processor time and peak memory are that run's alone; the client is part of them.

    python -m drivers.embedded ENGINE DATA WORK REPETITIONS    one run, for `measure`
"""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .common import Failed, Result, cpu_seconds, directory_bytes, median_ms, peak_bytes
from .data import DIAGNOSTICS, READINGS, DataSet


class DuckDb:
    acknowledged = "synced (commit through its WAL)"

    def __init__(self, work: Path):
        import duckdb
        self.version = duckdb.__version__
        self.work = work
        self.connection = duckdb.connect(str(work / "iot.duckdb"))

    def create(self, data: Path) -> None:
        types = {"status": "BIGINT"}
        for table, fields in (("readings", READINGS), ("diagnostics", DIAGNOSTICS)):
            columns = ", ".join(f"{name} {types.get(name, 'DOUBLE')}" for name in fields)
            self.connection.execute(
                f"CREATE TABLE {table}(time TIMESTAMP, tags_id INTEGER, {columns})")
        self.connection.execute(
            f"CREATE TABLE tags AS SELECT * FROM read_parquet('{data}/tags.parquet')")

    def insert(self, table: str, chunk: Path) -> None:
        self.connection.execute(f"INSERT INTO {table} SELECT * FROM read_parquet('{chunk}')")

    def settle(self) -> int:
        """Brings everything into its final form; its size."""
        self.connection.execute("CHECKPOINT")
        return directory_bytes(self.work)

    def rows(self, sql: str) -> list:
        return self.connection.execute(sql).fetchall()

    bucket = "time_bucket(INTERVAL 1 HOUR, time)"
    latest = "arg_max({0}, time)"


class ClickHouse:
    acknowledged = "synced (fsync_after_insert)"

    def __init__(self, work: Path):
        import chdb
        from chdb import session
        self.version = str(chdb.__version__)
        self.session = session.Session(str(work / "clickhouse"))
        self.session.query("CREATE DATABASE IF NOT EXISTS iot ENGINE=Atomic")
        self.session.query("USE iot")

    def create(self, data: Path) -> None:
        tail = ("ENGINE=MergeTree ORDER BY (tags_id, time) "
                "SETTINGS fsync_after_insert=1, fsync_part_directory=1")
        head = ("time DateTime64(6,'UTC') CODEC(DoubleDelta, ZSTD(1)), "
                "tags_id Int32 CODEC(Delta, ZSTD(1))")
        types = {"status": "Int64"}
        for table, fields in (("readings", READINGS), ("diagnostics", DIAGNOSTICS)):
            columns = ", ".join(f"{name} {types.get(name, 'Float64')} CODEC(ZSTD(1))"
                                for name in fields)
            self.session.query(f"CREATE TABLE iot.{table}({head}, {columns}) {tail}")
        self.session.query(
            "CREATE TABLE iot.tags ENGINE=MergeTree ORDER BY tags_id AS SELECT * "
            f"FROM file('{data}/tags.parquet', Parquet) "
            "SETTINGS schema_inference_make_columns_nullable=0")

    def insert(self, table: str, chunk: Path) -> None:
        self.session.query(f"INSERT INTO iot.{table} SELECT * FROM file('{chunk}', Parquet)")

    def settle(self) -> int:
        for table in ("readings", "diagnostics"):
            self.session.query(f"OPTIMIZE TABLE iot.{table} FINAL")
        return int(self.rows("SELECT sum(bytes_on_disk) FROM system.parts "
                             "WHERE active AND database='iot'")[0][0])

    def rows(self, sql: str) -> list:
        text = self.session.query(sql, "TSV").bytes().decode()
        return [line.split("\t") for line in text.splitlines()]

    bucket = "toStartOfHour(time)"
    latest = "argMax({0}, time)"


ENGINES = {"duckdb": DuckDb, "chdb": ClickHouse}


def queries(engine) -> dict[str, str]:
    """The shared queries in the engine's words."""
    last = ", ".join(engine.latest.format(name) for name in ("latitude", "longitude"))
    return {
        "last_point": f"SELECT tags_id, {last} FROM readings GROUP BY tags_id",
        "hourly_by_fleet": f"SELECT fleet, {engine.bucket} AS hour, avg(velocity) FROM readings "
                           "JOIN tags ON readings.tags_id = tags.tags_id GROUP BY fleet, hour",
        "threshold": "SELECT count(*) FROM readings WHERE velocity > 90",
        "full_scan": "SELECT tags_id, avg(velocity), max(elevation) FROM readings "
                     "GROUP BY tags_id",
    }


def one_run(name: str, data: Path, work: Path, repetitions: int) -> dict:
    """Loads the data; with repetitions, also settles and asks."""
    engine = ENGINES[name](work)
    engine.create(data)
    tables = [(table, chunk) for table in ("readings", "diagnostics")
              for chunk in sorted((data / "chunks").glob(f"{table}_*.parquet"))]
    tables.sort(key=lambda item: item[1].name.rsplit("_", 1)[1])
    cpu, start = cpu_seconds(), time.perf_counter()
    for table, chunk in tables:
        engine.insert(table, chunk)
    out = {"version": engine.version, "acknowledged": engine.acknowledged,
           "seconds": time.perf_counter() - start, "cpu_s": cpu_seconds() - cpu,
           "peak": peak_bytes(), "queries": {}, "answers": {}}
    if repetitions:
        out["bytes"] = engine.settle()
        for query, sql in queries(engine).items():
            def run() -> int:
                rows = engine.rows(sql)
                return int(rows[0][0]) if query == "threshold" else len(rows)
            out["queries"][query], out["answers"][query] = median_ms(run, repetitions)
    return out


def measure(name: str, data: DataSet, work: Path, runs: int, repetitions: int) -> Result:
    """Loads the data into an engine so many times; the last time it is also asked."""
    result = None
    for run in range(runs):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        asked = repetitions if run == runs - 1 else 0
        argv = [sys.executable, "-m", "drivers.embedded", name, str(data.path), str(work),
                str(asked)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False,
                              cwd=Path(__file__).parent.parent)
        if done.returncode:
            raise Failed(f"{name}: {done.stderr[-500:]}")
        got = json.loads(done.stdout.splitlines()[-1])
        result = result or Result(name, got["version"], got["acknowledged"])
        result.points_per_s.append(data.points / got["seconds"])
        result.cpu_s.append(got["cpu_s"])
        result.peak_bytes.append(got["peak"])
        if asked:
            result.bytes_per_point = got["bytes"] / data.points
            result.queries, result.answers = got["queries"], got["answers"]
    shutil.rmtree(work, ignore_errors=True)
    return result


if __name__ == "__main__":
    print(json.dumps(one_run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]),
                             int(sys.argv[4]))))
