//! Which archived files a query can leave alone, by what the table's log says of each: bounds of
//! event time (and so the day), device and position.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        Column, ColumnStatistics, ScalarValue, Statistics, pruning::PruningStatistics,
        stats::Precision,
    },
    physical_expr::PhysicalExpr,
    physical_optimizer::pruning::PruningPredicateBuilder,
};
use quiver_hot::ArchiveFile;
use quiver_model::{ARRIVAL, DEVICE, POSITION, Position, TS};

/// Positions as they are stored.
fn stored(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

/// The files in which `predicate` may hold for some row; all, if it says nothing about bounds.
pub(crate) fn prune<'a>(
    files: Vec<&'a ArchiveFile>,
    predicate: Option<&Arc<dyn PhysicalExpr>>,
    schema: &SchemaRef,
) -> Vec<&'a ArchiveFile> {
    let Some(predicate) = predicate else {
        return files;
    };
    // A predicate that cannot be turned into one about bounds prunes nothing; it is applied to the
    // rows in any case.
    let Ok(pruning) = PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(schema))
        .try_build(Arc::clone(predicate))
    else {
        return files;
    };
    if pruning.always_true() {
        return files;
    }
    let bounds = FileBounds { files: &files };
    match pruning.prune(&bounds) {
        Ok(keep) => files
            .into_iter()
            .zip(keep)
            .filter_map(|(file, keep)| keep.then_some(file))
            .collect(),
        Err(_) => files,
    }
}

/// The bounds of many files, column by column.
struct FileBounds<'a> {
    files: &'a [&'a ArchiveFile],
}

impl FileBounds<'_> {
    fn times(&self, bound: impl Fn(&ArchiveFile) -> i64) -> ArrayRef {
        let times: TimestampMicrosecondArray =
            self.files.iter().map(|file| Some(bound(file))).collect();
        Arc::new(times.with_timezone("UTC"))
    }

    fn positions(&self, bound: impl Fn(&ArchiveFile) -> Position) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            self.files.iter().map(|file| stored(bound(file))),
        ))
    }

    fn devices(&self, bound: impl Fn(&ArchiveFile) -> &str) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(
            self.files.iter().map(|file| bound(file)),
        ))
    }
}

impl PruningStatistics for FileBounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            TS => Some(self.times(|file| file.min_ts.as_micros())),
            DEVICE => Some(self.devices(|file| &file.min_device)),
            POSITION => Some(self.positions(|file| file.min_position)),
            _ => None,
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            TS => Some(self.times(|file| file.max_ts.as_micros())),
            DEVICE => Some(self.devices(|file| &file.max_device)),
            POSITION => Some(self.positions(|file| file.max_position)),
            _ => None,
        }
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let never_null = [TS, DEVICE, ARRIVAL, POSITION].contains(&column.name());
        never_null.then(|| Arc::new(UInt64Array::from(vec![0; self.files.len()])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(
            self.files.iter().map(|file| file.rows),
        )))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// What is known of one file while a plan runs, for filters that appear only then (the least ts of
/// a running top-k, the keys of a join). It covers the leading columns only: readers of it take a
/// missing column as unknown, and a thousand fields times a thousand files would be gigabytes.
pub(crate) fn file_statistics(file: &ArchiveFile) -> Statistics {
    let time = |micros: i64| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    let text = |device: &str| ScalarValue::Utf8(Some(device.to_owned()));
    let position = |position: Position| ScalarValue::Int64(Some(stored(position)));
    let between = |min: ScalarValue, max: ScalarValue| ColumnStatistics {
        min_value: Precision::Exact(min),
        max_value: Precision::Exact(max),
        ..ColumnStatistics::new_unknown()
    };
    Statistics {
        num_rows: Precision::Inexact(usize::try_from(file.rows).unwrap_or(usize::MAX)),
        total_byte_size: Precision::Inexact(usize::try_from(file.bytes).unwrap_or(usize::MAX)),
        // In the order of the table's first four columns.
        column_statistics: vec![
            between(time(file.min_ts.as_micros()), time(file.max_ts.as_micros())),
            between(text(&file.min_device), text(&file.max_device)),
            ColumnStatistics::new_unknown(),
            between(position(file.min_position), position(file.max_position)),
        ],
    }
}

/// The columns of a stream as SQL shows them: those of the stored layout, with devices as plain
/// text, and all nullable (an open archive may be written by others, too).
pub(crate) fn table_schema(stored: &Schema) -> SchemaRef {
    let fields = stored.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        };
        Field::new(field.name(), data_type, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use datafusion::{
        common::DFSchema,
        logical_expr::{Expr, col, lit},
        prelude::SessionContext,
    };
    use quiver_model::{SchemaId, StreamName, StreamSchema, Timestamp};

    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn file(day: i32, devices: (&str, &str), positions: (u64, u64)) -> ArchiveFile {
        ArchiveFile {
            path: format!("day={day}"),
            day,
            bytes: 1,
            rows: 10,
            min_ts: Timestamp(i64::from(day) * DAY),
            max_ts: Timestamp(i64::from(day) * DAY + DAY - 1),
            min_position: Position(positions.0),
            max_position: Position(positions.1),
            min_device: devices.0.into(),
            max_device: devices.1.into(),
        }
    }

    fn kept(filter: Expr) -> Vec<i32> {
        let files = [
            file(0, ("a", "f"), (1, 100)),
            file(1, ("a", "f"), (101, 200)),
            file(2, ("g", "z"), (201, 300)),
        ];
        let schema = StreamSchema::new(StreamName::new("s").unwrap(), SchemaId(1), vec![]).unwrap();
        let schema = table_schema(schema.stored());
        let df_schema = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        let predicate = SessionContext::new()
            .create_physical_expr(filter, &df_schema)
            .unwrap();
        prune(files.iter().collect(), Some(&predicate), &schema)
            .iter()
            .map(|file| file.day)
            .collect()
    }

    fn at(micros: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(
            Some(micros),
            Some("UTC".into()),
        ))
    }

    #[test]
    fn files_outside_the_time_range_are_left_alone() {
        assert_eq!(kept(col("ts").gt_eq(at(DAY))), [1, 2]);
        assert_eq!(kept(col("ts").lt(at(DAY))), [0]);
        assert_eq!(kept(col("ts").between(at(DAY), at(DAY + 5))), [1]);
        assert_eq!(kept(col("ts").eq(at(DAY - 1))), [0]);
    }

    #[test]
    fn files_without_the_device_or_the_position_are_left_alone() {
        assert_eq!(kept(col("device").eq(lit("m"))), [2]);
        assert_eq!(
            kept(col("device").in_list(vec![lit("b"), lit("c")], false)),
            [0, 1]
        );
        assert_eq!(kept(col("position").gt(lit(150_i64))), [1, 2]);
        assert_eq!(kept(col("device").is_null()), [] as [i32; 0]);
    }

    #[test]
    fn predicates_that_say_nothing_of_bounds_keep_all() {
        assert_eq!(kept(col("arrival").gt(at(5))), [0, 1, 2]);
        assert_eq!(kept(col("device").not_eq(lit("b"))), [0, 1, 2]);
    }
}
