//! An archive in memory: an [`Archive`] for tests and for the simulation.
//!
//! Clones share the tables, so they survive the engine that wrote them, as a disk does. Commits
//! are atomic. Faults are asked for ahead, one per flush.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    sync::{Arc, Mutex},
};

use arrow_array::{
    RecordBatch, UInt32Array,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::ArrowError;
use arrow_select::take::take_record_batch;
use async_trait::async_trait;
use quiver_model::{Position, StreamName, Timestamp};

use crate::{
    Archive, ArchiveFile, ArchiveSnapshot, FileList, FlushError, FlushInput, OpenError,
    OpenedArchive,
    layout::{DEVICE_INDEX, POSITION_INDEX, TS_INDEX, batch_bytes, conform},
    sync::lock,
};

/// What goes wrong with a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing is committed.
    Fail,
    /// It is committed, and reports that it does not know.
    CommitThenFail,
    /// It never returns, and nothing is committed.
    Hang,
    /// It is committed, and never returns.
    CommitThenHang,
}

/// Tables in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryArchive {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    tables: BTreeMap<StreamName, Table>,
    faults: VecDeque<Fault>,
    commits: u64,
}

#[derive(Debug)]
struct Table {
    snapshot: Arc<ArchiveSnapshot>,
    data: BTreeMap<String, RecordBatch>,
}

impl MemoryArchive {
    /// An archive without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next flush that has no fault yet fail in this way.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared).faults.push_back(fault);
    }

    /// How many commits there were, over all tables.
    pub fn commits(&self) -> u64 {
        lock(&self.shared).commits
    }

    /// The newest version of a stream's table, if it was created.
    pub fn table(&self, stream: &StreamName) -> Option<Arc<ArchiveSnapshot>> {
        lock(&self.shared)
            .tables
            .get(stream)
            .map(|table| Arc::clone(&table.snapshot))
    }

    /// The rows of the files of a snapshot, file by file, in the layout they were stored with.
    pub fn rows(&self, snapshot: &ArchiveSnapshot) -> Vec<RecordBatch> {
        let shared = lock(&self.shared);
        let Some(table) = shared.tables.get(&snapshot.stream) else {
            return Vec::new();
        };
        snapshot
            .files
            .iter()
            .filter_map(|file| table.data.get(&file.path).cloned())
            .collect()
    }

    /// Commits unless the barrier is committed already.
    fn commit(&self, input: &FlushInput) -> Result<Arc<ArchiveSnapshot>, ArrowError> {
        let mut files = Vec::new();
        let mut data = BTreeMap::new();
        for (index, batch) in input.batches.iter().enumerate() {
            let batch = conform(batch, input.schema.stored())?;
            for (day, batch) in by_day(&batch)? {
                let path = format!("quiver_day={day}/{}-{index}", input.barrier);
                files.extend(describe(&path, day, &batch).map(Arc::new));
                data.insert(path, batch);
            }
        }
        let mut shared = lock(&self.shared);
        let present = shared
            .tables
            .get(&input.stream)
            .map(|table| Arc::clone(&table.snapshot));
        if let Some(present) = &present
            && present.flushed >= input.barrier
        {
            return Ok(Arc::clone(present));
        }
        let absent = || Arc::new(ArchiveSnapshot::absent(input.stream.clone()));
        let present = present.unwrap_or_else(absent);
        let snapshot = Arc::new(ArchiveSnapshot {
            stream: input.stream.clone(),
            version: present.version + 1,
            flushed: input.barrier,
            fields: input.schema.fields().into(),
            files: with_all(&present.files, files),
        });
        let table = Table {
            snapshot: Arc::clone(&snapshot),
            data: BTreeMap::new(),
        };
        let table = shared.tables.entry(input.stream.clone()).or_insert(table);
        table.snapshot = Arc::clone(&snapshot);
        table.data.append(&mut data);
        shared.commits += 1;
        Ok(snapshot)
    }
}

#[async_trait]
impl Archive for MemoryArchive {
    async fn open(&self) -> Result<OpenedArchive, OpenError> {
        let shared = lock(&self.shared);
        let tables = shared
            .tables
            .values()
            .map(|table| Arc::clone(&table.snapshot))
            .collect();
        Ok(OpenedArchive {
            tables,
            damaged: Vec::new(),
        })
    }

    async fn flush(&self, input: FlushInput) -> Result<Arc<ArchiveSnapshot>, FlushError> {
        let fault = lock(&self.shared).faults.pop_front();
        let (stream, barrier) = (input.stream.clone(), input.barrier);
        let commit = || {
            let invalid = |error: ArrowError| FlushError::Invalid {
                stream: input.stream.clone(),
                barrier: input.barrier,
                problem: error.to_string(),
            };
            self.commit(&input).map_err(invalid)
        };
        match fault {
            None => commit(),
            Some(Fault::Fail) => Err(FlushError::NotCommitted {
                stream,
                barrier,
                source: "injected".into(),
            }),
            Some(Fault::CommitThenFail) => {
                commit()?;
                Err(FlushError::Unknown {
                    stream,
                    barrier,
                    source: "injected".into(),
                })
            }
            Some(Fault::Hang) => pending().await,
            Some(Fault::CommitThenHang) => {
                commit()?;
                pending().await
            }
        }
    }
}

fn with_all(present: &FileList, files: Vec<Arc<ArchiveFile>>) -> FileList {
    let mut all = present.clone();
    all.extend(files);
    all
}

fn by_day(batch: &RecordBatch) -> Result<Vec<(i32, RecordBatch)>, ArrowError> {
    let ts = batch
        .column(TS_INDEX)
        .as_primitive::<TimestampMicrosecondType>();
    let mut rows: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
    for (row, ts) in ts.values().iter().enumerate() {
        rows.entry(Timestamp(*ts).day())
            .or_default()
            .push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    if rows.len() == 1 {
        return Ok(rows.into_keys().map(|day| (day, batch.clone())).collect());
    }
    rows.into_iter()
        .map(|(day, rows)| Ok((day, take_record_batch(batch, &UInt32Array::from(rows))?)))
        .collect()
}

fn describe(path: &str, day: i32, batch: &RecordBatch) -> Option<ArchiveFile> {
    let ts = batch
        .column(TS_INDEX)
        .as_primitive::<TimestampMicrosecondType>()
        .values();
    let position = batch
        .column(POSITION_INDEX)
        .as_primitive::<Int64Type>()
        .values();
    let device = batch
        .column(DEVICE_INDEX)
        .as_dictionary::<Int32Type>()
        .downcast_dict::<arrow_array::StringArray>()?;
    let devices = || device.into_iter().flatten();
    let as_position = |position: &i64| Position(u64::try_from(*position).unwrap_or(0));
    Some(ArchiveFile {
        path: path.to_owned(),
        day,
        bytes: batch_bytes(batch) as u64,
        rows: batch.num_rows() as u64,
        min_ts: Timestamp(*ts.iter().min()?),
        max_ts: Timestamp(*ts.iter().max()?),
        min_position: as_position(position.iter().min()?),
        max_position: as_position(position.iter().max()?),
        min_device: devices().min()?.to_owned(),
        max_device: devices().max()?.to_owned(),
    })
}
