"""Writes the Arrow IPC streams of this folder with pyarrow: python3 generate.py

Each file is a whole Arrow IPC stream. Row i of the table that they all hold (or a part of it):
  ts     timestamp, 2023-11-14T22:13:20Z + i seconds
  count  integer, i * i - 50
  value  float, i / 4                 null where i % 7 == 3 in files whose name has "nulls"
  name   text, "n" + (i % 5)          likewise
  flag   bool, i % 3 == 0             likewise
"""
import os

import pyarrow as pa
import pyarrow.ipc as ipc

HERE = os.path.dirname(os.path.abspath(__file__))
START = 1_700_000_000


def table(rows, nulls=False, unit="us", tz="UTC", text=pa.string(), integer=pa.int64(), real=pa.float64()):
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    gap = lambda i, value: None if nulls and i % 7 == 3 else value
    names = pa.array([gap(i, f"n{i % 5}") for i in rows], pa.string())
    names = names.dictionary_encode() if text == "dictionary" else names.cast(text)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([(START + i) * scale for i in rows], pa.timestamp(unit, tz)),
            pa.array([i * i - 50 for i in rows], integer),
            pa.array([gap(i, i / 4) for i in rows], pa.float64()).cast(real),
            names,
            pa.array([gap(i, i % 3 == 0) for i in rows], pa.bool_()),
        ],
        names=["ts", "count", "value", "name", "flag"],
    )


def write(name, batches, schema=None, **options):
    options = ipc.IpcWriteOptions(**options)
    with pa.OSFile(os.path.join(HERE, name + ".arrows"), "wb") as sink:
        with ipc.new_stream(sink, schema or batches[0].schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)


whole = range(40)
for codec in (None, "lz4", "zstd"):
    suffix = codec or "none"
    write(f"plain_{suffix}", [table(whole)], compression=codec)
    write(f"nulls_{suffix}", [table(whole, nulls=True)], compression=codec)
    write(f"nulls_dictionary_{suffix}", [table(whole, nulls=True, text="dictionary")], compression=codec)
    write(f"sliced_nulls_{suffix}", [table(range(100), nulls=True).slice(13, 9)], compression=codec)
    write(f"empty_{suffix}", [table(range(0)), table(range(3))], compression=codec)
    write(f"wide_text_{suffix}", [table(whole, text=pa.large_string())], compression=codec)

write("narrow", [table(range(12), integer=pa.int8(), real=pa.float32())])
write("half_float_u32", [table(range(8, 12), integer=pa.uint32(), real=pa.float16())])
write("seconds_no_zone", [table(whole, unit="s", tz=None)])
write("nanoseconds_zone", [table(whole, unit="ns", tz="Europe/Berlin")], compression="zstd")
write("metadata_v4", [table(whole)], metadata_version=ipc.MetadataVersion.V4)

# A dictionary that changes between batches: replaced, or extended by a delta.
def dictionary_batch(rows, words):
    plain = table(rows)
    keys = pa.array([words.index(f"n{i % 5}") for i in rows], pa.int8())
    return plain.set_column(3, "name", pa.DictionaryArray.from_arrays(keys, pa.array(words)))

write("dictionary_replaced", [dictionary_batch(range(0, 5), ["n0", "n1", "n2", "n3", "n4"]),
                              dictionary_batch(range(5, 10), ["n4", "n3", "n2", "n1", "n0"])])
write("dictionary_delta", [dictionary_batch(range(0, 3), ["n0", "n1", "n2"]),
                           dictionary_batch(range(3, 10), ["n0", "n1", "n2", "n3", "n4"])],
      emit_dictionary_deltas=True)

# Compressed buffers that are longer than what they hold.
write("tiny_lz4", [table(range(2))], compression="lz4")

# Must be refused.
write("refused_legacy", [table(whole)], use_legacy_format=True)
for name, array in {
    "list": pa.array([[1], [2]]),
    "decimal": pa.array([1, 2], pa.decimal128(10, 2)),
    "binary": pa.array([b"a", b"b"]),
    "date": pa.array([1, 2], pa.date32()),
    "view": pa.array(["a", "b"], pa.string_view()),
    "struct": pa.array([{"a": 1}, {"a": 2}]),
}.items():
    write(f"refused_type_{name}", [table(range(2)).append_column("extra", array)])
