//! Appending a commit group to the log: on a disk that takes no time, and on the real one with
//! its fdatasync.

use std::{path::Path, sync::Arc};

use quiver_log::{Log, LogOptions, OsVfs, Record, RecoveryFloor, Vfs};
use quiver_model::OsEntropy;
use quiver_protocol::Compression;
use tempfile::TempDir;

use crate::{
    Entry, Fault, Kernel, MemoryVfs,
    data::{self, Device, FIELDS},
    route::data_record,
};

/// Groups as the commit loop makes them: (records, rows of each).
const GROUPS: [(usize, usize); 3] = [(1, 100), (64, 1), (64, 1_000)];

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for (records, rows) in GROUPS {
        let items = (records * rows) as u64;
        entries.push(Entry::new(
            "log",
            format!("memory/{records}x{rows}"),
            items,
            move || Append::in_memory(records, rows),
        ));
        let file = Entry::new("log", format!("file/{records}x{rows}"), items, move || {
            Append::in_file(records, rows)
        });
        entries.push(file.slow());
    }
    entries
}

struct Append {
    log: Log,
    group: Vec<Record>,
    _directory: Option<TempDir>,
}

impl Append {
    fn in_memory(records: usize, rows: usize) -> Result<Self, Fault> {
        let vfs = Arc::new(MemoryVfs::default());
        Self::new(vfs, Path::new("/log"), None, records, rows)
    }

    /// In the working directory, or where `TMPDIR` says: a memory file system would measure none.
    fn in_file(records: usize, rows: usize) -> Result<Self, Fault> {
        let directory = match std::env::var_os("TMPDIR") {
            Some(_) => TempDir::new()?,
            None => TempDir::new_in(".")?,
        };
        let path = directory.path().join("log");
        Self::new(Arc::new(OsVfs), &path, Some(directory), records, rows)
    }

    fn new(
        vfs: Arc<dyn Vfs>,
        path: &Path,
        directory: Option<TempDir>,
        records: usize,
        rows: usize,
    ) -> Result<Self, Fault> {
        let options = LogOptions {
            retention_bytes: 0,
            ..LogOptions::default()
        };
        let (log, _) = Log::open(vfs, path, options, &OsEntropy, RecoveryFloor::default())?;
        let mut device = Device::new(1, FIELDS);
        let mut encoder = data::encoder(FIELDS, Compression::Zstd)?;
        let sender = device.sender()?;
        let group = (0..records)
            .map(|_| {
                let mut record = data_record(&sender, rows)?;
                record.payload = encoder.encode(&device.batch(rows)?)?;
                Ok(record)
            })
            .collect::<Result<_, Fault>>()?;
        Ok(Self {
            log,
            group,
            _directory: directory,
        })
    }
}

impl Kernel for Append {
    fn prepare(&mut self) -> Result<(), Fault> {
        self.log.trim(self.log.committed_end())?;
        Ok(())
    }

    fn run(&mut self) -> Result<u64, Fault> {
        let committed = self.log.append_group(&mut self.group)?;
        Ok(committed.end.get() - committed.first.get())
    }
}
