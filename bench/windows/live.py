"""What a graph costs an engine that runs, and how long it takes to remember after a kill.

    recovery: NODES windows over DEVICES devices --> state kept on disk --> kill -9 --> start
              --> seconds until the graph goes on
    ingest:   one scenario, flat out, without and with a graph, in turns --> ratios

Needs a release build of the engine, and nothing beside Python:

    python3 bench/windows/live.py recovery --devices 100000 --nodes 100
    python3 bench/windows/live.py ingest --scenario few-large --graph GRAPH.toml --rounds 5
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 1_800
FIELDS = 10


class Engine:
    """A process of `quiver serve` on a data directory."""

    def __init__(self, program: Path, data: Path, arguments: list[str]):
        self.data = data
        self.started = time.monotonic()
        (data / "server.json").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [program, "serve", "--data-dir", data, "--http", "127.0.0.1:0", "--quic", "127.0.0.1:0",
             "--enroll-unknown", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=(data.parent / "engine.log").open("a"),
        )

    def get(self, path: str) -> dict:
        address = json.loads((self.data / "server.json").read_text())["http"]
        token = (self.data / "http-token").read_text().strip()
        request = urllib.request.Request(f"http://{address}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def pipeline(self, until) -> dict:
        """Waits until the figures of the graph are as they should be."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                figures = self.get("/api/v1/pipeline")
                if until(figures):
                    return figures
            except (OSError, ValueError, KeyError, urllib.error.URLError):
                if self.process.poll() is not None:
                    raise SystemExit("the engine has ended: see engine.log") from None
            time.sleep(0.05)
        raise SystemExit("the graph was not where it should be in time")

    def resident(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def end(self, how: int) -> None:
        self.process.send_signal(how)
        self.process.wait()


def bench(program: Path, data: Path, scenario: Path | str, result: Path) -> dict:
    subprocess.run(
        [program, "bench", "--scenario", scenario, "--data-dir", data, "--json", result],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    return json.loads(result.read_text())


def size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def recovery(args: argparse.Namespace, work: Path) -> None:
    """One window of a day per node, so that nothing closes: a key of each device in each."""
    graph = work / "graph.toml"
    graph.write_text("".join(
        f'[window.w{number}]\nfrom = "bench"\nsize = "1d"\nby = ["device"]\nidle = "1d"\n'
        f'select = "count(*) AS n, avg(f0) AS mean, max(f0) AS high"\n'
        for number in range(args.nodes)
    ))
    scenario = work / "scenario.toml"
    scenario.write_text(
        f'identity = "gateway"\nconnections = 1\ndevices = {args.devices}\n'
        f'devices_per_batch = 1000\nrows = 1000\nfields = 1\nrate = {args.devices // 20}\n'
        f'duration = "21s"\nwarmup = "0s"\ndrain = "120s"\nconnect_within = "10m"\n'
    )
    data = work / "data"
    data.mkdir()
    engine = Engine(args.program, data, ["--config", str(graph), *args.engine])
    engine.pipeline(lambda _: True)
    bench(args.program, data, scenario, work / "result.json")
    figures = engine.pipeline(lambda figures: figures["lag"] == 0)
    seen = figures["nodes"][0]["rows_in"]
    # Until everything that was seen is kept, and for a few checkpoints of what has changed since.
    kept = engine.pipeline(lambda figures: figures["kept"] > 0 and figures["lag"] == 0)["kept"]
    time.sleep(25)
    kept = max(kept, engine.pipeline(lambda _: True)["kept"])
    bytes_held = sum(node["state_bytes"] for node in engine.get("/api/v1/pipeline")["nodes"])
    resident = engine.resident()
    state = size(data / "analysis")
    engine.end(signal.SIGKILL)
    again = Engine(args.program, data, ["--config", str(graph), *args.engine])
    figures = again.pipeline(lambda figures: figures["lag"] == 0 and figures["kept"] >= kept)
    seconds = time.monotonic() - again.started
    held = sum(node["state_bytes"] for node in figures["nodes"])
    keys = args.devices * args.nodes
    print(f"{keys:,} keys ({args.nodes} windows, {args.devices:,} devices, {seen:,} rows each): ready {seconds:.1f} s after the start")
    print(f"state {bytes_held / 1e6:,.0f} MB in memory ({held / 1e6:,.0f} MB after the start), {state / 1e6:,.0f} MB on disk; process {resident / 1e6:,.0f} MB")
    again.end(signal.SIGTERM)


def ingest(args: argparse.Namespace, work: Path) -> None:
    rates: dict[bool, list[float]] = {False: [], True: []}
    behind = []
    for number in range(args.rounds):
        for with_graph in (False, True):
            data = work / f"data-{number}-{with_graph}"
            data.mkdir()
            more = ["--config", str(args.graph)] if with_graph else []
            engine = Engine(args.program, data, [*more, *args.engine])
            while not (data / "server.json").exists():
                time.sleep(0.05)
            result = bench(args.program, data, args.scenario, work / "result.json")
            rates[with_graph].append(points(result))
            if with_graph:
                ended = time.monotonic()
                engine.pipeline(lambda figures: figures["lag"] == 0)
                behind.append(time.monotonic() - ended)
            engine.end(signal.SIGTERM)
            subprocess.run(["rm", "-rf", data], check=True)
            ratio = rates[True][-1] / rates[False][-1] if with_graph else float("nan")
            print(f"round {number + 1}, {'with' if with_graph else 'without'} the graph: {rates[with_graph][-1]:,.0f}" + (f" ({ratio:.2f})" if with_graph else ""), flush=True)
    ratios = [with_it / without for without, with_it in zip(rates[False], rates[True])]
    print(f"with the graph: {statistics.median(ratios):.2f} of the rate without ({min(ratios):.2f}-{max(ratios):.2f}); it was done {statistics.median(behind):.1f} s after the load")


def points(result: dict) -> float:
    """Points a second that were acknowledged."""
    return float(result["runs"][0]["acked_points_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    parser.add_argument("--program", type=Path, default=target / "release/quiver", help="the engine (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("."), help="where data are for the time being")
    parser.add_argument("--engine", action="append", default=[], help="a further argument for the engine")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("recovery")
    verb.add_argument("--devices", type=int, default=100_000)
    verb.add_argument("--nodes", type=int, default=100)
    verb.set_defaults(run=recovery)
    verb = verbs.add_parser("ingest")
    verb.add_argument("--scenario", default="few-large")
    verb.add_argument("--graph", type=Path, required=True)
    verb.add_argument("--rounds", type=int, default=5)
    verb.set_defaults(run=ingest)
    args = parser.parse_args()
    args.program = args.program.resolve()
    with tempfile.TemporaryDirectory(dir=args.work_dir) as work:
        args.run(args, Path(work))


if __name__ == "__main__":
    main()
