"""Reads an archived stream with a reader that knows nothing of Quiver, and prints its rows.

    python read_archive.py READER TABLE_DIR COLUMN [COLUMN ...]

READER is deltalake, duckdb, polars or pyarrow. Rows come as CSV without a header, ordered by
position; times as microseconds since 1970, floats with all their digits, nulls as nothing.
deltalake, polars and pyarrow read the table; duckdb reads the files that the table lists.
"""

import csv
import sys

import pyarrow as pa
import pyarrow.compute as pc


def with_deltalake(directory):
    from deltalake import DeltaTable

    return DeltaTable(directory).to_pyarrow_table()


def with_pyarrow(directory):
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

    files = [uri.removeprefix("file://") for uri in DeltaTable(directory).file_uris()]
    tables = [ds.dataset(file).to_table() for file in files]
    return pa.concat_tables(tables, promote_options="default")


def with_polars(directory):
    import polars

    return polars.read_delta(directory).to_arrow()


def with_duckdb(directory):
    import duckdb
    from deltalake import DeltaTable

    files = [uri.removeprefix("file://") for uri in DeltaTable(directory).file_uris()]
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    result = connection.execute(
        "SELECT * FROM read_parquet($1, union_by_name = true, hive_partitioning = false)", [files]
    )
    return result.to_arrow_table() if hasattr(result, "to_arrow_table") else result.arrow()


def main():
    reader, directory, *columns = sys.argv[1:]
    table = {
        "deltalake": with_deltalake,
        "duckdb": with_duckdb,
        "polars": with_polars,
        "pyarrow": with_pyarrow,
    }[reader](directory)
    if isinstance(table, pa.RecordBatchReader):
        table = table.read_all()
    table = table.sort_by("position").select(columns)
    arrays = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            column = pc.cast(pc.cast(column, pa.timestamp("us", "UTC")), pa.int64())
        arrays.append(column.to_pylist())
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for row in zip(*arrays):
        writer.writerow(["" if value is None else repr(value) if isinstance(value, float) else value for value in row])


if __name__ == "__main__":
    main()
