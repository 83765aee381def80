//! CSV and TSV.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use arrow_array::RecordBatch;
use sha2::{Digest, Sha256};

use super::{
    FileError, FileOptions, READ_ROWS,
    evidence::{Evidence, Kind, ROWS_FOR_TYPES},
    layout::SourceColumn,
    plan::ChunkSource,
    records::Records,
    rows::RowBuilder,
    time,
};

/// Characters of a first value that are kept: no point in time is written with more.
const FIRST_CHARACTERS_MAX: usize = 256;

/// Hashes what is read through it.
pub(super) struct HashingReader<R> {
    inner: R,
    pub hash: Sha256,
}

impl<R> HashingReader<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// What the first pass over a file finds.
pub(super) struct Survey {
    pub columns: Vec<SourceColumn>,
    /// The first value of each column, as text.
    pub firsts: Vec<Option<String>>,
    pub rows: u64,
    pub hash: Sha256,
}

/// As much of a first value as says how times are written.
pub(super) fn first_of(text: &str) -> String {
    text.chars().take(FIRST_CHARACTERS_MAX).collect()
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The first pass over a CSV file.
pub(super) fn survey(
    options: &FileOptions,
    delimiter: u8,
    zone: arrow_array::timezone::Tz,
) -> Result<Survey, FileError> {
    let path = options.path.as_path();
    let mut records = Records::new(path, HashingReader::new(open(path)?), delimiter);
    let header = header(&mut records)?;
    let mut evidence = vec![Evidence::default(); header.len()];
    let mut firsts: Vec<Option<String>> = vec![None; header.len()];
    let mut rows = 0;
    while advance(&mut records, path, header.len())? {
        for ((cell, evidence), first) in records.cells().zip(&mut evidence).zip(&mut firsts) {
            if !evidence.is_open() && rows >= ROWS_FOR_TYPES {
                continue;
            }
            let text = cell.text.trim();
            if !text.is_empty() {
                if first.is_none() {
                    *first = Some(first_of(text));
                }
                evidence.add(Kind::of(text), rows);
            } else if cell.is_quoted {
                evidence.add(Kind::EmptyText, rows);
            }
        }
        rows += 1;
    }
    let columns = header
        .into_iter()
        .zip(evidence)
        .zip(&firsts)
        .map(|((name, evidence), first)| SourceColumn {
            name,
            suggested: evidence.field_type(),
            is_time: first
                .as_deref()
                .is_some_and(|first| time::is_time_text(first, zone)),
            unsupported: None,
        })
        .collect();
    Ok(Survey {
        columns,
        firsts,
        rows,
        hash: records.into_inner().hash,
    })
}

/// The names in the first record; none in an empty file.
fn header<R: Read>(records: &mut Records<R>) -> Result<Vec<String>, FileError> {
    records.advance()?;
    Ok(records
        .cells()
        .map(|cell| cell.text.trim().to_owned())
        .collect())
}

/// Goes to the next record, which has as many cells as the header.
fn advance<R: Read>(
    records: &mut Records<R>,
    path: &Path,
    expected: usize,
) -> Result<bool, FileError> {
    if !records.advance()? {
        return Ok(false);
    }
    if records.len() != expected {
        return Err(FileError::Line {
            path: path.to_owned(),
            line: records.begun_in(),
            reason: format!(
                "the line has {} values, and the header {expected} names; quote values that contain the delimiter",
                records.len()
            ),
        });
    }
    Ok(true)
}

/// A later pass over a CSV file.
pub(super) struct CsvChunks {
    options: Arc<FileOptions>,
    records: Records<File>,
    width: usize,
    rows: RowBuilder,
}

impl CsvChunks {
    pub fn open(
        options: Arc<FileOptions>,
        delimiter: u8,
        rows: RowBuilder,
    ) -> Result<Self, FileError> {
        let mut records = Records::new(&options.path, open(&options.path)?, delimiter);
        let width = header(&mut records)?.len();
        Ok(Self {
            options,
            records,
            width,
            rows,
        })
    }
}

impl ChunkSource for CsvChunks {
    fn next_chunk(&mut self) -> Result<Option<RecordBatch>, FileError> {
        while self.rows.len() < READ_ROWS
            && advance(&mut self.records, &self.options.path, self.width)?
        {
            let line = self.records.begun_in();
            for (index, cell) in self.records.cells().enumerate() {
                self.rows.push(index, cell, line)?;
            }
            self.rows.end_row(line)?;
        }
        self.rows.take()
    }
}
