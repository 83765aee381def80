//! Batches on disk until the server has them: what makes a sequence name fixed bytes.
//!
//! ```text
//!  <directory>/LOCK                     one process at a time
//!  <directory>/0000000000000003.spool   State, Batch, Batch, Assign, …   oldest; removed when all
//!  <directory>/0000000000000004.spool   State, Batch, Settled, …         its batches are settled
//! ```
//!
//! Promises:
//! - What [`Spool::append`] was given is durable when it returns, all of it; nothing is sent before.
//! - After a crash at any instant [`Spool::open`] finds every durable record. A torn end of the
//!   last segment is cut; it was never durable, so it was never sent.
//! - Damage elsewhere is reported, costs the rest of that segment, and stops nothing. Batches that
//!   were sent but not settled then may be stored twice: their numbers may be gone.
//! - A failed write or sync poisons the spool: it takes nothing more, since what is in the file is
//!   unknown until it is opened again.
//! - It is bounded; space comes back in whole segments, oldest first.
//!
//! The bytes are described in `record`. What this is not: a general queue. It has one writer, which
//! is the client's storage task.

mod directory;
mod memory;
mod os;
mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use quiver_model::StreamName;

use crate::{
    event::ClientEvent,
    queue::{Entry, LaneKey, LaneKind, Place, Queue},
};
pub use directory::{SegmentFile, SpoolDirectory};
pub use memory::MemoryDirectory;
pub use os::OsDirectory;
pub(crate) use record::{Assignment, LaneState, Record};
use record::{Reader, VERSION, segment_header};

/// Bytes of a batch's record beside its encoded bytes, at most: header, ids, stream name; the
/// schema comes once a segment.
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 128;

/// What to do with a batch for which the spool has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuse it: the caller decides what to keep.
    #[default]
    Refuse,
    /// Wait until the server has taken older ones.
    Wait,
}

/// Where and how much to spool.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Where the segments are.
    pub directory: Arc<dyn SpoolDirectory>,
    /// Most bytes on disk. At least 1 MiB; one segment, a sixteenth of it, may be dead weight.
    pub bytes_max: u64,
    /// What happens then.
    pub when_full: WhenFull,
}

impl SpoolOptions {
    /// A spool of at most 256 MiB in a directory of the machine, made if it is missing.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn at(directory: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self::with(Arc::new(OsDirectory::open(directory)?)))
    }

    /// A spool of at most 256 MiB in any directory.
    pub fn with(directory: Arc<dyn SpoolDirectory>) -> Self {
        Self {
            directory,
            bytes_max: 256 * 1024 * 1024,
            when_full: WhenFull::default(),
        }
    }

    pub(crate) fn effective_bytes_max(&self) -> u64 {
        self.bytes_max.max(1024 * 1024)
    }

    fn segment_bytes(&self) -> u64 {
        (self.effective_bytes_max() / 16).min(8 * 1024 * 1024)
    }
}

/// Why a spool does not work.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process uses it.
    #[error("the spool is used by another process; give each client a directory of its own")]
    Locked,
    /// It was written by a later version.
    #[error(
        "segment {segment:#018x} of the spool has format {version}, and this version reads {VERSION}; use the newer version, or another directory"
    )]
    UnsupportedVersion {
        /// The segment.
        segment: u64,
        /// Its format.
        version: u32,
    },
    /// The disk said no.
    #[error("cannot {action} segment {segment:#018x} of the spool: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which segment.
        segment: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// An earlier write or sync failed.
    #[error(
        "an earlier write to the spool failed, so nothing more is written to it; mend the disk and start again"
    )]
    Poisoned,
}

impl SpoolError {
    fn io(action: &'static str, segment: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            segment,
            source,
        }
    }
}

/// A batch to be spooled.
#[derive(Clone, Debug)]
pub(crate) struct NewBatch {
    pub id: u64,
    pub stream: StreamName,
    pub assignment: Option<Assignment>,
    pub rows: u32,
    pub schema: Bytes,
    pub body: Bytes,
}

/// Something to be made durable.
#[derive(Clone, Debug)]
pub(crate) enum NewRecord {
    Batch(NewBatch),
    Other(Record),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    options: SpoolOptions,
    instance: u64,
    segment: u64,
    file: Box<dyn SegmentFile>,
    length: u64,
    /// Schemas of the current segment.
    schemas: HashMap<Bytes, u32>,
    /// Segments that are written no more, oldest first, with their bytes.
    sealed: VecDeque<(u64, u64)>,
    is_poisoned: bool,
    /// Kept for its drop.
    _lock: Lock,
}

struct Lock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

impl Spool {
    /// Opens the spool and puts what it holds into `queue`. `new_instance` is used if the spool is
    /// new. Blocks.
    pub fn open(
        options: SpoolOptions,
        new_instance: u64,
        queue: &mut Queue,
    ) -> Result<(Self, Vec<ClientEvent>), SpoolError> {
        let directory = Arc::clone(&options.directory);
        let lock = directory.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => SpoolError::Locked,
            _ => SpoolError::io("lock", 0)(error),
        })?;
        let segments = directory.segments().map_err(SpoolError::io("list", 0))?;
        let mut recovery = Recovery {
            instance: None,
            schemas: HashMap::new(),
            queue,
        };
        let (mut sealed, mut events) = (VecDeque::new(), Vec::new());
        for (index, segment) in segments.iter().copied().enumerate() {
            let is_last = index + 1 == segments.len();
            let length = directory
                .length(segment)
                .map_err(SpoolError::io("look at", segment))?;
            let bytes = directory
                .read(segment, 0, usize::try_from(length).unwrap_or(usize::MAX))
                .map_err(SpoolError::io("read", segment))?;
            let valid = recovery.replay(segment, Bytes::from(bytes))?;
            if valid == length {
                sealed.push_back((segment, length));
                continue;
            }
            if !is_last {
                // The end of the last one may be torn by a crash; any other was whole once.
                events.push(ClientEvent::SpoolDamaged {
                    segment,
                    offset: valid,
                });
            }
            if is_last {
                // It may be in the page cache only; what is kept must be durable before it is sent.
                directory
                    .truncate(segment, valid)
                    .map_err(SpoolError::io("cut", segment))?;
            }
            sealed.push_back((segment, if is_last { valid } else { length }));
        }
        if let Some((last, length)) = sealed.back().copied() {
            directory
                .truncate(last, length)
                .map_err(SpoolError::io("sync", last))?;
        }
        let instance = recovery.instance.unwrap_or(new_instance);
        let segment = segments.last().map_or(1, |last| last + 1);
        let state = queue.state_record(instance);
        let (file, length) = create_segment(&*directory, segment, &state)?;
        let spool = Self {
            options,
            instance,
            segment,
            file,
            length,
            schemas: HashMap::new(),
            sealed,
            is_poisoned: false,
            _lock: Lock(lock),
        };
        Ok((spool, events))
    }

    /// The number of this installation.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    pub fn options(&self) -> &SpoolOptions {
        &self.options
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.length + self.sealed.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Whether the next append begins a new segment, for which it needs the state.
    pub fn is_due_for_rotation(&self) -> bool {
        self.length >= self.options.segment_bytes()
    }

    /// Makes the records durable, together: where each batch is, in order. `state` is that of the
    /// queue before them. Blocks.
    pub fn append(
        &mut self,
        records: Vec<NewRecord>,
        state: Option<Record>,
    ) -> Result<Vec<Place>, SpoolError> {
        if self.is_poisoned {
            return Err(SpoolError::Poisoned);
        }
        // Any way out but the last one leaves the file in an unknown state.
        self.is_poisoned = true;
        if let Some(state) = state {
            self.rotate(&state)?;
        }
        let (mut output, mut places) = (Vec::new(), Vec::new());
        for record in records {
            match record {
                NewRecord::Other(record) => {
                    record::encode(&record, &mut output);
                }
                NewRecord::Batch(batch) => {
                    let schema = self.schema_number(&batch.schema, &mut output);
                    let crc = crc32c::crc32c(&batch.body);
                    let length = batch.body.len() as u32;
                    let body = record::encode(
                        &Record::Batch {
                            id: batch.id,
                            stream: batch.stream,
                            assignment: batch.assignment,
                            rows: batch.rows,
                            schema,
                            body: batch.body,
                        },
                        &mut output,
                    );
                    let offset = self.length + body.start as u64;
                    places.push(Place {
                        segment: self.segment,
                        offset,
                        length,
                        crc,
                    });
                }
            }
        }
        self.file
            .append(&output)
            .map_err(SpoolError::io("write", self.segment))?;
        self.file
            .sync()
            .map_err(SpoolError::io("sync", self.segment))?;
        self.length += output.len() as u64;
        self.is_poisoned = false;
        Ok(places)
    }

    fn schema_number(&mut self, schema: &Bytes, output: &mut Vec<u8>) -> u32 {
        if let Some(number) = self.schemas.get(schema) {
            return *number;
        }
        let number = self.schemas.len() as u32;
        record::encode(
            &Record::Schema {
                number,
                bytes: schema.clone(),
            },
            output,
        );
        self.schemas.insert(schema.clone(), number);
        number
    }

    fn rotate(&mut self, state: &Record) -> Result<(), SpoolError> {
        let (file, length) = create_segment(&*self.options.directory, self.segment + 1, state)?;
        self.sealed.push_back((self.segment, self.length));
        self.segment += 1;
        (self.file, self.length) = (file, length);
        self.schemas.clear();
        Ok(())
    }

    /// Segments that can go when the queue knows nothing unsettled in them, oldest first.
    pub fn removable(&self, queue: &Queue) -> Vec<u64> {
        self.sealed
            .iter()
            .map(|(segment, _)| *segment)
            .take_while(|segment| !queue.is_segment_live(*segment))
            .collect()
    }

    /// Whether the segment that is written has nothing unsettled and is worth replacing.
    pub fn is_worth_rotating(&self, queue: &Queue) -> bool {
        self.length > 64 * 1024 && !queue.is_segment_live(self.segment) && !self.is_poisoned
    }

    /// Removes segments, which are the oldest ones. Blocks.
    pub fn remove(&mut self, segments: &[u64]) -> Result<(), SpoolError> {
        for segment in segments {
            self.options
                .directory
                .remove(*segment)
                .map_err(SpoolError::io("remove", *segment))?;
            self.sealed.retain(|(sealed, _)| sealed != segment);
        }
        self.options
            .directory
            .sync_directory()
            .map_err(SpoolError::io("sync the directory of", self.segment))
    }
}

/// Reads a spooled batch back; `None` if the disk gives back something else than was written.
pub(crate) fn read_batch(directory: &dyn SpoolDirectory, place: Place) -> Option<Bytes> {
    let bytes = directory
        .read(place.segment, place.offset, place.length as usize)
        .ok()?;
    (crc32c::crc32c(&bytes) == place.crc).then(|| Bytes::from(bytes))
}

fn create_segment(
    directory: &dyn SpoolDirectory,
    segment: u64,
    state: &Record,
) -> Result<(Box<dyn SegmentFile>, u64), SpoolError> {
    let mut bytes = segment_header(segment);
    record::encode(state, &mut bytes);
    let mut file = directory
        .create(segment)
        .map_err(SpoolError::io("create", segment))?;
    file.append(&bytes)
        .map_err(SpoolError::io("write", segment))?;
    file.sync().map_err(SpoolError::io("sync", segment))?;
    directory
        .sync_directory()
        .map_err(SpoolError::io("sync the directory of", segment))?;
    Ok((file, bytes.len() as u64))
}

/// Puts records back into a queue.
struct Recovery<'a> {
    instance: Option<u64>,
    /// Of the segment that is read.
    schemas: HashMap<u32, Bytes>,
    queue: &'a mut Queue,
}

impl Recovery<'_> {
    /// Replays a segment; how many of its bytes are valid.
    fn replay(&mut self, segment: u64, bytes: Bytes) -> Result<u64, SpoolError> {
        self.schemas.clear();
        let Some(mut reader) = Reader::new(bytes.clone(), segment) else {
            if let Some(version) = other_version(&bytes) {
                return Err(SpoolError::UnsupportedVersion { segment, version });
            }
            return Ok(0);
        };
        while !reader.at_end() {
            let Some((record, body_offset)) = reader.next() else {
                break;
            };
            self.apply(segment, body_offset as u64, record);
        }
        Ok(reader.offset as u64)
    }

    fn apply(&mut self, segment: u64, body_offset: u64, record: Record) {
        match record {
            Record::State {
                instance,
                next_id,
                lanes,
            } => {
                self.instance = Some(instance);
                self.queue.raise_next_id(next_id);
                for lane in lanes {
                    self.queue.restore_lane(&lane);
                }
            }
            Record::Schema { number, bytes } => {
                self.schemas.insert(number, bytes);
            }
            Record::Batch {
                id,
                stream,
                assignment,
                rows,
                schema,
                body,
            } => {
                // Without its schema it cannot be sent; the schema is in the same segment, before it.
                let Some(schema) = self.schemas.get(&schema).cloned() else {
                    return;
                };
                let place = Place {
                    segment,
                    offset: body_offset,
                    length: body.len() as u32,
                    crc: crc32c::crc32c(&body),
                };
                let entry = Entry {
                    id,
                    sequence: assignment.map_or(0, |assignment| assignment.sequence),
                    rows,
                    length: place.length,
                    schema,
                    place: Some(place),
                    body: None,
                    queued: None,
                    waiter: None,
                    sent: false,
                };
                self.queue.push(
                    &stream,
                    assignment.map(|assignment| (assignment.kind, assignment.producer)),
                    entry,
                );
            }
            Record::Assign {
                key,
                producer,
                first_sequence,
                from_id,
                to_id,
            } => {
                self.queue
                    .assign(&key, producer, first_sequence, from_id, to_id);
            }
            Record::Renumber {
                key,
                producer,
                settled_before,
            } => {
                self.queue.renumber(&key, producer, settled_before);
            }
            Record::Settled {
                key,
                settled_before,
            } => self.queue.restore_settled(&key, settled_before),
        }
    }
}

/// The version of a segment header that this version does not read.
fn other_version(bytes: &[u8]) -> Option<u32> {
    let number = bytes.strip_prefix(record::MAGIC)?.get(..4)?;
    let version = u32::from_le_bytes(number.try_into().ok()?);
    (version != VERSION && crc32c::crc32c(bytes.get(..20)?).to_le_bytes() == *bytes.get(20..24)?)
        .then_some(version)
}

/// Lanes that the spool remembers: those of named producers are their callers' business.
pub(crate) fn is_spooled(key: &LaneKey) -> bool {
    !matches!(key.kind, LaneKind::Named(_))
}
