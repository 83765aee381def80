"""The iot data set: trucks in the shape of the TSBS 'iot' use case, the same from the same seed.

Every truck has a row of readings (7 floats) and one of diagnostics (2 floats, 1 integer) at every
tick: ten points. Written once, in the form each peer takes:

    chunks/readings_0000.parquet …   for embedded engines, with a table of tags
    iot.lp                           InfluxDB line protocol
    quiver/readings.parquet …        with device and fleet in the rows
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FLEETS = ["East", "West", "North", "South"]
MODELS = ["F-150", "G-2000", "H-2"]
READINGS = ["latitude", "longitude", "elevation", "velocity", "heading", "grade",
            "fuel_consumption"]
DIAGNOSTICS = ["fuel_state", "current_load", "status"]
START = 1_767_225_600  # 2026-01-01
INTERVAL = 10
CHUNK_TICKS = 24
POINTS_PER_TRUCK = len(READINGS) + len(DIAGNOSTICS)
VERSION = 1


@dataclass(frozen=True)
class DataSet:
    """Where it is, and how large."""

    path: Path
    trucks: int
    ticks: int

    @property
    def points(self) -> int:
        return POINTS_PER_TRUCK * self.trucks * self.ticks

    @property
    def rows(self) -> int:
        return self.trucks * self.ticks

    @property
    def start(self) -> int:
        return START

    @property
    def end(self) -> int:
        return START + self.ticks * INTERVAL

    @property
    def hours(self) -> int:
        return -(-self.ticks * INTERVAL // 3600)


class Fleet:
    """State of every truck, advanced a tick at a time."""

    def __init__(self, trucks: int, seed: int):
        import numpy as np
        self.np, self.trucks = np, trucks
        self.random = draw = np.random.Generator(np.random.PCG64(seed))
        self.fleet = draw.integers(0, len(FLEETS), trucks)
        self.model = draw.integers(0, len(MODELS), trucks)
        self.walks = {  # value, step, least, greatest
            "latitude": [draw.random(trucks) * 90, 0.005, -90, 90],
            "longitude": [draw.random(trucks) * 180, 0.005, -180, 180],
            "elevation": [draw.random(trucks) * 500, 10, 0, 5000],
            "velocity": [np.zeros(trucks), 10, 0, 100],
            "heading": [draw.random(trucks) * 360, 5, 0, 360],
            "grade": [np.zeros(trucks), 5, 0, 100],
            "fuel_consumption": [np.full(trucks, 25.0), 5, 0, 50],
        }
        self.fuel = np.ones(trucks)
        self.load = draw.random(trucks) * 5000
        self.status = np.zeros(trucks)

    def tick(self) -> None:
        np, draw, count = self.np, self.random, self.trucks
        for walk in self.walks.values():
            value, step, least, greatest = walk
            walk[0] = np.clip(value + (draw.random(count) * 2 - 1) * step, least, greatest)
        fuel = self.fuel - draw.random(count) * 0.001
        self.fuel = np.where(fuel <= 0, 1.0, fuel)
        changed = draw.random(count) < 0.05
        self.load = np.where(changed, draw.random(count) * 5000, self.load)
        self.status = np.clip(self.status + draw.standard_normal(count), 0, 5)

    def readings(self) -> list:
        digits = {"latitude": 5, "longitude": 5, "fuel_consumption": 1}
        return [self.np.round(self.walks[name][0], digits.get(name, 0)) for name in READINGS]

    def diagnostics(self) -> list:
        np = self.np
        return [np.round(self.fuel, 1), np.round(self.load), self.status.astype(np.int64)]


def make(path: Path, trucks: int, ticks: int, seed: int = 123) -> DataSet:
    """The data set in this directory, written unless it is there."""
    wanted = {"version": VERSION, "trucks": trucks, "ticks": ticks, "seed": seed}
    done = path / "done.json"
    if not (done.exists() and json.loads(done.read_text()) == wanted):
        _write(path, trucks, ticks, seed)
        done.write_text(json.dumps(wanted))
    return DataSet(path, trucks, ticks)


def _write(path: Path, trucks: int, ticks: int, seed: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for folder in ("chunks", "quiver"):
        (path / folder).mkdir(parents=True, exist_ok=True)
        for old in (path / folder).iterdir():
            old.unlink()
    fleet = Fleet(trucks, seed)
    ids = np.arange(trucks, dtype=np.int32)
    names = pa.array([f"truck_{number:05}" for number in ids])
    fleets = pa.array([FLEETS[number] for number in fleet.fleet])
    models = pa.array([MODELS[number] for number in fleet.model])
    tags = pa.table({"tags_id": ids, "name": names, "fleet": fleets, "model": models})
    pq.write_table(tags, path / "tags.parquet")

    labels = [f"name={name},fleet={owner},model={model}" for name, owner, model
              in zip(names.to_pylist(), fleets.to_pylist(), models.to_pylist())]
    forms = {
        "readings": ("readings,%s latitude=%.5f,longitude=%.5f,elevation=%.0f,velocity=%.0f,"
                     "heading=%.0f,grade=%.0f,fuel_consumption=%.1f {}000000000\n"),
        "diagnostics": ("diagnostics,%s fuel_state=%.1f,current_load=%.0f,status=%di "
                        "{}000000000\n"),
    }
    fields = {"readings": READINGS, "diagnostics": DIAGNOSTICS}
    writers: dict[str, pq.ParquetWriter] = {}
    waiting: dict[str, list] = {"readings": [], "diagnostics": []}

    def write_chunk(number: int) -> None:
        for table, ticks_of in waiting.items():
            count = len(ticks_of)
            if not count:
                continue
            seconds = np.repeat([second for second, _ in ticks_of], trucks)
            time = pa.array(seconds.astype("datetime64[s]")).cast(pa.timestamp("us"))
            values = {name: pa.array(np.concatenate([columns[at] for _, columns in ticks_of]))
                      for at, name in enumerate(fields[table])}
            pq.write_table(pa.table({"time": time, "tags_id": np.tile(ids, count), **values}),
                           path / "chunks" / f"{table}_{number:04}.parquet", compression="zstd")
            rows = pa.table({
                "ts": time.cast(pa.timestamp("us", tz="UTC")),
                "device": pa.concat_arrays([names] * count),
                "fleet": pa.concat_arrays([fleets] * count),
                **values})
            if table not in writers:
                writers[table] = pq.ParquetWriter(path / "quiver" / f"{table}.parquet",
                                                  rows.schema, compression="zstd")
            writers[table].write_table(rows)
            ticks_of.clear()

    with open(path / "iot.lp", "w", encoding="ascii", buffering=1 << 22) as lines:
        for tick in range(ticks):
            fleet.tick()
            second = START + tick * INTERVAL
            for table, columns in (("readings", fleet.readings()),
                                   ("diagnostics", fleet.diagnostics())):
                waiting[table].append((second, columns))
                form = forms[table].format(second)
                lines.writelines(form % row for row in
                                 zip(labels, *[column.tolist() for column in columns]))
            if (tick + 1) % CHUNK_TICKS == 0:
                write_chunk(tick // CHUNK_TICKS)
        write_chunk(ticks // CHUNK_TICKS + 1)
    for writer in writers.values():
        writer.close()
    # A row of each truck in a stream of its own: enrolls them before anything is measured.
    first = pa.table({"ts": pa.array([START * 1_000_000] * trucks,
                                     pa.timestamp("us", tz="UTC")),
                      "device": names, "known": pa.array([1.0] * trucks)})
    pq.write_table(first, path / "quiver" / "enroll.parquet")
