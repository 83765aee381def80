//! An archive of bare Parquet files, without a table log: one file per day and flush.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use arrow_array::{
    RecordBatch, StringArray, UInt32Array,
    cast::AsArray,
    types::{Int64Type, TimestampMicrosecondType},
};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::{concat::concat_batches, take::take_record_batch};
use async_trait::async_trait;
use parquet::arrow::ArrowWriter;
use quiver_hot::{
    Archive, ArchiveFile, ArchiveSnapshot, FlushError, FlushInput, OpenError, OpenedArchive,
    conform,
};
use quiver_model::{Position, StreamName, Timestamp};

#[derive(Debug)]
pub struct FilesArchive {
    root: PathBuf,
    tables: Mutex<BTreeMap<StreamName, Arc<ArchiveSnapshot>>>,
}

impl FilesArchive {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            tables: Mutex::default(),
        }
    }
}

#[async_trait]
impl Archive for FilesArchive {
    async fn open(&self) -> Result<OpenedArchive, OpenError> {
        let tables = self.tables.lock().unwrap().values().cloned().collect();
        Ok(OpenedArchive {
            tables,
            damaged: Vec::new(),
        })
    }

    async fn flush(&self, input: FlushInput) -> Result<Arc<ArchiveSnapshot>, FlushError> {
        let stored = input.schema.stored();
        let batches: Vec<RecordBatch> = input
            .batches
            .iter()
            .map(|batch| conform(batch, stored).unwrap())
            .collect();
        let rows = concat_batches(stored, &batches).unwrap();
        let mut days: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for (row, ts) in rows
            .column(0)
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .iter()
            .enumerate()
        {
            days.entry(Timestamp(*ts).day())
                .or_default()
                .push(row as u32);
        }
        let mut tables = self.tables.lock().unwrap();
        let before = tables
            .get(&input.stream)
            .cloned()
            .unwrap_or_else(|| Arc::new(ArchiveSnapshot::absent(input.stream.clone())));
        let mut files = before.files.to_vec();
        for (day, indices) in days {
            let part = take_record_batch(&rows, &UInt32Array::from(indices)).unwrap();
            let path = format!("quiver_day={day}/part-{}.parquet", input.barrier);
            files.push(Arc::new(write(
                &self.root.join(input.stream.as_str()),
                path,
                day,
                &part,
            )));
        }
        let snapshot = Arc::new(ArchiveSnapshot {
            stream: input.stream.clone(),
            version: before.version + 1,
            flushed: input.barrier,
            fields: input.schema.fields().into(),
            files: files.into(),
        });
        tables.insert(input.stream, Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

fn write(table: &Path, path: String, day: i32, rows: &RecordBatch) -> ArchiveFile {
    let names = arrow_cast::cast(rows.column(1), &DataType::Utf8).unwrap();
    let names: &StringArray = names.as_string();
    let mut columns = rows.columns().to_vec();
    columns[1] = Arc::new(names.clone());
    let mut fields: Vec<Field> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    fields[1] = Field::new("device", DataType::Utf8, false);
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let file = table.join(&path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(&file).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let times = rows
        .column(0)
        .as_primitive::<TimestampMicrosecondType>()
        .values();
    let positions = rows.column(3).as_primitive::<Int64Type>().values();
    let position = |position: Option<&i64>| Position(u64::try_from(*position.unwrap()).unwrap());
    ArchiveFile {
        path,
        day,
        bytes: std::fs::metadata(&file).unwrap().len(),
        rows: rows.num_rows() as u64,
        min_ts: Timestamp(*times.iter().min().unwrap()),
        max_ts: Timestamp(*times.iter().max().unwrap()),
        min_position: position(positions.iter().min()),
        max_position: position(positions.iter().max()),
        min_device: names.iter().flatten().min().unwrap().into(),
        max_device: names.iter().flatten().max().unwrap().into(),
    }
}
