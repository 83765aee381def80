//! Writes sorted rows as files.
//!
//! ```text
//! DayRows ─▶ directories, synced at once ─▶ several small files at a time: encode, store, fsync
//! ```

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload, path::Path};
use quiver_model::{Entropy, QUIVER_DAY, StreamName};

use crate::{
    DeltaArchive, DurableStore,
    blocking::{Priority, blocking_at},
    choose::{Choices, Effort, Known},
    encode::{
        EncodeError, EncodedFile, Encodings, FileEncoder, ROW_GROUP_ROWS, choices, encode_as,
    },
    error::WriteError,
    read::location,
    sort::{DayRows, RowRef, sort_by_day},
    time_text::day_text,
};

/// Most rows of one file: bounds what reading it back takes.
const FILE_ROWS_MAX: usize = 4_000_000;
/// A flush of at least as many row groups of a day is written as so many files at once, as ingest may
/// be waiting for its memory.
const FLUSH_FILES: usize = 2;
/// Files of few rows cost little but the wait for the disk: so many are written at a time.
const FILES_AT_ONCE: usize = 16;
/// Most rows of files that are written at a time, unless one alone has more: bounds the memory of
/// their encoded content.
const ROWS_AT_ONCE: usize = 262_144;

/// Sorts rows of the stored layout for [`FileWriter::write`].
pub(crate) async fn sort(
    batches: &Arc<Vec<RecordBatch>>,
    priority: Priority,
) -> Result<Vec<DayRows>, WriteError> {
    let batches = Arc::clone(batches);
    let sorted = blocking_at(priority, move || sort_by_day(&batches)).await?;
    Ok(sorted.ok_or(EncodeError::Layout)?)
}

/// Writes files of one stream's table.
pub(crate) struct FileWriter<'a> {
    archive: &'a DeltaArchive,
    store: &'a dyn ObjectStore,
    durable: Option<&'a DurableStore>,
    entropy: &'a dyn Entropy,
    stream: &'a StreamName,
    schema: SchemaRef,
    effort: Effort,
}

/// A file that was written, without its content.
struct Written {
    encoded: EncodedFile,
    /// How its columns are encoded, if that was found out for it.
    measured: Option<Choices>,
}

/// A file that is to be written.
struct Planned {
    path: String,
    day: i32,
    rows: Arc<Vec<RowRef>>,
    start: usize,
    end: usize,
}

impl<'a> FileWriter<'a> {
    /// A writer of files with the columns of `schema`.
    pub(crate) fn new(
        archive: &'a DeltaArchive,
        stream: &'a StreamName,
        schema: SchemaRef,
        effort: Effort,
    ) -> Self {
        Self {
            archive,
            store: &*archive.store,
            durable: archive.durable.as_ref(),
            entropy: &*archive.entropy,
            stream,
            schema,
            effort,
        }
    }

    /// Writes rows of `batches`, which all have the writer's schema, as files: one for each day, or
    /// more where a day has very many. Every file is durable when this returns. What is `known` of
    /// how the stream's columns are best encoded is used, and replaced by what is found out.
    pub(crate) async fn write(
        &self,
        batches: &Arc<Vec<RecordBatch>>,
        sorted: Vec<DayRows>,
        known: &mut Option<Known>,
    ) -> Result<Vec<EncodedFile>, WriteError> {
        let planned = self.plan(sorted);
        if let (Some(durable), true) = (self.durable, planned.len() > 1) {
            let files = planned.iter().map(|file| location(self.stream, &file.path));
            durable.create_parents(files.collect()).await?;
        }
        let largest = planned.iter().map(|file| file.end - file.start).max();
        let least = match self.effort {
            Effort::Flush => FLUSH_FILES,
            Effort::Merge => 1,
        };
        let at_once = (ROWS_AT_ONCE / largest.unwrap_or(1).max(1)).clamp(least, FILES_AT_ONCE);
        let columns = self.schema.fields().len();
        let suited = |file: &Planned| {
            let known = known.as_ref()?;
            known.suits(file.end - file.start, columns)
        };
        let mut is_used = false;
        // In order, so that the same rows make the same commit.
        let written: Vec<Written> = futures::stream::iter(planned)
            .map(|file| {
                let choices = suited(&file);
                is_used |= choices.is_some();
                self.write_file(Arc::clone(batches), file, choices)
            })
            .buffered(at_once)
            .try_collect()
            .await?;
        let measured = written
            .iter()
            .filter_map(|file| Some((file.encoded.file.rows as usize, file.measured.as_ref()?)))
            .max_by_key(|(rows, _)| *rows);
        if is_used {
            *known = known.take().and_then(Known::used);
        } else if let Some((rows, choices)) = measured {
            *known = Some(Known::new(choices.clone(), rows));
        }
        Ok(written.into_iter().map(|file| file.encoded).collect())
    }

    fn priority(&self) -> Priority {
        match self.effort {
            Effort::Flush => self.archive.flush_priority(),
            Effort::Merge => Priority::Low,
        }
    }

    fn plan(&self, sorted: Vec<DayRows>) -> Vec<Planned> {
        let mut planned = Vec::with_capacity(sorted.len());
        for DayRows { day, rows } in sorted {
            let rows = Arc::new(rows);
            let rows_max = match self.effort {
                Effort::Flush if rows.len() >= FLUSH_FILES * ROW_GROUP_ROWS => {
                    rows.len().div_ceil(FLUSH_FILES).min(FILE_ROWS_MAX)
                }
                _ => FILE_ROWS_MAX,
            };
            for start in (0..rows.len()).step_by(rows_max) {
                planned.push(Planned {
                    path: format!(
                        "{QUIVER_DAY}={}/part-{:016x}{:016x}.parquet",
                        day_text(day),
                        self.entropy.next_u64(),
                        self.entropy.next_u64()
                    ),
                    day,
                    start,
                    end: rows.len().min(start + rows_max),
                    rows: Arc::clone(&rows),
                });
            }
        }
        planned
    }

    async fn write_file(
        &self,
        batches: Arc<Vec<RecordBatch>>,
        file: Planned,
        known: Option<Choices>,
    ) -> Result<Written, WriteError> {
        let target = location(self.stream, &file.path);
        let schema = Arc::clone(&self.schema);
        let encodings = Encodings::Measured(self.effort);
        let Planned {
            path,
            day,
            rows,
            start,
            end,
        } = file;
        let is_known = known.is_some();
        let choose = move |batches: &[RecordBatch], rows: &[RowRef], schema: &SchemaRef| {
            known.map_or_else(|| choices(schema, batches, rows, encodings), Ok)
        };
        let (encoded, choices) = if end - start <= ROW_GROUP_ROWS {
            blocking_at(self.priority(), move || {
                let rows = &rows[start..end];
                let choices = choose(&batches, rows, &schema)?;
                let encoded = encode_as(&schema, &batches, rows, (day, path), choices.clone())?;
                Ok::<_, EncodeError>((encoded, choices))
            })
            .await??
        } else {
            let (all, picked) = (Arc::clone(&batches), Arc::clone(&rows));
            let (mut encoder, choices) = blocking_at(self.priority(), move || {
                let choices = choose(&all, &picked[start..end], &schema)?;
                let encoder = FileEncoder::new(&schema, &all, end - start, choices.clone())?;
                Ok::<_, EncodeError>((encoder, choices))
            })
            .await??;
            // A row group at a time: how urgent it is may change meanwhile.
            for start in (start..end).step_by(ROW_GROUP_ROWS) {
                let end = end.min(start + ROW_GROUP_ROWS);
                let (batches, rows) = (Arc::clone(&batches), Arc::clone(&rows));
                encoder = blocking_at(self.priority(), move || {
                    encoder.group(&batches, &rows[start..end])?;
                    Ok::<_, EncodeError>(encoder)
                })
                .await??;
            }
            let encoded = blocking_at(self.priority(), move || encoder.finish(day, path)).await??;
            (encoded, choices)
        };
        put_new(
            self.store,
            &target,
            PutPayload::from_bytes(encoded.content.clone()),
        )
        .await?;
        // The content is stored; what the commit needs is small.
        Ok(Written {
            encoded: EncodedFile {
                content: bytes::Bytes::new(),
                ..encoded
            },
            measured: (!is_known).then_some(choices),
        })
    }
}

/// Stores an object under a name that must be free.
pub(crate) async fn put_new(
    store: &dyn ObjectStore,
    path: &Path,
    payload: PutPayload,
) -> object_store::Result<()> {
    let options = PutOptions {
        mode: PutMode::Create,
        ..PutOptions::default()
    };
    store.put_opts(path, payload, options).await.map(drop)
}
