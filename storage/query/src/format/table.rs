//! Aligned columns for people.
//!
//! The first rows decide the widths; later cells that are wider push their row out of line, so
//! that memory does not grow with the result. Control characters are escaped: what a device sends
//! must not drive the terminal of the person who looks at it.

use std::fmt::Write;

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, SchemaRef};

use super::Encode;

/// Rows that are looked at before the first is written.
const ROWS_MEASURED: usize = 1_000;

pub(super) struct TableEncoder {
    names: Vec<String>,
    right_aligned: Vec<bool>,
    /// Rows not written yet, while the widths are open.
    measured: Vec<Vec<String>>,
    /// Decided once the first row is written.
    widths: Option<Vec<usize>>,
    rows: u64,
}

impl TableEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        Self {
            names: schema
                .fields()
                .iter()
                .map(|field| escaped(field.name()))
                .collect(),
            right_aligned: schema
                .fields()
                .iter()
                .map(|field| field.data_type().is_numeric())
                .collect(),
            measured: Vec::new(),
            widths: None,
            rows: 0,
        }
    }

    /// Decides the widths and writes what was held back.
    fn open(&mut self, out: &mut Vec<u8>) {
        if self.widths.is_some() {
            return;
        }
        let rows = std::mem::take(&mut self.measured);
        let mut widths: Vec<usize> = self.names.iter().map(|name| width(name)).collect();
        for row in &rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        self.widths = Some(widths);
        let names = self.names.clone();
        self.line(&names, out);
        let rules: Vec<String> = self
            .widths
            .iter()
            .flatten()
            .map(|width| "-".repeat(*width))
            .collect();
        out.extend_from_slice(rules.join("-+-").as_bytes());
        out.push(b'\n');
        for row in rows {
            self.line(&row, out);
        }
    }

    fn line(&self, cells: &[String], out: &mut Vec<u8>) {
        let mut line = String::new();
        let widths = self.widths.iter().flatten();
        for (index, ((cell, wanted), right)) in cells
            .iter()
            .zip(widths)
            .zip(&self.right_aligned)
            .enumerate()
        {
            if index > 0 {
                line.push_str(" | ");
            }
            let padding = " ".repeat(wanted.saturating_sub(width(cell)));
            let (before, after) = if *right {
                (padding.as_str(), "")
            } else {
                ("", padding.as_str())
            };
            line.push_str(before);
            line.push_str(cell);
            line.push_str(after);
        }
        out.extend_from_slice(line.trim_end().as_bytes());
        out.push(b'\n');
    }
}

/// Columns that a text takes, taking each character for one.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn escaped(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut escaped, character| {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
        escaped
    })
}

impl Encode for TableEncoder {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let options = FormatOptions::default();
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(formatters.len());
            for (formatter, column) in formatters.iter().zip(batch.columns()) {
                let mut cell = String::new();
                if column.is_null(row) {
                    cell.push_str("NULL");
                } else {
                    write!(cell, "{}", formatter.value(row)).map_err(|_| {
                        ArrowError::CastError(format!("a value of row {row} has no text form"))
                    })?;
                }
                cells.push(escaped(&cell));
            }
            if self.widths.is_some() {
                self.line(&cells, out);
            } else {
                self.measured.push(cells);
                if self.measured.len() >= ROWS_MEASURED {
                    self.open(out);
                }
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.open(out);
        let plural = if self.rows == 1 { "row" } else { "rows" };
        out.extend_from_slice(format!("({} {plural})\n", self.rows).as_bytes());
        Ok(())
    }
}
