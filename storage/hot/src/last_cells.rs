//! Cells of last rows. The numbers of a device lie side by side, so that writing a row touches one
//! place in memory and not one for each field; texts have a column each.

use std::{borrow::Cow, ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{ArrowError, Field};
use quiver_model::{FieldType, Pages};

/// Text of a last value that is kept: what stays in memory for every device for ever is bounded.
const TEXT_BYTES_MAX: usize = 1_024;

type Text = Option<Box<str>>;

/// One row of cells for each slot. A clone is cheap and stays as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells {
    fields: Vec<(Arc<Field>, Cell)>,
    blocks: Vec<Block>,
    texts: Vec<Pages<Text>>,
    text_bytes: usize,
}

/// Fields that came in one batch. A stream's later fields get a block of their own: the cells of
/// the earlier ones stay where they are.
#[derive(Clone, Debug)]
struct Block {
    fields: Range<usize>,
    /// For each slot words of bits (which cells are not null, and what is true), then a word for
    /// each number.
    cells: Pages<u64>,
}

/// Where the cell of a field is.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Int64 {
        block: usize,
        bit: usize,
        word: usize,
    },
    Float64 {
        block: usize,
        bit: usize,
        word: usize,
    },
    Time {
        block: usize,
        bit: usize,
        word: usize,
    },
    /// Its value is the bit after the one that says that there is one.
    Bool {
        block: usize,
        bit: usize,
    },
    Text {
        column: usize,
    },
}

/// What is written into a field's cells.
enum Source<'a> {
    /// Nulls: the batch is of an older schema.
    Absent,
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Time(&'a TimestampMicrosecondArray),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
}

fn is_set(cells: &[u64], bit: usize) -> bool {
    cells[bit / 64] >> (bit % 64) & 1 == 1
}

fn set(cells: &mut [u64], bit: usize, value: bool) {
    let word = &mut cells[bit / 64];
    *word = *word & !(1 << (bit % 64)) | u64::from(value) << (bit % 64);
}

impl Cells {
    /// The fields, in the stream's order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.fields.iter().map(|(field, _)| field)
    }

    /// The field at `index`.
    pub(crate) fn field(&self, index: usize) -> Option<&Arc<Field>> {
        self.fields.get(index).map(|(field, _)| field)
    }

    /// Adds fields; their cells of the `slots` that are there are null.
    pub(crate) fn learn(&mut self, fields: Vec<(Arc<Field>, FieldType)>, slots: usize) {
        let bits: usize = fields
            .iter()
            .map(|(_, field_type)| match field_type {
                FieldType::Int64 | FieldType::Float64 | FieldType::Timestamp => 1,
                FieldType::Bool => 2,
                FieldType::Utf8 => 0,
            })
            .sum();
        let block = self.blocks.len();
        let first = self.fields.len();
        let (mut bit, mut word) = (0, bits.div_ceil(64));
        for (field, field_type) in fields {
            let cell = match field_type {
                FieldType::Int64 => Cell::Int64 { block, bit, word },
                FieldType::Float64 => Cell::Float64 { block, bit, word },
                FieldType::Timestamp => Cell::Time { block, bit, word },
                FieldType::Bool => Cell::Bool { block, bit },
                FieldType::Utf8 => {
                    let mut texts = Pages::default();
                    texts.grow(slots, &None);
                    self.texts.push(texts);
                    Cell::Text {
                        column: self.texts.len() - 1,
                    }
                }
            };
            match cell {
                Cell::Int64 { .. } | Cell::Float64 { .. } | Cell::Time { .. } => {
                    (bit, word) = (bit + 1, word + 1)
                }
                Cell::Bool { .. } => bit += 2,
                Cell::Text { .. } => {}
            }
            self.fields.push((field, cell));
        }
        if word > 0 {
            let mut cells = Pages::of_width(word);
            cells.grow(slots, &0);
            self.blocks.push(Block {
                fields: first..self.fields.len(),
                cells,
            });
        }
    }

    /// Makes room for `slots` rows; new ones are null.
    pub(crate) fn grow(&mut self, slots: usize) {
        for block in &mut self.blocks {
            block.cells.grow(slots, &0);
        }
        for texts in &mut self.texts {
            texts.grow(slots, &None);
        }
    }

    /// Writes the rows of `winners` (slot, row) from a batch with these `columns` of fields.
    pub(crate) fn write(&mut self, winners: &[(usize, usize)], columns: &[ArrayRef]) {
        let sources: Vec<Source<'_>> = (self.fields.iter().enumerate())
            .map(|(index, (_, cell))| Source::of(*cell, columns.get(index)))
            .collect();
        for block in &mut self.blocks {
            let fields = block.fields.clone();
            let (places, sources) = (&self.fields[fields.clone()], &sources[fields]);
            for (slot, row) in winners {
                let Some(cells) = block.cells.row_mut(*slot) else {
                    continue;
                };
                for ((_, cell), source) in places.iter().zip(sources) {
                    source.write(*row, *cell, cells);
                }
            }
        }
        for ((_, cell), source) in self.fields.iter().zip(&sources) {
            let Cell::Text { column } = cell else {
                continue;
            };
            let texts = &mut self.texts[*column];
            let mut change = 0;
            for (slot, row) in winners {
                let Some(cell) = texts.get_mut(*slot) else {
                    continue;
                };
                let text = match source {
                    Source::Text(array) if array.is_valid(*row) => {
                        Some(shortened(array.value(*row)))
                    }
                    _ => None,
                };
                let text = text.as_deref();
                change += length(text) - length(cell.as_deref());
                if text != cell.as_deref() {
                    *cell = text.map(Box::from);
                }
            }
            self.text_bytes = self.text_bytes.saturating_add_signed(change);
        }
    }

    /// The cells of some slots, an array for each field.
    pub(crate) fn arrays(&self, slots: &Range<usize>) -> Result<Vec<ArrayRef>, ArrowError> {
        let fields = self.fields.iter();
        fields.map(|(_, cell)| self.array(*cell, slots)).collect()
    }

    fn array(&self, cell: Cell, slots: &Range<usize>) -> Result<ArrayRef, ArrowError> {
        let row = |block: usize, slot: usize| self.blocks[block].cells.row(slot);
        let bits = |block: usize, bit: usize| {
            BooleanBuffer::collect_bool(slots.len(), |index| {
                row(block, slots.start + index).is_some_and(|cells| is_set(cells, bit))
            })
        };
        let words = |block: usize, word: usize| {
            let words = slots.clone().map(move |slot| row(block, slot));
            words.map(move |cells| cells.map_or(0, |cells| cells[word]))
        };
        Ok(match cell {
            Cell::Int64 { block, bit, word } => {
                let values: Vec<i64> = words(block, word).map(u64::cast_signed).collect();
                let nulls = NullBuffer::new(bits(block, bit));
                Arc::new(Int64Array::new(values.into(), Some(nulls)))
            }
            Cell::Float64 { block, bit, word } => {
                let values: Vec<f64> = words(block, word).map(f64::from_bits).collect();
                let nulls = NullBuffer::new(bits(block, bit));
                Arc::new(Float64Array::new(values.into(), Some(nulls)))
            }
            Cell::Time { block, bit, word } => {
                let values: Vec<i64> = words(block, word).map(u64::cast_signed).collect();
                let nulls = NullBuffer::new(bits(block, bit));
                let times = TimestampMicrosecondArray::new(values.into(), Some(nulls));
                Arc::new(times.with_timezone("UTC"))
            }
            Cell::Bool { block, bit } => {
                let nulls = NullBuffer::new(bits(block, bit));
                Arc::new(BooleanArray::new(bits(block, bit + 1), Some(nulls)))
            }
            Cell::Text { column } => {
                let texts = &self.texts[column];
                let texts = slots.clone().map(|slot| texts.get(slot)?.as_deref());
                Arc::new(text_array(texts)?)
            }
        })
    }

    /// Bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|block| block.cells.bytes()).sum();
        let texts: usize = self.texts.iter().map(Pages::bytes).sum();
        blocks + texts + self.text_bytes
    }
}

impl<'a> Source<'a> {
    fn of(cell: Cell, column: Option<&'a ArrayRef>) -> Self {
        let Some(column) = column else {
            return Self::Absent;
        };
        match cell {
            Cell::Int64 { .. } => column.as_primitive_opt::<Int64Type>().map(Self::Int64),
            Cell::Float64 { .. } => column.as_primitive_opt::<Float64Type>().map(Self::Float64),
            Cell::Time { .. } => column.as_primitive_opt().map(Self::Time),
            Cell::Bool { .. } => column.as_boolean_opt().map(Self::Bool),
            Cell::Text { .. } => column.as_string_opt::<i32>().map(Self::Text),
        }
        .unwrap_or(Self::Absent)
    }

    fn write(&self, row: usize, cell: Cell, cells: &mut [u64]) {
        match cell {
            Cell::Int64 { bit, word, .. }
            | Cell::Float64 { bit, word, .. }
            | Cell::Time { bit, word, .. } => {
                let number = match self {
                    Self::Int64(array) if array.is_valid(row) => {
                        Some(array.value(row).cast_unsigned())
                    }
                    Self::Time(array) if array.is_valid(row) => {
                        Some(array.value(row).cast_unsigned())
                    }
                    Self::Float64(array) if array.is_valid(row) => Some(array.value(row).to_bits()),
                    _ => None,
                };
                set(cells, bit, number.is_some());
                cells[word] = number.unwrap_or(0);
            }
            Cell::Bool { bit, .. } => {
                let value = match self {
                    Self::Bool(array) if array.is_valid(row) => Some(array.value(row)),
                    _ => None,
                };
                set(cells, bit, value.is_some());
                set(cells, bit + 1, value.unwrap_or(false));
            }
            Cell::Text { .. } => {}
        }
    }
}

/// Arrow's own builder panics where offsets of 32 bits do not suffice.
fn text_array<'a>(
    texts: impl Iterator<Item = Option<&'a str>> + Clone,
) -> Result<StringArray, ArrowError> {
    let bytes: usize = texts.clone().flatten().map(str::len).sum();
    if i32::try_from(bytes).is_err() {
        return Err(ArrowError::ComputeError(format!(
            "last values of one field have {bytes} bytes of text, more than 2 GiB"
        )));
    }
    Ok(texts.collect())
}

/// Text up to what is kept, cut between characters and marked with `…` if it is longer.
fn shortened(text: &str) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= TEXT_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let mut end = TEXT_BYTES_MAX - MARK.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

fn length(text: Option<&str>) -> isize {
    text.map_or(0, |text| isize::try_from(text.len()).unwrap_or(isize::MAX))
}
