//! Reference tables of lookups: CSV and Parquet files.

use std::{
    fs::File,
    io::{BufReader, Seek},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arrow_array::RecordBatch;
use arrow_csv::{ReaderBuilder, reader::Format};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quiver_pipeline::{
    Config, Graph,
    config::{LookupConfig, LookupTable, NodeConfig, NodeKind},
    execute::TABLE_ROWS_MAX,
    graph::TableSchemas,
    testing::Tables,
};
use sha2::{Digest, Sha256};

use crate::exit::{CONFIG, Failure};

/// Rows that are read at a time.
const ROWS: usize = 8_192;
/// Lines of a CSV file that its types are learned from.
const LEARNED_ROWS: usize = 10_000;

/// What tells a file from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// A reference table of a lookup, as it was read.
#[derive(Clone, Debug)]
pub struct ReadTable {
    /// The lookup.
    pub node: String,
    /// Its file.
    pub path: PathBuf,
    /// Which file it was.
    pub stamp: Stamp,
    /// SHA-256 of what was in it.
    pub hash: String,
    /// Its rows.
    pub rows: RecordBatch,
}

/// The tables of a graph's lookups.
///
/// # Errors
/// If a file cannot be read; names the node and the file.
pub fn load(graph: &Graph, directory: &Path) -> Result<Vec<ReadTable>, Failure> {
    let mut tables = Vec::new();
    for node in &graph.nodes {
        let NodeKind::Lookup(lookup) = &node.config.kind else {
            continue;
        };
        let Some(LookupTable::File(file)) = &lookup.table else {
            continue;
        };
        let path = directory.join(file.as_str());
        let table = read_stamped(node.name(), lookup, &path).map_err(|problem| {
            let message = format!("lookup `{}`: {}: {problem}", node.name(), path.display());
            Failure::new(CONFIG, message)
        })?;
        tables.push(table);
    }
    Ok(tables)
}

/// The schemas of the tables of a configuration's lookups, by node. One that cannot be had is left
/// out: [`load`] says why.
pub fn schemas(config: &Config, directory: &Path) -> TableSchemas {
    let schema = |node: &NodeConfig| {
        let NodeKind::Lookup(lookup) = &node.kind else {
            return None;
        };
        let Some(LookupTable::File(file)) = &lookup.table else {
            return None;
        };
        let path = directory.join(file.as_str());
        let opened = File::open(&path).ok()?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        let schema = match extension {
            Some("parquet") => ParquetRecordBatchReaderBuilder::try_new(opened)
                .ok()?
                .schema()
                .clone(),
            Some("csv") => csv_schema(&mut BufReader::new(opened), lookup).ok()?,
            _ => return None,
        };
        Some((node.name.value.clone(), schema))
    };
    config.nodes.iter().filter_map(schema).collect()
}

/// The tables as tests of a graph take them.
pub fn by_node(tables: &[ReadTable]) -> Tables {
    let rows = tables.iter();
    rows.map(|table| (table.node.clone(), table.rows.clone()))
        .collect()
}

/// Which file there is.
pub fn stamp(path: &Path) -> Result<Stamp, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        bytes: metadata.len(),
    })
}

/// Reads a table, and says of which file it is.
pub fn read_stamped(node: &str, lookup: &LookupConfig, path: &Path) -> Result<ReadTable, String> {
    let before = stamp(path)?;
    let mut hasher = Sha256::new();
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    std::io::copy(&mut file, &mut hasher).map_err(|error| error.to_string())?;
    let digest = hasher.finalize();
    let rows = read(path, lookup)?;
    if stamp(path)? != before {
        return Err("it is being written".to_owned());
    }
    Ok(ReadTable {
        node: node.to_owned(),
        path: path.to_owned(),
        stamp: before,
        hash: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        rows,
    })
}

/// Reads a table.
fn read(path: &Path, lookup: &LookupConfig) -> Result<RecordBatch, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("parquet") => parquet(file),
        Some("csv") => csv(file, lookup),
        _ => Err("a table is a .csv or a .parquet file".to_owned()),
    }
}

fn parquet(file: File) -> Result<RecordBatch, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| error.to_string())?
        .with_batch_size(ROWS);
    let schema = Arc::clone(reader.schema());
    let reader = reader.build().map_err(|error| error.to_string())?;
    joined(schema, reader)
}

/// The types of a table's columns, as they look. The keys stay texts: `007` is not 7.
fn csv_schema(file: &mut BufReader<File>, lookup: &LookupConfig) -> Result<SchemaRef, String> {
    let format = Format::default().with_header(true);
    let (schema, _) = format
        .infer_schema(file, Some(LEARNED_ROWS))
        .map_err(|error| error.to_string())?;
    let is_key = |name: &str| {
        if lookup.on.is_empty() {
            return name == quiver_model::DEVICE;
        }
        lookup.on.iter().any(|(_, column)| column.as_str() == name)
    };
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let data_type = if is_key(field.name()) {
                DataType::Utf8
            } else {
                field.data_type().clone()
            };
            Field::new(field.name(), data_type, true)
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

fn csv(file: File, lookup: &LookupConfig) -> Result<RecordBatch, String> {
    let mut file = BufReader::new(file);
    let schema = csv_schema(&mut file, lookup)?;
    file.rewind().map_err(|error| error.to_string())?;
    let reader = ReaderBuilder::new(Arc::clone(&schema))
        .with_header(true)
        .with_batch_size(ROWS)
        .build(file)
        .map_err(|error| error.to_string())?;
    joined(schema, reader)
}

fn joined(
    schema: Arc<Schema>,
    batches: impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>>,
) -> Result<RecordBatch, String> {
    let mut read = Vec::new();
    let mut rows = 0;
    for batch in batches {
        let batch = batch.map_err(|error| error.to_string())?;
        rows += batch.num_rows();
        if rows > TABLE_ROWS_MAX {
            return Err(format!("it has more than {TABLE_ROWS_MAX} rows"));
        }
        read.push(batch);
    }
    arrow_select::concat::concat_batches(&schema, &read).map_err(|error| error.to_string())
}
