//! The physical plan that reads one stream at Q:
//!
//! ```text
//!                      ┌─ files with every position ≤ Q
//! files the filters ───┤
//! cannot exclude       └─ files with some position > Q ── filter position ≤ Q ──┐
//!                                                                              ├─ union
//! hot batches in (P, Q] ── device: dictionary → text ──────────────────────────┘
//! ```
//!
//! Files have positions beyond Q only if a flush or a compaction was published between the choice
//! of Q and the look at the table's state. No ordering is declared: files are sorted by (device,
//! ts) each, but not among each other.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use chrono::DateTime;
use datafusion::{
    catalog::{
        Session,
        memory::{DataSourceExec, MemorySourceConfig},
    },
    common::{DFSchema, ScalarValue, Statistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            FileGroup, FileScanConfigBuilder, ParquetSource,
            parquet::CachedParquetFileReaderFactory,
        },
        table_schema::TableSchema,
    },
    error::Result,
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, Operator, utils::conjunction},
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, CastExpr, Column, Literal},
    },
    physical_plan::{
        ExecutionPlan, empty::EmptyExec, filter::FilterExecBuilder, projection::ProjectionExec,
        union::UnionExec,
    },
};
use object_store::ObjectMeta;
use quiver_hot::{ArchiveFile, ArchiveSnapshot, TableSnapshot};
use quiver_model::{DEVICE, POSITION, Position};

use crate::{
    archive_reader::{ArchiveReaderFactory, Reads},
    pruning::{file_statistics, prune, table_schema},
    stores::{ArchiveLocation, archive_url},
};

/// Bytes to read from the end of a file at first: most footers, in one request.
const FOOTER_BYTES_GUESS: usize = 64 * 1024;
/// Hot rows that are worth a partition of their own.
const HOT_ROWS_PER_PARTITION: usize = 32 * 1024;

/// A stream at Q, and what reading it takes.
#[derive(Debug)]
pub(crate) struct StreamScan {
    /// The columns as SQL shows them.
    pub(crate) schema: SchemaRef,
    /// Holding it is the lease on its files.
    archived: Arc<ArchiveSnapshot>,
    archived_limit: Option<Position>,
    /// Conformed to `hot_schema`.
    hot: Vec<RecordBatch>,
    /// Like `schema`, but devices are dictionaries.
    hot_schema: SchemaRef,
    location: ArchiveLocation,
    reads: Arc<Reads>,
}

impl StreamScan {
    /// # Errors
    /// If a hot batch does not have the columns of the snapshot's schema.
    pub(crate) fn new(
        snapshot: TableSnapshot,
        location: ArchiveLocation,
        reads: Arc<Reads>,
    ) -> Result<Self> {
        let TableSnapshot {
            schema,
            archived,
            archived_limit,
            hot,
        } = snapshot;
        let stored = schema.stored();
        let hot_schema = nullable(stored);
        let hot = hot
            .into_iter()
            .map(|batch| batch.with_schema(Arc::clone(&hot_schema)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            schema: table_schema(stored),
            archived,
            archived_limit,
            hot,
            hot_schema,
            location,
            reads,
        })
    }
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()))
}

/// Plans the reading of `projection`'s columns, leaving out files in which `filters` cannot hold.
/// Rows for which they do not hold may come all the same.
pub(crate) fn scan(
    table: &StreamScan,
    session: &dyn Session,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    // With filters, a limit counts rows that a scan does not know yet.
    let limit = if filters.is_empty() { limit } else { None };
    let partitions = session.config().target_partitions().max(1);
    let projection: Vec<usize> = match projection {
        Some(projection) => projection.clone(),
        None => (0..table.schema.fields().len()).collect(),
    };
    let predicate = conjunction(filters.to_vec())
        .map(|filter| {
            session.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&table.schema))?)
        })
        .transpose()?;

    let limit_position = table.archived_limit.unwrap_or(Position(u64::MAX));
    let seen: Vec<&ArchiveFile> = table
        .archived
        .files
        .iter()
        .map(AsRef::as_ref)
        .filter(|file| file.min_position <= limit_position)
        .collect();
    let files = prune(seen, predicate.as_ref(), &table.schema);
    let (whole, cut): (Vec<_>, Vec<_>) = files
        .into_iter()
        .partition(|file| file.max_position <= limit_position);

    let archive = ArchiveScan {
        table,
        session,
        partitions,
    };
    let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
    if !whole.is_empty() {
        parts.push(archive.files(&whole, &projection, limit)?);
    }
    if !cut.is_empty() {
        parts.push(archive.files_up_to(limit_position, &cut, &projection)?);
    }
    if !table.hot.is_empty() {
        parts.push(hot(table, &projection, partitions, limit)?);
    }
    if parts.is_empty() {
        return Ok(Arc::new(EmptyExec::new(Arc::new(
            table.schema.project(&projection)?,
        ))));
    }
    UnionExec::try_new(parts)
}

struct ArchiveScan<'a> {
    table: &'a StreamScan,
    session: &'a dyn Session,
    partitions: usize,
}

impl ArchiveScan<'_> {
    fn files(
        &self,
        files: &[&ArchiveFile],
        projection: &[usize],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = self.table;
        let url: ObjectStoreUrl = archive_url()?;
        let store = self.session.runtime_env().object_store(&url)?;
        let reader = ArchiveReaderFactory {
            stream: Arc::from(table.archived.stream.as_str()),
            store: Arc::clone(&store),
            inner: CachedParquetFileReaderFactory::new(
                store,
                self.session
                    .runtime_env()
                    .cache_manager
                    .get_file_metadata_cache(),
            ),
            reads: Arc::clone(&table.reads),
        };
        let source = ParquetSource::new(TableSchema::from(Arc::clone(&table.schema)))
            .with_table_parquet_options(self.session.default_table_options().parquet)
            .with_parquet_file_reader_factory(Arc::new(reader))
            .with_metadata_size_hint(FOOTER_BYTES_GUESS);
        let group = FileGroup::new(files.iter().map(|file| self.file(file)).collect());
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(group.split_files(self.partitions))
            .with_statistics(total_statistics(files, &table.schema))
            .with_limit(limit)
            .with_projection_indices(Some(projection.to_vec()))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn file(&self, file: &ArchiveFile) -> PartitionedFile {
        let location = self
            .table
            .location
            .file(&self.table.archived.stream, &file.path);
        // Files never change under a name, so a constant time keeps cached footers valid.
        let object = ObjectMeta {
            location,
            last_modified: DateTime::UNIX_EPOCH,
            size: file.bytes,
            e_tag: None,
            version: None,
        };
        PartitionedFile::new_from_meta(object).with_statistics(Arc::new(file_statistics(file)))
    }

    /// The rows of `files` with position ≤ `limit`.
    fn files_up_to(
        &self,
        limit: Position,
        files: &[&ArchiveFile],
        projection: &[usize],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let position = self.table.schema.index_of(POSITION)?;
        let mut columns = projection.to_vec();
        let index = columns
            .iter()
            .position(|column| *column == position)
            .unwrap_or_else(|| {
                columns.push(position);
                columns.len() - 1
            });
        let scan = self.files(files, &columns, None)?;
        let limit = i64::try_from(limit.get()).unwrap_or(i64::MAX);
        let predicate: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(
            Arc::new(Column::new(POSITION, index)),
            Operator::LtEq,
            Arc::new(Literal::new(ScalarValue::Int64(Some(limit)))),
        ));
        let keep: Vec<usize> = (0..projection.len()).collect();
        let filter = FilterExecBuilder::new(predicate, scan)
            .apply_projection(Some(keep))?
            .build()?;
        Ok(Arc::new(filter))
    }
}

/// Estimates for the optimiser. Deliberately not exact: a count that is answered from them would
/// count rows of files that nobody looked for.
fn total_statistics(files: &[&ArchiveFile], schema: &SchemaRef) -> Statistics {
    let sum = |of: fn(&ArchiveFile) -> u64| {
        let total: u64 = files.iter().map(|file| of(file)).sum();
        Precision::Inexact(usize::try_from(total).unwrap_or(usize::MAX))
    };
    Statistics {
        num_rows: sum(|file| file.rows),
        total_byte_size: sum(|file| file.bytes),
        ..Statistics::new_unknown(schema)
    }
}

fn hot(
    table: &StreamScan,
    projection: &[usize],
    partitions: usize,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let rows: usize = table.hot.iter().map(RecordBatch::num_rows).sum();
    let partitions = rows.div_ceil(HOT_ROWS_PER_PARTITION).clamp(1, partitions);
    let source = MemorySourceConfig::try_new(
        &spread(&table.hot, partitions),
        Arc::clone(&table.hot_schema),
        Some(projection.to_vec()),
    )?
    .with_limit(limit);
    let source: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(source);
    let schema = source.schema();
    let Ok(device) = schema.index_of(DEVICE) else {
        return Ok(source);
    };
    // Devices become text batch by batch while the plan runs, and only if they are asked for.
    let columns = schema.fields().iter().enumerate().map(|(index, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
        let expression: Arc<dyn PhysicalExpr> = if index == device {
            Arc::new(CastExpr::new(column, arrow_schema::DataType::Utf8, None))
        } else {
            column
        };
        (expression, field.name().clone())
    });
    Ok(Arc::new(ProjectionExec::try_new(columns, source)?))
}

/// Divides batches into `partitions` of about as many rows, largest batches first.
fn spread(batches: &[RecordBatch], partitions: usize) -> Vec<Vec<RecordBatch>> {
    let mut sorted: Vec<&RecordBatch> = batches.iter().collect();
    sorted.sort_by_key(|batch| std::cmp::Reverse(batch.num_rows()));
    let mut spread: Vec<(usize, Vec<RecordBatch>)> = vec![(0, Vec::new()); partitions];
    for batch in sorted {
        if let Some((rows, batches)) = spread.iter_mut().min_by_key(|(rows, _)| *rows) {
            *rows += batch.num_rows();
            batches.push(batch.clone());
        }
    }
    spread.into_iter().map(|(_, batches)| batches).collect()
}
