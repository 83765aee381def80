"""Servers that take InfluxDB line protocol over HTTP: VictoriaMetrics and InfluxDB 1.

An answer of VictoriaMetrics says that the rows are in memory: it has no log. It counts as loaded
here when a flush that was asked for after the last batch has ended. InfluxDB syncs its log before
it answers.
"""
from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
from datetime import datetime, timezone
from pathlib import Path

from .common import (Failed, Result, Server, cpu_seconds, directory_bytes, free_port,
                     line_bodies, median_ms, post_all, request)
from .data import DataSet

CONNECTIONS = 4
LINES = 10_000  # of one request: what both document as a good size


class VictoriaMetrics:
    name = "victoriametrics"
    binary = "usr/bin/victoria-metrics"
    acknowledged = "in memory; loaded when a forced flush has ended"
    write = "/write"

    def __init__(self, binary: Path, work: Path, data: DataSet):
        self.work, self.data, self.port = work, data, free_port()
        self.server = Server(
            [binary, f"-storageDataPath={work}/data", f"-httpListenAddr=127.0.0.1:{self.port}",
             "-retentionPeriod=100y", "-search.maxQueryDuration=300s",
             "-search.latencyOffset=0s", "-search.maxStalenessInterval=1h",
             "-loggerLevel=ERROR"], work / "log")
        self.server.until(lambda: bool(request(self.port, "GET", "/health")))

    @staticmethod
    def version(binary: Path) -> str:
        return debian_version(binary, "victoria-metrics")

    def loaded(self) -> None:
        request(self.port, "GET", "/internal/force_flush")

    def settle(self) -> int:
        request(self.port, "GET", "/internal/force_merge")
        return settled_bytes(self.work / "data")

    def queries(self) -> dict:
        span, at = self.data.end - self.data.start, self.data.end - 1

        def get(path: str, parameters: dict) -> list:
            path = path + "?" + urllib.parse.urlencode({**parameters, "nocache": 1})
            return json.loads(request(self.port, "GET", path))["data"]["result"]

        def instant(query: str) -> list:
            return get("/api/v1/query", {"query": query, "time": at})

        def hourly() -> int:
            series = get("/api/v1/query_range", {
                "query": "avg by (fleet) (avg_over_time(readings_velocity[1h]))",
                "start": self.data.start + 3599, "end": max(at, self.data.start + 3599),
                "step": 3600})
            return sum(len(one["values"]) for one in series)

        last = f'last_over_time({{__name__=~"readings_latitude|readings_longitude"}}[{span}s])'
        above = f"sum(count_gt_over_time(readings_velocity[{span}s], 90))"
        scan = (f"label_set(avg_over_time(readings_velocity[{span}s]), 'f', 'avg') or "
                f"label_set(max_over_time(readings_elevation[{span}s]), 'f', 'max')")
        return {
            "last_point": lambda: len(instant(last)) // 2,
            "hourly_by_fleet": hourly,
            "threshold": lambda: int(float(instant(above)[0]["value"][1])),
            "full_scan": lambda: len(instant(scan)) // 2,
        }


INFLUX = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{dir}/meta"
[data]
  dir = "{dir}/data"
  wal-dir = "{dir}/wal"
  index-version = "tsi1"
  cache-max-memory-size = "4g"
  compact-full-write-cold-duration = "5s"
  cache-snapshot-write-cold-duration = "5s"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  max-body-size = 0
  max-row-limit = 0
[logging]
  level = "error"
"""


class InfluxDb:
    name = "influxdb"
    binary = "usr/bin/influxd"
    acknowledged = "synced (its WAL)"
    write = "/write?db=iot"

    def __init__(self, binary: Path, work: Path, data: DataSet):
        self.work, self.data, self.port = work, data, free_port()
        settings = work / "influxdb.conf"
        settings.write_text(INFLUX.format(dir=work, port=self.port, rpc=free_port()))
        self.server = Server([binary, "-config", settings], work / "log",
                             {"HOME": str(work)})
        self.server.until(lambda: request(self.port, "GET", "/ping") is not None)
        query = urllib.parse.quote("CREATE DATABASE iot")
        request(self.port, "POST", f"/query?q={query}")

    @staticmethod
    def version(binary: Path) -> str:
        return debian_version(binary, "influxdb")

    def loaded(self) -> None:
        """What is acknowledged is durable."""

    def settle(self) -> int:
        return settled_bytes(self.work / "data", lambda: directory_bytes(self.work / "wal"))

    def queries(self) -> dict:
        def moment(seconds: int) -> str:
            return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

        def series(text: str) -> list:
            path = "/query?epoch=s&db=iot&q=" + urllib.parse.quote(text)
            results = json.loads(request(self.port, "GET", path))["results"]
            for one in results:
                if "error" in one:
                    raise Failed(f"influxdb: {text}: {one['error']}")
            return [part for one in results for part in one.get("series", [])]

        def values(text: str) -> int:
            return sum(len(part["values"]) for part in series(text))

        span = (f"time >= '{moment(self.data.start)}' AND time < '{moment(self.data.end)}'")
        return {
            "last_point": lambda: values('SELECT last(latitude), last(longitude) FROM readings '
                                         'GROUP BY "name"'),
            "hourly_by_fleet": lambda: values(f"SELECT mean(velocity) FROM readings WHERE {span} "
                                              "GROUP BY time(1h), fleet"),
            "threshold": lambda: series("SELECT count(velocity) FROM readings "
                                        "WHERE velocity > 90")[0]["values"][0][1],
            "full_scan": lambda: values('SELECT mean(velocity), max(elevation) FROM readings '
                                        'GROUP BY "name"'),
        }


PEERS = {peer.name: peer for peer in (VictoriaMetrics, InfluxDb)}


def debian_version(binary: Path, package: str) -> str:
    """The version of the package that a program was unpacked from."""
    stamp = next((parent / "versions.txt" for parent in binary.parents
                  if (parent / "versions.txt").exists()), None)
    for line in stamp.read_text().splitlines() if stamp else []:
        name, _, version = line.partition(" ")
        if name == package:
            return version
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package],
                          capture_output=True, text=True, check=False)
    return done.stdout or "unknown"


def settled_bytes(path: Path, besides=lambda: 0, longest: float = 150) -> int:
    """The size of a directory once it has not changed for some seconds."""
    before, same, end = -1, 0, time.monotonic() + longest
    while same < 5 and time.monotonic() < end:
        time.sleep(2)
        size = directory_bytes(path)
        same = same + 1 if size == before and besides() < 1 << 20 else 0
        before = size
    return before


def measure(name: str, debian: Path, data: DataSet, work: Path, runs: int,
            repetitions: int) -> Result:
    """Loads the data into a server so many times; the last time it is also asked."""
    kind = PEERS[name]
    binary = debian / kind.binary
    if not binary.exists():
        raise Failed(f"{name} is not installed ({binary} is missing); run `cargo xtask peers`")
    result = Result(name, kind.version(binary), kind.acknowledged)
    for run in range(runs):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        peer = kind(binary, work, data)
        with peer.server as server:
            server.begin()
            own, start = cpu_seconds(), time.perf_counter()
            post_all(peer.port, kind.write, line_bodies(data.path / "iot.lp", LINES),
                     CONNECTIONS)
            peer.loaded()
            result.points_per_s.append(data.points / (time.perf_counter() - start))
            result.cpu_s.append(server.cpu())
            result.client_cpu_s.append(cpu_seconds() - own)
            result.peak_bytes.append(server.peak())
            if run == runs - 1:
                result.bytes_per_point = peer.settle() / data.points
                for query, ask in peer.queries().items():
                    result.queries[query], result.answers[query] = median_ms(ask, repetitions)
    shutil.rmtree(work, ignore_errors=True)
    return result
