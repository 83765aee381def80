"""Loads the same data into Quiver and its peers on this machine, one after the other, and compares.

    cargo xtask peers -- [OPTIONS]      installs the peers under target/peers and runs this

A peer that cannot be measured is named, and the exit code is then 1. Nothing is left behind but
the data set, which the next run uses again.
"""
from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from drivers import brokers, data, embedded, engine, line_protocol, report
from drivers.common import Failed

PEERS = ["quiver", "victoriametrics", "influxdb", "duckdb", "chdb", "quiver-messages", "nats",
         "mosquitto"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True,
                        help="where they are installed: debian/ and venv/")
    parser.add_argument("--quiver", type=Path, required=True, help="the quiver program")
    parser.add_argument("--work", type=Path, required=True,
                        help="directory for data, on the disk that is to be measured")
    parser.add_argument("--only", action="append", choices=PEERS, help="may be repeated")
    parser.add_argument("--trucks", type=int, default=4_000)
    parser.add_argument("--ticks", type=int, default=720)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=5, help="of each query")
    parser.add_argument("--messages", type=int, default=100_000, help="for brokers")
    parser.add_argument("--json", type=Path, help="results, also of every single run")
    parser.add_argument("--page", type=Path, help="Markdown whose tables are to be filled in; not with --only")
    return parser.parse_args()


def measure(name: str, options: argparse.Namespace, iot: data.DataSet):
    work, runs, times = options.work / name, options.runs, options.repetitions
    debian, venv = options.peers / "debian", options.peers / "venv"
    if name == "quiver":
        return engine.measure(options.quiver, iot, work, runs, times)
    if name in line_protocol.PEERS:
        return line_protocol.measure(name, debian, iot, work, runs, times)
    if name in embedded.ENGINES:
        return embedded.measure(name, iot, work, runs, times)
    if name == "quiver-messages":
        return engine.messages(options.quiver, work, runs, options.messages)
    if name == "nats":
        return brokers.nats(venv / "bin/nats-server", work, runs, options.messages)
    return brokers.mosquitto(debian, work, runs, options.messages)


def main() -> int:
    options = arguments()
    for name in ("peers", "quiver", "work"):
        setattr(options, name, getattr(options, name).resolve())
    # A part of the peers makes no table of all of them.
    page = None if options.only else options.page
    if page:
        report.check(page)
    options.work.mkdir(parents=True, exist_ok=True)
    iot = data.make(options.work / "iot", options.trucks, options.ticks)
    results, failures = [], []
    for name in options.only or PEERS:
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            results.append(measure(name, options, iot))
        except Failed as fault:
            failures.append(f"{name}: {fault}")
            shutil.rmtree(options.work / name, ignore_errors=True)
        except Exception as fault:  # one peer's surprise must not cost the others' figures
            failures.append(f"{name}: {type(fault).__name__}: {fault}")
            shutil.rmtree(options.work / name, ignore_errors=True)
    failures += report.disagreements(results)

    size = (f"{iot.points / 1e6:,.1f} million points of {options.trucks:,} trucks; "
            f"medians of {options.runs}.")
    tables = {"peers-ingest": f"{size}\n\n{report.ingest(results, iot)}\n\n"
                              f"{report.notes(results)}".rstrip(),
              "peers-queries": report.queries(results),
              "peers-messages": report.messages(results, options.messages)}
    for table in tables.values():
        print(f"\n{table}")
    if options.json:
        options.json.write_text(json.dumps([result.json() for result in results], indent=1))
    if page:
        report.fill(page, tables)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    print(f"\n{len(results)} measured, {len(failures)} failed", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        sys.exit(f"failed: {failed}")
