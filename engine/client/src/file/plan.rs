//! From a file to its producer and its batches.

use std::{collections::VecDeque, fs, sync::Arc, time::SystemTime};

use arrow_array::{RecordBatch, timezone::Tz};
use arrow_schema::SchemaRef;
use quiver_model::{FieldType, Producer};
use sha2::{Digest, Sha256};

use super::{
    FileError, FileFormat, FileOptions,
    batching::{BATCHING_VERSION, Batcher},
    json::{self, JsonChunks},
    layout::{Layout, Role, SourceColumn},
    rows::RowBuilder,
    text::{self, CsvChunks},
    time::{TimeReader, zone},
    typed::{self, TypedChunks},
};

/// Chunks of rows in the layout `ts`, `device`, fields.
pub(super) trait ChunkSource: Send {
    fn next_chunk(&mut self) -> Result<Option<RecordBatch>, FileError>;
}

/// What a file is, after looking at all of it: who its producer is, what its rows look like, how
/// many there are.
#[derive(Debug)]
pub struct FilePlan {
    options: Arc<FileOptions>,
    format: FileFormat,
    layout: Arc<Layout>,
    zone: Tz,
    /// Of a file of text: for each of its columns that are times, how they are written.
    time_readers: Option<Vec<Option<TimeReader>>>,
    producer: Producer,
    rows: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FilePlan {
    /// Reads the file twice, the second time value by value as it will be sent. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read, or not as telemetry to its last value.
    pub fn read(options: FileOptions) -> Result<Self, FileError> {
        let path = options.path.clone();
        let format = match options.format {
            Some(format) => format,
            None => FileFormat::of_path(&path).map_err(|source| FileError::Format {
                path: path.clone(),
                source,
            })?,
        };
        let zone = zone(options.time_zone.as_deref()).ok_or_else(|| FileError::TimeZone {
            zone: options.time_zone.clone().unwrap_or_default(),
        })?;
        let (bytes, modified) = look_at(&options)?;
        let (columns, firsts, rows, hash) = match format {
            FileFormat::Csv | FileFormat::Tsv => {
                let found = text::survey(&options, delimiter(format), zone)?;
                (found.columns, Some(found.firsts), found.rows, found.hash)
            }
            FileFormat::JsonLines => {
                let found = json::survey(&options, zone)?;
                (found.columns, Some(found.firsts), found.rows, found.hash)
            }
            FileFormat::Parquet | FileFormat::Arrow => {
                let found = typed::survey(&options, format)?;
                (found.columns, None, found.rows, found.hash)
            }
        };
        if rows == 0 {
            return Err(FileError::Empty { path });
        }
        let layout = Layout::new(&options, &columns)?;
        let time_readers = firsts.map(|firsts| {
            let of_column = |(first, role): (Option<String>, &Role)| {
                let first = first.unwrap_or_default();
                role.is_time()
                    .then(|| TimeReader::new(&options, zone, &first))
            };
            let columns = firsts.into_iter().zip(&layout.roles);
            columns.map(of_column).collect()
        });
        let producer = producer(&options, format, hash, &columns, &layout);
        let plan = Self {
            options: Arc::new(options),
            format,
            layout: Arc::new(layout),
            zone,
            time_readers,
            producer,
            rows,
            bytes,
            modified,
        };
        // Every value is looked at before the first row leaves: a file that is mended is another
        // file, and what of it was sent before would be stored twice.
        for batch in plan.batches()? {
            batch?;
        }
        Ok(plan)
    }

    /// The file's producer: a hash of its content and of everything that decides its batches.
    pub fn producer(&self) -> Producer {
        self.producer
    }

    /// The schema of its batches: `ts`, `device`, then the fields.
    pub fn schema(&self) -> &SchemaRef {
        &self.layout.schema
    }

    /// Rows in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the plan was made from.
    pub fn options(&self) -> &FileOptions {
        &self.options
    }

    /// The file's batches, in another pass over it. Reading them blocks.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub fn batches(&self) -> Result<FileBatches, FileError> {
        let (options, layout) = (Arc::clone(&self.options), Arc::clone(&self.layout));
        let source: Box<dyn ChunkSource> = match (&self.time_readers, self.format) {
            (Some(readers), format) => {
                let rows = RowBuilder::new(Arc::clone(&options), layout, readers);
                match format {
                    FileFormat::JsonLines => Box::new(JsonChunks::open(options, rows)?),
                    format => Box::new(CsvChunks::open(options, delimiter(format), rows)?),
                }
            }
            (None, format) => Box::new(TypedChunks::open(options, layout, format, self.zone)?),
        };
        Ok(FileBatches {
            options: Arc::clone(&self.options),
            source,
            batcher: Batcher::new(Arc::clone(&self.layout.schema)),
            ready: VecDeque::new(),
            rows_left: self.rows,
            bytes: self.bytes,
            modified: self.modified,
            is_over: false,
        })
    }
}

fn delimiter(format: FileFormat) -> u8 {
    if format == FileFormat::Tsv {
        b'\t'
    } else {
        b','
    }
}

fn look_at(options: &FileOptions) -> Result<(u64, Option<SystemTime>), FileError> {
    let metadata = fs::metadata(&options.path).map_err(|source| FileError::Io {
        path: options.path.clone(),
        source,
    })?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// The first 8 bytes, big-endian, of SHA-256 over the content's SHA-256 and every choice, each with
/// its length in front. It names batches for ever: what goes in may only be added to together with
/// [`BATCHING_VERSION`].
fn producer(
    options: &FileOptions,
    format: FileFormat,
    content: Sha256,
    columns: &[SourceColumn],
    layout: &Layout,
) -> Producer {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(b"quiver file");
    part(&BATCHING_VERSION.to_be_bytes());
    part(&content.finalize());
    part(format!("{format:?}").as_bytes());
    part(options.stream.as_str().as_bytes());
    part(
        options
            .device
            .as_ref()
            .map_or("", |device| device.as_str())
            .as_bytes(),
    );
    // What a mapping means does not depend on the order it was given in.
    for (column, role) in columns.iter().zip(&layout.roles) {
        let map = options.map.iter().find(|map| map.source == column.name);
        part(
            map.and_then(|map| map.target.as_deref())
                .unwrap_or_default()
                .as_bytes(),
        );
        let mut field_type = map.and_then(|map| map.field_type);
        // Before there were such fields, the column was sent as text: those batches are others.
        if let Role::Field(_, FieldType::Timestamp) = role {
            field_type = Some(FieldType::Timestamp);
        }
        part(field_type.map_or("", FieldType::as_str).as_bytes());
        part(&[u8::from(options.drop.contains(&column.name))]);
    }
    part(
        options
            .time_column
            .as_deref()
            .unwrap_or_default()
            .as_bytes(),
    );
    part(options.time_format.to_string().as_bytes());
    part(options.time_zone.as_deref().unwrap_or_default().as_bytes());
    part(options.ambiguous_times.to_string().as_bytes());
    let digest = hash.finalize();
    let first: [u8; 8] = std::array::from_fn(|index| digest[index]);
    Producer(u64::from_be_bytes(first))
}

/// The batches of a file, in order. The n-th has sequence n.
pub struct FileBatches {
    options: Arc<FileOptions>,
    source: Box<dyn ChunkSource>,
    batcher: Batcher,
    ready: VecDeque<RecordBatch>,
    rows_left: u64,
    bytes: u64,
    modified: Option<SystemTime>,
    is_over: bool,
}

impl FileBatches {
    fn read(&mut self) -> Result<Option<RecordBatch>, FileError> {
        let arrow = |error: arrow_schema::ArrowError| FileError::Malformed {
            path: self.options.path.clone(),
            format: "telemetry",
            reason: error.to_string(),
        };
        while self.ready.is_empty() && !self.is_over {
            let mut full = Vec::new();
            match self.source.next_chunk()? {
                Some(chunk) => {
                    self.rows_left = self.rows_left.wrapping_sub(chunk.num_rows() as u64);
                    self.batcher.push(&chunk, &mut full).map_err(arrow)?;
                }
                None => {
                    self.is_over = true;
                    if self.rows_left != 0 || look_at(&self.options)? != (self.bytes, self.modified)
                    {
                        return Err(FileError::Changed {
                            path: self.options.path.clone(),
                        });
                    }
                    full.extend(self.batcher.finish().map_err(arrow)?);
                }
            }
            self.ready.extend(full);
        }
        Ok(self.ready.pop_front())
    }
}

impl Iterator for FileBatches {
    type Item = Result<RecordBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            self.is_over = true;
            self.ready.clear();
        }
        read.transpose()
    }
}
