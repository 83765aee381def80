//! Flushing: rows that are in memory only become files and commits of a stream's table.
//!
//! ```text
//! FlushInput ─▶ conform ─▶ sort ─▶ cut, if over very many days ─▶ per portion: files, commit
//! ```

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use quiver_hot::{ArchiveSnapshot, FlushError, FlushInput, conform, slice_positions};
use quiver_model::{Position, StreamField, StreamName};

use crate::{
    DeltaArchive,
    blocking::{WorkLost, blocking_at},
    choose::Effort,
    commit::{Commit, grown_metadata, new_metadata},
    encode::EncodedFile,
    error::WriteError,
    portions::{DAYS_MAX, cuts},
    read::stored_schema,
    replay::ReplayError,
    schema::grown,
    table::{Committed, Table, next_files, write_commit},
    write::{FileWriter, sort},
};

/// How often a commit is tried at the next version when somebody else took one.
const COMMIT_ATTEMPTS: usize = 5;

/// Which flush it is, for its errors.
#[derive(Clone, Copy)]
struct Flush<'a> {
    stream: &'a StreamName,
    barrier: Position,
}

impl Flush<'_> {
    fn invalid(self, problem: String) -> FlushError {
        FlushError::Invalid {
            stream: self.stream.clone(),
            barrier: self.barrier,
            problem,
        }
    }

    fn not_committed(
        self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> FlushError {
        FlushError::NotCommitted {
            stream: self.stream.clone(),
            barrier: self.barrier,
            source: source.into(),
        }
    }

    fn write(self, error: WriteError) -> FlushError {
        match error {
            WriteError::Encode(error) => self.invalid(error.to_string()),
            error => self.not_committed(error),
        }
    }

    fn work(self, error: WorkLost) -> FlushError {
        self.not_committed(error)
    }
}

/// The columns a table has after a commit.
struct Columns {
    fields: Vec<StreamField>,
    layout: SchemaRef,
}

impl DeltaArchive {
    pub(crate) async fn flush_rows(
        &self,
        input: FlushInput,
    ) -> Result<Arc<ArchiveSnapshot>, FlushError> {
        let FlushInput {
            stream,
            schema,
            barrier,
            batches,
        } = input;
        let flush = Flush {
            stream: &stream,
            barrier,
        };
        let slot = self.slot(&stream);
        let mut slot = slot.lock().await;
        let table = self
            .load(&stream, &mut slot)
            .await
            .map_err(|error| match error {
                ReplayError::Foreign(problem) => FlushError::Damaged {
                    stream: stream.clone(),
                    problem,
                },
                error => flush.not_committed(error),
            })?;
        let archived = table.snapshot.flushed;
        if archived >= barrier {
            // An earlier attempt was committed after all.
            return Ok(Arc::clone(&table.snapshot));
        }
        let fields = grown(&table.snapshot.fields, schema.fields())
            .map_err(|problem| flush.invalid(problem))?
            .unwrap_or_else(|| table.snapshot.fields.to_vec());
        let columns = Columns {
            layout: stored_schema(&stream, &fields).map_err(|problem| flush.invalid(problem))?,
            fields,
        };
        let batches = batches
            .iter()
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| conform(batch, &columns.layout))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| flush.invalid(error.to_string()))?;
        // Portions that an earlier attempt has committed stay committed.
        let batches = Arc::new(between(&batches, archived, barrier));

        let sorted = sort(&batches, self.flush_priority()).await;
        let sorted = sorted.map_err(|error| flush.write(error))?;
        let (sorted, cuts) = {
            let batches = Arc::clone(&batches);
            blocking_at(self.flush_priority(), move || {
                let cuts = cuts(&batches, &sorted, DAYS_MAX);
                (sorted, cuts)
            })
            .await
            .map_err(|error| flush.work(error))?
        };
        if cuts.is_empty() {
            let writer = FileWriter::new(self, &stream, Arc::clone(&columns.layout), Effort::Flush);
            let added = writer.write(&batches, sorted, &mut table.known).await;
            let added = added.map_err(|error| flush.write(error))?;
            return self.commit(flush, table, &columns, &added).await;
        }
        drop(sorted);
        for up_to in cuts.into_iter().chain([barrier]) {
            let portion = Flush {
                barrier: up_to,
                ..flush
            };
            // As far as the portion before, or further: its commit may have found another's.
            let after = table.snapshot.flushed;
            if after >= up_to {
                continue;
            }
            let rows = Arc::new(between(&batches, after, up_to));
            let sorted = sort(&rows, self.flush_priority()).await;
            let sorted = sorted.map_err(|error| portion.write(error))?;
            let writer = FileWriter::new(self, &stream, Arc::clone(&columns.layout), Effort::Flush);
            let added = writer.write(&rows, sorted, &mut table.known).await;
            let added = added.map_err(|error| portion.write(error))?;
            let snapshot = self.commit(portion, table, &columns, &added).await?;
            tracing::debug!(%stream, %up_to, %barrier, version = snapshot.version, "a portion of a flush over very many days is archived");
        }
        Ok(Arc::clone(&table.snapshot))
    }

    /// Commits `added`, with which the table is complete up to the flush's barrier.
    async fn commit(
        &self,
        flush: Flush<'_>,
        table: &mut Table,
        columns: &Columns,
        added: &[EncodedFile],
    ) -> Result<Arc<ArchiveSnapshot>, FlushError> {
        let Flush { stream, barrier } = flush;
        for _ in 0..COMMIT_ATTEMPTS {
            let now = self.clock.wall();
            let version = table.snapshot.version + 1;
            let mut commit = Commit::default();
            commit.information("WRITE", now, true);
            let metadata = match &table.metadata {
                None => {
                    commit.protocol();
                    Some(new_metadata(&self.new_table_id(), &columns.fields, now))
                }
                Some(metadata) if columns.fields.len() > table.snapshot.fields.len() => {
                    Some(grown_metadata(metadata, &columns.fields))
                }
                Some(_) => None,
            };
            if let Some(metadata) = &metadata {
                commit.metadata(metadata);
            }
            commit.transaction(&self.app_id, barrier, now);
            for encoded in added {
                commit.add(encoded, now, true);
            }
            table.expect(version, added);
            match write_commit(&*self.store, stream, version, commit).await {
                Committed::Yes => {
                    let next = ArchiveSnapshot {
                        stream: stream.clone(),
                        version,
                        flushed: barrier,
                        fields: match &metadata {
                            Some(_) => columns.fields.clone().into(),
                            None => Arc::clone(&table.snapshot.fields),
                        },
                        files: next_files(&table.snapshot.files, &[], added),
                    };
                    if metadata.is_some() {
                        table.metadata = metadata;
                    }
                    let snapshot = table.advance(next);
                    self.checkpoint_if_due(table);
                    return Ok(snapshot);
                }
                Committed::Unknown(error) => {
                    return Err(FlushError::Unknown {
                        stream: stream.clone(),
                        barrier,
                        source: error.into(),
                    });
                }
                Committed::Taken => {
                    // An earlier attempt of ours, or another writer's (a tool that compacts).
                    let replayed = self.replay(stream).await;
                    table.refresh(replayed.map_err(|error| flush.not_committed(error))?);
                    if table.snapshot.flushed >= barrier {
                        return Ok(Arc::clone(&table.snapshot));
                    }
                    let archived = table.snapshot.flushed;
                    if added
                        .iter()
                        .any(|encoded| encoded.file.min_position <= archived)
                    {
                        // A part of these rows is archived by now: the next attempt leaves it out.
                        return Err(flush.not_committed(format!(
                            "everything up to position {archived} was archived meanwhile by a process that is gone"
                        )));
                    }
                }
            }
        }
        Err(flush.not_committed("other writers took every version that was tried"))
    }
}

/// The rows with a position beyond `after`, up to `up_to`.
fn between(batches: &[RecordBatch], after: Position, up_to: Position) -> Vec<RecordBatch> {
    batches
        .iter()
        .filter_map(|batch| slice_positions(batch, after, up_to))
        .collect()
}
