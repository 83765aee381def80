"""Windows beside DuckDB and polars: the same rows in memory, one thread each, in turns.

    rows.parquet <-- quiver-bench-windows, which keeps the rows as Arrow
         |--> DuckDB: a table in memory      |--> polars: a frame

All answers are compared first: keys and counts, least and greatest values must be equal, averages
within 1e-9 of each other. Then each takes its turn, ROUNDS times. `cargo xtask windows` runs this.
"""
from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Before polars is loaded, which reads it once.
os.environ["POLARS_MAX_THREADS"] = "1"

import duckdb  # noqa: E402
import polars as pl  # noqa: E402

FIELDS = 10
MINUTE = 60_000_000
GAP = 30_000_000
CASES = ["tumbling", "tumbling_ends", "hopping", "session"]
ORDERS = ["interleaved", "by_device"]
KEY = ["device", "start"]
NAMES = [f"value_{number}" for number in range(FIELDS)]


class Quiver:
    """The program that has the engine's windows and the loops."""

    def __init__(self, program: Path, order: str, devices: int, rows: int, file: Path):
        self.process = subprocess.Popen(
            [program, order, str(devices), str(rows), file],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def line(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit("quiver-bench-windows ended")
        return line

    def expect(self, word: str) -> None:
        if (line := self.line()) != word:
            raise SystemExit(f"quiver-bench-windows said {line!r} instead of {word!r}")

    def tell(self, *words: object) -> None:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def seconds(self, who: str, case: str) -> float:
        self.tell(who, case)
        return float(self.line())

    def answer(self, who: str, case: str, file: Path) -> pl.DataFrame:
        self.tell(who, case, file)
        self.expect("written")
        return pl.read_parquet(file)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def results(case: str, one) -> list:
    """The columns behind key and count: of each field what `one(function, field)` makes."""
    functions = ["avg", "min", "max"] if case == "tumbling_ends" else ["avg"]
    return [one(function, name) for name in NAMES for function in functions]


def numbered(expressions: list[str]) -> str:
    return ", ".join(f"{text} AS result_{number}" for number, text in enumerate(expressions))


def sql(case: str) -> str:
    """What DuckDB is asked."""
    whole = numbered(results(case, lambda function, name: f"{function}({name})"))
    if case.startswith("tumbling"):
        return (f"SELECT device, ts // {MINUTE} * {MINUTE} AS start, count(*) AS rows, {whole} "
                "FROM readings GROUP BY ALL")
    if case == "hopping":
        # As the engine does it: minutes first, of which windows are made.
        sums = ", ".join(f"sum({name}) AS {name}" for name in NAMES)
        averages = numbered([f"sum({name}) / sum(part)" for name in NAMES])
        return (f"WITH parts AS (SELECT device, ts // {MINUTE} * {MINUTE} AS minute, "
                f"count(*) AS part, {sums} FROM readings GROUP BY ALL) "
                f"SELECT device, minute - hop * {MINUTE} AS start, "
                f"sum(part)::BIGINT AS rows, {averages} "
                "FROM parts, range(5) AS hops(hop) GROUP BY ALL")
    fields = ", ".join(NAMES)
    return (f"WITH marked AS (SELECT device, ts, {fields}, "
            "ts - lag(ts) OVER (PARTITION BY device ORDER BY ts) AS after FROM readings), "
            f"numbered AS (SELECT device, ts, {fields}, count_if(coalesce(after >= {GAP}, false)) "
            "OVER (PARTITION BY device ORDER BY ts ROWS UNBOUNDED PRECEDING) AS number FROM marked) "
            f"SELECT device, min(ts) AS start, count(*) AS rows, {whole} "
            "FROM numbered GROUP BY device, number")


def frame(case: str, rows: pl.DataFrame) -> pl.DataFrame:
    """What polars is asked."""
    def one(function: str, name: str) -> pl.Expr:
        column = pl.col(name)
        return {"avg": column.mean, "min": column.min, "max": column.max}[function]()

    wanted = [expression.alias(f"result_{number}")
              for number, expression in enumerate(results(case, one))]
    minute = pl.col("ts") // MINUTE * MINUTE
    lazy = rows.lazy()
    if case.startswith("tumbling"):
        query = lazy.group_by("device", minute.alias("start")).agg(
            pl.len().alias("rows"), *wanted)
    elif case == "hopping":
        parts = lazy.group_by("device", minute.alias("minute")).agg(
            pl.len().alias("part"), *[pl.col(name).sum() for name in NAMES])
        hops = pl.LazyFrame({"hop": range(5)})
        averages = [(pl.col(name).sum() / pl.col("part").sum()).alias(f"result_{number}")
                    for number, name in enumerate(NAMES)]
        start = (pl.col("minute") - pl.col("hop") * MINUTE).alias("start")
        query = parts.join(hops, how="cross").group_by("device", start).agg(
            pl.col("part").sum().alias("rows"), *averages)
    else:
        number = (pl.col("ts").diff() >= GAP).fill_null(False).cum_sum().over("device")
        query = lazy.sort("device", "ts").with_columns(number.alias("number")).group_by(
            "device", "number").agg(
            pl.col("ts").min().alias("start"), pl.len().alias("rows"), *wanted).drop("number")
    return query.collect()


def compare(case: str, order: str, name: str, answer: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Stops if an answer is not the expected one."""
    columns = expected.columns
    answer = answer.select(columns).cast({"start": pl.Int64, "rows": pl.Int64}).sort(KEY)
    expected = expected.sort(KEY)
    where = f"{case}, {order}: {name}"
    if not answer.select(KEY + ["rows"]).equals(expected.select(KEY + ["rows"])):
        raise SystemExit(f"{where} has other windows or counts: {answer.height} windows, "
                         f"{expected.height} by the engine")
    functions = results(case, lambda function, _: function)
    for function, column in zip(functions, columns[3:], strict=True):
        got, held = answer[column], expected[column]
        if function == "avg":
            is_equal = ((got - held).abs() <= 1e-9 * held.abs().clip(lower_bound=1e-3)).all()
        else:
            is_equal = got.equals(held)
        if not is_equal:
            raise SystemExit(f"{where} has another {column} ({function})")


def timed(run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(arguments: argparse.Namespace, order: str, folder: Path) -> list[list[str]]:
    file = folder / "rows.parquet"
    quiver = Quiver(arguments.program, order, arguments.devices, arguments.rows, file)
    rows = pl.read_parquet(file).with_columns(pl.col("ts").cast(pl.Int64)).rechunk()
    database = duckdb.connect(config={"threads": 1, "preserve_insertion_order": False})
    database.execute("CREATE TABLE readings AS SELECT epoch_us(ts) AS ts, * EXCLUDE (ts) "
                     "FROM read_parquet(?)", [str(file)])
    points = rows.height * FIELDS
    table = []
    for case in arguments.case or CASES:
        answers = {
            "by hand": quiver.answer("hand", case, folder / "hand.parquet"),
            "DuckDB": pl.from_arrow(database.sql(sql(case)).to_arrow_table()),
            "polars": frame(case, rows),
        }
        expected = quiver.answer("engine", case, folder / "engine.parquet")
        for name, answer in answers.items():
            compare(case, order, name, answer, expected)
        takers = {
            "Quiver": lambda case=case: quiver.seconds("engine", case),
            "by hand": lambda case=case: quiver.seconds("hand", case),
            "DuckDB": lambda case=case: timed(lambda: database.sql(sql(case)).to_arrow_table()),
            "polars": lambda case=case: timed(lambda: frame(case, rows)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in takers}
        for _ in range(arguments.rounds):
            for name, take in takers.items():
                seconds[name].append(take())
        row = [case, order, str(expected.height)]
        row.append(f"{points / statistics.median(seconds['Quiver']) / 1e6:.1f}")
        for name in ["by hand", "DuckDB", "polars"]:
            # Of each round by itself: what else the machine does is met by both.
            ratios = sorted(other / own for own, other in
                            zip(seconds["Quiver"], seconds[name], strict=True))
            middle = statistics.median(ratios)
            row.append(f"{middle:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})")
        table.append(row)
    quiver.close()
    database.close()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, required=True, help="quiver-bench-windows")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=300, help="of each device; one a second")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--order", action="append", choices=ORDERS)
    arguments = parser.parse_args()
    table = []
    for order in arguments.order or ORDERS:
        with tempfile.TemporaryDirectory() as folder:
            table += measure(arguments, order, Path(folder))
    print(f"{arguments.devices} devices, {arguments.rows} rows of {FIELDS} fields each; "
          f"{arguments.rounds} rounds in turns, one thread each; DuckDB {duckdb.__version__}, "
          f"polars {pl.__version__}. All answers are equal.")
    print("Times of the others as multiples of Quiver's: median of the rounds (least–most).\n")
    head = ["case", "order", "windows", "Quiver, M points/s", "by hand", "DuckDB", "polars"]
    print("| " + " | ".join(head) + " |")
    print("| --- " * 3 + "| ---: " * 4 + "|")
    for row in table:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    sys.exit(main())
