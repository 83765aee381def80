//! From payloads to record batches.
//!
//! A batch takes one allocation for all its numbers, validity bitmaps and offsets, one for its
//! texts, and one for each array; its size is known from the header and checked before.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float16Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatch, RecordBatchOptions,
    StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use bytes::Bytes;
use quiver_model::BatchRefusal;

use super::{
    format::{
        ALL_NULL, ALL_VALID, FLAG_BITS, Kind, MODES, Mode, Modes, NULLS, Predecessor, RESTART,
        Reader, SOME_NULL,
    },
    numbers::read_numbers,
    rebase::Rebased,
    texts::{KNOWN, LITERAL, REMEMBER, Texts},
};
use crate::{
    ipc::{malformed, shielded, too_large},
    limits::DecodeLimits,
};

/// What is known of a column between batches.
#[derive(Debug)]
struct Column {
    kind: Kind,
    mode: Mode,
    before: Predecessor,
    texts: Option<Box<Texts>>,
}

/// Where the parts of a column lie in the batch's buffers.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Its validity bitmap, if some values are null.
    validity: Option<usize>,
    /// Its values, or the offsets of its texts.
    values: usize,
    /// Its texts, from and to.
    texts: (usize, usize),
}

/// A batch that was decoded.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub batch: RecordBatch,
    /// A payload that says the same and decodes alone; empty if it was not asked for.
    pub stored: Bytes,
}

/// Decodes the payloads of one QUIC stream, in order. After an error it can only go on with one that
/// begins anew: what others refer to is unknown.
#[derive(Debug)]
pub(crate) struct CompactDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Whether a batch began anew, as the first must.
    is_started: bool,
    /// What the columns' tables of texts hold together.
    remembered: usize,
    rebased: Rebased,
    // Kept for their memory.
    kinds_of_nulls: Vec<u8>,
    places: Vec<Place>,
    /// Rows and size of the batch that the places are of, if it had no nulls.
    placed: Option<(usize, usize)>,
    texts: Vec<u8>,
}

impl CompactDecoder {
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self, BatchRefusal> {
        let column = |field: &arrow_schema::FieldRef| -> Result<Column, BatchRefusal> {
            let kind = Kind::of(field.data_type()).ok_or_else(|| {
                malformed(format!(
                    "column {:?} has type {}, which the compact encoding does not write",
                    field.name(),
                    field.data_type()
                ))
            })?;
            Ok(Column {
                kind,
                mode: kind.first_mode(),
                before: Predecessor::default(),
                texts: None,
            })
        };
        Ok(Self {
            columns: schema
                .fields()
                .iter()
                .map(column)
                .collect::<Result<_, _>>()?,
            schema: Arc::clone(schema),
            is_started: false,
            remembered: 0,
            rebased: Rebased::default(),
            kinds_of_nulls: Vec::new(),
            places: Vec::new(),
            placed: None,
            texts: Vec::new(),
        })
    }

    /// Decodes the next payload; with `rebase` also writes it so that it decodes alone.
    pub(crate) fn decode(
        &mut self,
        payload: &[u8],
        limits: &DecodeLimits,
        rebase: bool,
    ) -> Result<Decoded, BatchRefusal> {
        shielded(|| self.decode_next(payload, limits, rebase))
    }

    fn decode_next(
        &mut self,
        payload: &[u8],
        limits: &DecodeLimits,
        rebase: bool,
    ) -> Result<Decoded, BatchRefusal> {
        if self.columns.len() > limits.columns {
            return Err(too_large("columns", self.columns.len(), limits.columns));
        }
        let mut reader = Reader::new(payload);
        let header = reader.varint().ok_or_else(|| cut_off("the header"))?;
        let rows = usize::try_from(header >> FLAG_BITS)
            .ok()
            .filter(|rows| *rows <= limits.rows)
            .ok_or_else(|| too_large("rows", header >> FLAG_BITS, limits.rows))?;
        let is_restart = header & RESTART != 0;
        self.read_modes(&mut reader, is_restart, header & MODES != 0)?;
        // What decodes alone is kept as it came.
        let rebase_here = rebase && !is_restart;
        if rebase_here {
            let modes = self.columns.iter().map(|column| (column.kind, column.mode));
            self.rebased.begin(rows, header & NULLS != 0, modes);
        }
        self.read_kinds_of_nulls(&mut reader, header & NULLS != 0)?;
        if rebase_here {
            self.rebased.copy(&self.kinds_of_nulls);
        }

        // No ratio to the payload: a text or a null of many rows is a byte each, and what the log keeps
        // may be shorter than what came.
        let decoded_max = limits.decoded_bytes;
        let fixed_bytes = self.place(rows);
        if fixed_bytes > decoded_max {
            return Err(too_large("bytes decoded", fixed_bytes, decoded_max));
        }
        let mut buffer = MutableBuffer::from_len_zeroed(fixed_bytes);
        self.texts.clear();
        for at in 0..self.columns.len() {
            self.read_column(at, rows, &mut reader, &mut buffer, decoded_max, rebase_here)
                .map_err(|fault| fault.of(&self.schema, at, decoded_max))?;
        }
        if !reader.rest().is_empty() {
            return Err(malformed(format!(
                "{} bytes follow the last column of a compact batch",
                reader.rest().len()
            )));
        }
        let batch = self.batch(rows, buffer)?;
        let stored = match (rebase, rebase_here) {
            (_, true) => self.rebased.finish(),
            (true, false) => Bytes::copy_from_slice(payload),
            (false, _) => Bytes::new(),
        };
        Ok(Decoded { batch, stored })
    }

    fn read_modes(
        &mut self,
        reader: &mut Reader<'_>,
        is_restart: bool,
        has_changes: bool,
    ) -> Result<(), BatchRefusal> {
        let bad = || malformed("a compact batch names a mode that its column cannot have");
        if is_restart {
            if has_changes {
                return Err(malformed(
                    "a compact batch that begins anew cannot change modes besides",
                ));
            }
            self.is_started = true;
            self.remembered = 0;
            for column in &mut self.columns {
                column.before = Predecessor::default();
                if let Some(texts) = &mut column.texts {
                    texts.clear();
                }
                let modes = column.kind.modes();
                if modes != Modes::None {
                    let number = reader.byte().ok_or_else(|| cut_off("the modes"))?;
                    column.mode = Mode::from_number(number, modes).ok_or_else(bad)?;
                }
            }
            return Ok(());
        }
        if !self.is_started {
            return Err(malformed(
                "the first compact batch of a QUIC stream must begin anew (RESTART)",
            ));
        }
        if !has_changes {
            return Ok(());
        }
        let count = reader.varint().ok_or_else(|| cut_off("the modes"))?;
        let mut next = 0;
        for _ in 0..count {
            let at = reader
                .varint()
                .and_then(|at| usize::try_from(at).ok())
                .ok_or_else(|| cut_off("the modes"))?;
            let number = reader.byte().ok_or_else(|| cut_off("the modes"))?;
            // Rising, so that there are no more than columns.
            let column = self
                .columns
                .get_mut(at)
                .filter(|_| at >= next)
                .ok_or_else(|| {
                    malformed(
                        "a compact batch changes the modes of columns that are not there, or not in order",
                    )
                })?;
            next = at + 1;
            column.mode = Mode::from_number(number, column.kind.modes()).ok_or_else(bad)?;
            column.before = Predecessor::default();
        }
        Ok(())
    }

    /// Keeps the packed kinds of nulls; without them there are none.
    fn read_kinds_of_nulls(
        &mut self,
        reader: &mut Reader<'_>,
        has_nulls: bool,
    ) -> Result<(), BatchRefusal> {
        self.kinds_of_nulls.clear();
        if has_nulls {
            let packed = reader
                .take(self.columns.len().div_ceil(4))
                .ok_or_else(|| cut_off("the kinds of nulls"))?;
            self.kinds_of_nulls.extend_from_slice(packed);
        }
        Ok(())
    }

    #[inline]
    fn kind_of_nulls(&self, at: usize) -> u8 {
        if self.kinds_of_nulls.is_empty() {
            return ALL_VALID;
        }
        let packed = self.kinds_of_nulls.get(at / 4).copied().unwrap_or(0);
        packed >> (2 * (at % 4)) & 3
    }

    /// Gives each column its place in the batch's buffer, aligned for any type; the buffer's size.
    fn place(&mut self, rows: usize) -> usize {
        let has_nulls = !self.kinds_of_nulls.is_empty();
        if let (Some((of_rows, end)), false) = (self.placed, has_nulls)
            && of_rows == rows
        {
            return end;
        }
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        let mut end: usize = 0;
        for (at, column) in self.columns.iter().enumerate() {
            let has_validity = self.kind_of_nulls(at) != ALL_VALID && column.kind != Kind::Null;
            let validity = has_validity.then_some(end);
            if has_validity {
                end = end.saturating_add(rows.div_ceil(8).next_multiple_of(8));
            }
            places.push(Place {
                validity,
                values: end,
                texts: (0, 0),
            });
            end = end.saturating_add(column.kind.bytes(rows).next_multiple_of(8));
        }
        self.places = places;
        self.placed = (!has_nulls).then_some((rows, end));
        end
    }

    fn read_column(
        &mut self,
        at: usize,
        rows: usize,
        reader: &mut Reader<'_>,
        buffer: &mut [u8],
        decoded_max: usize,
        rebase: bool,
    ) -> Result<(), Fault> {
        let kind_of_nulls = self.kind_of_nulls(at);
        let column = self.columns.get_mut(at).ok_or(Fault::Short)?;
        let place = self.places.get_mut(at).ok_or(Fault::Short)?;
        let fixed_bytes = buffer.len();
        let region = buffer.get_mut(place.validity.unwrap_or(place.values)..);
        let (validity, values) = region
            .and_then(|region| {
                region.split_at_mut_checked(place.values - place.validity.unwrap_or(place.values))
            })
            .ok_or(Fault::Short)?;
        let values = values
            .get_mut(..column.kind.bytes(rows))
            .ok_or(Fault::Short)?;
        let present = match kind_of_nulls {
            ALL_VALID => rows,
            ALL_NULL => 0,
            SOME_NULL if column.kind != Kind::Null => {
                let bits = reader.take(rows.div_ceil(8)).ok_or(Fault::Short)?;
                let validity = validity.get_mut(..bits.len()).ok_or(Fault::Short)?;
                validity.copy_from_slice(bits);
                clear_behind(validity, rows);
                if rebase {
                    self.rebased.copy(validity);
                }
                validity
                    .iter()
                    .map(|byte| byte.count_ones() as usize)
                    .sum::<usize>()
            }
            _ => return Err(Fault::KindOfNulls),
        };
        let valid = (present < rows).then_some(&*validity);
        let before = column.before;
        let start = *reader;
        match column.kind {
            Kind::Null => {}
            Kind::Bool => {
                let bits = reader.take(present.div_ceil(8)).ok_or(Fault::Short)?;
                read_bools(bits, values, rows, valid);
            }
            Kind::Text | Kind::LargeText => {
                let texts = column.texts.get_or_insert_default();
                let from = self.texts.len();
                let mut target = TextsTarget {
                    texts: &mut self.texts,
                    from,
                    max: decoded_max.saturating_sub(fixed_bytes),
                    table: texts,
                    remembered: &mut self.remembered,
                    rebased: rebase.then_some(&mut self.rebased),
                    is_single: rows == 1,
                };
                if column.kind == Kind::Text {
                    target.read(reader, values, valid, |end| {
                        i32::try_from(end).ok().map(i32::to_ne_bytes)
                    })?;
                } else {
                    target.read(reader, values, valid, |end| {
                        i64::try_from(end).ok().map(i64::to_ne_bytes)
                    })?;
                }
                place.texts = (from, self.texts.len());
                return Ok(());
            }
            kind => {
                let dense = values.get_mut(..kind.bytes(present)).ok_or(Fault::Short)?;
                read_numbers(kind, column.mode, &mut column.before, reader, dense)?;
                if let Some(valid) = valid {
                    spread(values, rows, present, valid);
                }
            }
        }
        if rebase {
            let length = start.rest().len() - reader.rest().len();
            let written = start.rest().get(..length).ok_or(Fault::Short)?;
            self.rebased
                .column(column.kind, column.mode, before, written, present)
                .ok_or(Fault::Short)?;
        }
        Ok(())
    }

    /// The batch whose columns were read into the buffers.
    fn batch(&self, rows: usize, buffer: MutableBuffer) -> Result<RecordBatch, BatchRefusal> {
        let buffer = Buffer::from(buffer);
        let texts = match self.texts.is_empty() {
            true => None,
            false => Some(Buffer::from_slice_ref(&self.texts)),
        };
        let mut arrays = Vec::with_capacity(self.columns.len());
        for ((field, column), place) in self
            .schema
            .fields()
            .iter()
            .zip(&self.columns)
            .zip(&self.places)
        {
            let nulls = place
                .validity
                .map(|at| NullBuffer::new(BooleanBuffer::new(buffer.clone(), 8 * at, rows)));
            let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
            let content = || {
                let (from, to) = place.texts;
                texts.as_ref().map_or_else(Buffer::default, |texts| {
                    texts.slice_with_length(from, to - from)
                })
            };
            arrays.push(array(
                field.data_type(),
                column.kind,
                &buffer,
                place.values,
                rows,
                nulls,
                content,
            )?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|error| malformed(error.to_string()))
    }
}

/// Why a column cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The payload ends before the column does, or holds no varint where one must be.
    Short,
    /// A value is beyond the column's type.
    Range,
    /// Null kind 3, or a bitmap for a column of nulls.
    KindOfNulls,
    /// A text is no UTF-8.
    Utf8,
    /// A text is named that was not told.
    UnknownText,
    /// More is to be remembered than may be.
    Memory,
    /// The texts are longer than a batch may be.
    TooLong,
}

impl Fault {
    fn of(self, schema: &SchemaRef, at: usize, decoded_max: usize) -> BatchRefusal {
        let what = match self {
            Self::Short => "its values end early, or are no varints",
            Self::Range => "a value is beyond its type",
            Self::KindOfNulls => "it cannot have this kind of nulls",
            Self::Utf8 => "a text is not UTF-8",
            Self::UnknownText => "a text is named by a number that was not given",
            Self::Memory => {
                "more texts, or longer ones, are to be remembered than limits allow: send them as literals"
            }
            Self::TooLong => return too_large("bytes decoded", "more", decoded_max),
        };
        let name = schema.fields().get(at).map_or("", |field| field.name());
        malformed(format!("column {name:?} of a compact batch: {what}"))
    }
}

fn cut_off(what: &str) -> BatchRefusal {
    malformed(format!("a compact batch ends within {what}"))
}

/// Clears the bits behind the first `count` ones.
fn clear_behind(bits: &mut [u8], count: usize) {
    if let (Some(last), true) = (bits.last_mut(), !count.is_multiple_of(8)) {
        *last &= (1 << (count % 8)) - 1;
    }
}

#[inline]
fn is_set(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8)
        .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

fn read_bools(bits: &[u8], values: &mut [u8], rows: usize, valid: Option<&[u8]>) {
    match valid {
        None => {
            values.copy_from_slice(bits);
            clear_behind(values, rows);
        }
        Some(valid) => {
            let mut next = 0;
            for row in 0..rows {
                if is_set(valid, row) {
                    if is_set(bits, next)
                        && let Some(byte) = values.get_mut(row / 8)
                    {
                        *byte |= 1 << (row % 8);
                    }
                    next += 1;
                }
            }
        }
    }
}

/// Moves the values that are there, which lie one behind the other, to their rows.
fn spread(values: &mut [u8], rows: usize, present: usize, valid: &[u8]) {
    let width = values.len() / rows.max(1);
    let mut next = present;
    for row in (0..rows).rev() {
        if is_set(valid, row) {
            next -= 1;
            if next != row {
                values.copy_within(next * width..(next + 1) * width, row * width);
            }
        } else if row < present
            && let Some(value) = values.get_mut(row * width..(row + 1) * width)
        {
            value.fill(0);
        }
    }
}

/// Where the texts of a column go.
struct TextsTarget<'a> {
    texts: &'a mut Vec<u8>,
    from: usize,
    max: usize,
    table: &'a mut Texts,
    remembered: &'a mut usize,
    rebased: Option<&'a mut Rebased>,
    is_single: bool,
}

impl TextsTarget<'_> {
    fn read<const N: usize>(
        &mut self,
        reader: &mut Reader<'_>,
        offsets: &mut [u8],
        valid: Option<&[u8]>,
        offset: impl Fn(usize) -> Option<[u8; N]>,
    ) -> Result<(), Fault> {
        if let Some(rebased) = &mut self.rebased {
            rebased.begin_texts();
        }
        let (slots, _) = offsets.as_chunks_mut::<N>();
        // The first offset is 0, as the buffer is.
        for (row, slot) in slots.iter_mut().skip(1).enumerate() {
            if valid.is_none_or(|valid| is_set(valid, row)) {
                self.next(reader)?;
            }
            *slot = offset(self.texts.len() - self.from).ok_or(Fault::TooLong)?;
        }
        Ok(())
    }

    fn next(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let what = reader.varint().ok_or(Fault::Short)?;
        let (text, slot) = match what {
            LITERAL | REMEMBER => {
                let length = reader
                    .varint()
                    .and_then(|length| usize::try_from(length).ok());
                let bytes = length
                    .and_then(|length| reader.take(length))
                    .ok_or(Fault::Short)?;
                let text = std::str::from_utf8(bytes).map_err(|_| Fault::Utf8)?;
                let slot = match what {
                    REMEMBER => Some(
                        self.table
                            .remember(text, self.remembered)
                            .ok_or(Fault::Memory)?,
                    ),
                    _ => None,
                };
                (text, slot)
            }
            known => {
                let slot = known - KNOWN;
                let text = self.table.get(slot).ok_or(Fault::UnknownText)?;
                (text, Some(slot))
            }
        };
        if text.len() > self.max.saturating_sub(self.texts.len()) {
            return Err(Fault::TooLong);
        }
        self.texts.extend_from_slice(text.as_bytes());
        let Some(rebased) = &mut self.rebased else {
            return Ok(());
        };
        match slot.filter(|_| !self.is_single) {
            None => rebased.literal(text),
            Some(slot) => {
                let known = self.table.place_in(rebased.record(), slot);
                let place = rebased.text(text, known);
                if let Some(place) = place {
                    self.table.set_place(rebased.record(), slot, place);
                }
            }
        }
        Ok(())
    }
}

fn array(
    data_type: &DataType,
    kind: Kind,
    buffer: &Buffer,
    at: usize,
    rows: usize,
    nulls: Option<NullBuffer>,
    content: impl Fn() -> Buffer,
) -> Result<ArrayRef, BatchRefusal> {
    macro_rules! numbers {
        ($array:ty) => {{
            let values = buffer.slice_with_length(at, kind.bytes(rows));
            Arc::new(<$array>::new(ScalarBuffer::from(values), nulls)) as ArrayRef
        }};
    }
    macro_rules! timestamps {
        ($array:ty, $zone:expr) => {{
            let values = buffer.slice_with_length(at, kind.bytes(rows));
            let array = <$array>::new(ScalarBuffer::from(values), nulls);
            Arc::new(array.with_timezone_opt($zone.clone())) as ArrayRef
        }};
    }
    macro_rules! texts {
        ($array:ty, $offset:ty) => {{
            let offsets = buffer.slice_with_length(at, kind.bytes(rows));
            let offsets = OffsetBuffer::<$offset>::new(ScalarBuffer::from(offsets));
            let array = <$array>::try_new(offsets, content(), nulls)
                .map_err(|error| malformed(error.to_string()))?;
            Arc::new(array) as ArrayRef
        }};
    }
    Ok(match (kind, data_type) {
        (Kind::I8, _) => numbers!(Int8Array),
        (Kind::I16, _) => numbers!(Int16Array),
        (Kind::I32, _) => numbers!(Int32Array),
        (Kind::I64, _) => numbers!(Int64Array),
        (Kind::U8, _) => numbers!(UInt8Array),
        (Kind::U16, _) => numbers!(UInt16Array),
        (Kind::U32, _) => numbers!(UInt32Array),
        (Kind::U64, _) => numbers!(UInt64Array),
        (Kind::F16, _) => numbers!(Float16Array),
        (Kind::F32, _) => numbers!(Float32Array),
        (Kind::F64, _) => numbers!(Float64Array),
        (Kind::Timestamp, DataType::Timestamp(unit, zone)) => match unit {
            TimeUnit::Second => timestamps!(TimestampSecondArray, zone),
            TimeUnit::Millisecond => timestamps!(TimestampMillisecondArray, zone),
            TimeUnit::Microsecond => timestamps!(TimestampMicrosecondArray, zone),
            TimeUnit::Nanosecond => timestamps!(TimestampNanosecondArray, zone),
        },
        (Kind::Timestamp, other) => {
            return Err(malformed(format!("{other} is no timestamp")));
        }
        (Kind::Bool, _) => {
            let values = BooleanBuffer::new(buffer.clone(), 8 * at, rows);
            Arc::new(BooleanArray::new(values, nulls))
        }
        (Kind::Text, _) => texts!(StringArray, i32),
        (Kind::LargeText, _) => texts!(LargeStringArray, i64),
        (Kind::Null, _) => Arc::new(NullArray::new(rows)),
    })
}
