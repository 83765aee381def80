//! CSV in which null and empty text differ: null is an empty field, empty text is `""`, as
//! PostgreSQL writes it.

use std::fmt::Write;

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, SchemaRef};

use super::Encode;

pub(super) struct CsvEncoder {
    /// What comes before the first row; empty once written.
    header: String,
}

impl CsvEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let names: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| quoted(field.name()))
            .collect();
        Self {
            header: names.join(",") + "\n",
        }
    }

    fn header(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(std::mem::take(&mut self.header).as_bytes());
    }
}

fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.contains([',', '"', '\n', '\r'])
        && !text.starts_with(char::is_whitespace)
        && !text.ends_with(char::is_whitespace);
    if plain {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('"', "\"\""))
    }
}

impl Encode for CsvEncoder {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.header(out);
        let options = FormatOptions::default();
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()?;
        let mut value = String::new();
        for row in 0..batch.num_rows() {
            for (index, (formatter, column)) in formatters.iter().zip(batch.columns()).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if column.is_null(row) {
                    continue;
                }
                value.clear();
                write!(value, "{}", formatter.value(row)).map_err(|_| {
                    ArrowError::CsvError(format!("a value of row {row} has no text form"))
                })?;
                out.extend_from_slice(quoted(&value).as_bytes());
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.header(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn only_what_needs_quotes_has_them() {
        assert_eq!(quoted("plain text"), "plain text");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(quoted("two\nlines"), "\"two\nlines\"");
        assert_eq!(quoted(" padded"), "\" padded\"");
    }
}
