"""Writes python.bin: what tests/python/quiver_compact.py sends after ``OpenStream``.

A schema and 19 batches of 8, 1, 1, … rows of every type, with and without RESTART; column ``row`` has
the number of the row, from 0, and others what follows from it.

    python tests/golden/compact/generate.py
"""

import sys
from pathlib import Path

import pyarrow as pa

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "python"))

import quiver_compact as compact  # noqa: E402

ROWS = 8
whole = pa.RecordBatch.from_pydict(
    {
        "ts": pa.array([1, 2, 3, 5, 8, 13, 2**50, 21], pa.timestamp("us", "UTC")),
        "f64": pa.array([0.1, -0.0, None, float("inf"), 1e300, 81.25, 5e-324, 3.0], pa.float64()),
        "f32": pa.array([1.5, -0.0, None, 0.1, 3.25, 1e30, 7.0, 7.0], pa.float32()),
        "row": pa.array(range(ROWS), pa.float64()),
        "tenth": pa.array([row / 10 for row in range(ROWS)], pa.float64()),
        "i8": pa.array([0, -1, None, 127, -128, 5, 5, 7], pa.int8()),
        "u64": pa.array([0, 2**64 - 1, 2**63, 1, None, 5, 6, 7], pa.uint64()),
        "flag": pa.array([row % 3 == 0 for row in range(ROWS)]),
        "text": pa.array([f"row {row}" for row in range(ROWS)], pa.string()),
        "large": pa.array(["x"] * ROWS, pa.large_string()),
        "nothing": pa.nulls(ROWS),
        "absent": pa.nulls(ROWS, pa.int32()),
    }
)
encoder = compact.Encoder(whole.schema)
out = encoder.schema() + encoder.batch(whole)
for restart in (False, True):
    for row in range(ROWS):
        out += encoder.batch(whole.slice(row, 1), restart=restart)
out += encoder.batch(whole) + encoder.batch(whole.slice(0, 0)) + b"\0"
(HERE / "python.bin").write_bytes(out)
