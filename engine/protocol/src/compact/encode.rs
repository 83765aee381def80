//! From record batches to payloads.
//!
//! The modes of a column hold on: a decimal exponent that served before is tried first and only
//! grows, so that a steady stream never changes modes. Values that no exponent writes exactly (full
//! precision, infinities, NaN, -0.0) make their column [`Mode::Xor`] for the batch.

use arrow_array::{
    Array, ArrayRef, BooleanArray, OffsetSizeTrait, PrimitiveArray,
    cast::AsArray,
    types::{
        ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, Schema, TimeUnit};

use super::{
    format::{
        ALL_NULL, ALL_VALID, FLAG_BITS, Kind, MODES, Mode, Modes, NULLS, Predecessor, RESTART,
        SOME_NULL, decimal, power, put_varint, put_xor, zigzag,
    },
    texts::{KNOWN, LITERAL, REMEMBER, ToldTexts},
};

/// Largest exponent that is looked for: with more digits than that most float64 of ordinary size
/// are decimals by accident, and their bits are shorter.
const DECIMALS_MAX: u8 = 10;
/// Largest n of a decimal: all whole numbers up to here are exact as float64.
const EXACT_MAX: f64 = (1_u64 << 53) as f64;
/// After so many batches in a row whose decimals end in 0 the exponent goes down by one; the next
/// one is for the taking after `IDLE_STEP` more.
const IDLE_MAX: u8 = 32;
const IDLE_STEP: u8 = 8;
/// How many batches a column is [`Mode::Xor`] at most before decimals are looked for again.
const PATIENCE_MAX: u8 = 64;

#[derive(Debug)]
struct Column {
    kind: Kind,
    mode: Mode,
    before: Predecessor,
    texts: ToldTexts,
    /// The exponent that served last, and for how many batches a smaller one would have.
    exponent: u8,
    idle: u8,
    /// Batches for which decimals are not looked for, and how many it will be next time.
    rest: u8,
    patience: u8,
}

/// Encodes the batches of one schema.
#[derive(Debug)]
pub(crate) struct CompactEncoder {
    columns: Vec<Column>,
    is_started: bool,
    remembered: usize,
    // Kept for their memory.
    changed: Vec<(usize, Mode)>,
    kinds_of_nulls: Vec<u8>,
    blocks: Vec<u8>,
    values: Vec<u64>,
    whole: Vec<i64>,
}

impl CompactEncoder {
    /// An encoder for columns of types that telemetry may have, dictionaries excepted; `None` for
    /// others.
    pub(crate) fn new(schema: &Schema) -> Option<Self> {
        let column = |field: &arrow_schema::FieldRef| {
            let kind = Kind::of(field.data_type())?;
            let mode = kind.first_mode();
            Some(Column {
                kind,
                mode,
                before: Predecessor::default(),
                texts: ToldTexts::default(),
                exponent: match mode {
                    Mode::DeltaOfDelta(exponent) => exponent,
                    _ => 0,
                },
                idle: 0,
                rest: 0,
                patience: 1,
            })
        };
        Some(Self {
            columns: schema.fields().iter().map(column).collect::<Option<_>>()?,
            is_started: false,
            remembered: 0,
            changed: Vec::new(),
            kinds_of_nulls: Vec::new(),
            blocks: Vec::new(),
            values: Vec::new(),
            whole: Vec::new(),
        })
    }

    /// The next payload begins anew.
    pub(crate) fn restart(&mut self) {
        self.is_started = false;
    }

    /// Appends the payload of a batch of these columns. It refers to those before it, unless it
    /// `is_alone` or is the first.
    pub(crate) fn encode(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        is_alone: bool,
        out: &mut Vec<u8>,
    ) {
        let is_restart = is_alone || !self.is_started;
        if is_restart {
            self.is_started = true;
            self.remembered = 0;
            for column in &mut self.columns {
                column.before = Predecessor::default();
                column.texts.clear();
            }
        }
        self.changed.clear();
        self.blocks.clear();
        self.kinds_of_nulls.clear();
        self.kinds_of_nulls.resize(columns.len().div_ceil(4), 0);
        let mut has_nulls = false;
        for (at, array) in columns.iter().enumerate() {
            let kind_of_nulls = self.nulls(at, array);
            has_nulls |= kind_of_nulls != ALL_VALID;
            if let Some(packed) = self.kinds_of_nulls.get_mut(at / 4) {
                *packed |= kind_of_nulls << (2 * (at % 4));
            }
            self.column(at, array, rows == 1 && is_alone);
        }
        let has_changes = !is_restart && !self.changed.is_empty();
        let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
        put_varint(
            out,
            (rows as u64) << FLAG_BITS
                | flag(is_restart, RESTART)
                | flag(has_nulls, NULLS)
                | flag(has_changes, MODES),
        );
        if is_restart {
            for column in &self.columns {
                if column.kind.modes() != Modes::None {
                    out.push(column.mode.number());
                }
            }
        } else if has_changes {
            put_varint(out, self.changed.len() as u64);
            for (at, mode) in &self.changed {
                put_varint(out, *at as u64);
                out.push(mode.number());
            }
        }
        if has_nulls {
            out.extend_from_slice(&self.kinds_of_nulls);
        }
        out.extend_from_slice(&self.blocks);
    }

    /// The kind of nulls of a column; its validity bitmap goes to the blocks.
    fn nulls(&mut self, at: usize, array: &ArrayRef) -> u8 {
        let is_of_nulls = self
            .columns
            .get(at)
            .is_some_and(|column| column.kind == Kind::Null);
        let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) else {
            return ALL_VALID;
        };
        if is_of_nulls {
            return ALL_VALID;
        }
        if nulls.null_count() == array.len() {
            return ALL_NULL;
        }
        put_bits(&mut self.blocks, nulls.iter());
        SOME_NULL
    }

    fn column(&mut self, at: usize, array: &ArrayRef, is_single: bool) {
        let Some(column) = self.columns.get_mut(at) else {
            return;
        };
        self.values.clear();
        let values = &mut self.values;
        match column.kind {
            Kind::Null => return,
            Kind::Bool => {
                let bools: &BooleanArray = array.as_boolean();
                return put_bits(&mut self.blocks, bools.iter().flatten());
            }
            Kind::Text => {
                return put_texts::<i32>(
                    &mut self.blocks,
                    &mut column.texts,
                    &mut self.remembered,
                    array,
                    is_single,
                );
            }
            Kind::LargeText => {
                return put_texts::<i64>(
                    &mut self.blocks,
                    &mut column.texts,
                    &mut self.remembered,
                    array,
                    is_single,
                );
            }
            Kind::I8 => dense(array.as_primitive::<Int8Type>(), values, |n| {
                n as i64 as u64
            }),
            Kind::I16 => dense(array.as_primitive::<Int16Type>(), values, |n| {
                n as i64 as u64
            }),
            Kind::I32 => dense(array.as_primitive::<Int32Type>(), values, |n| {
                n as i64 as u64
            }),
            Kind::I64 => dense(array.as_primitive::<Int64Type>(), values, |n| n as u64),
            Kind::U8 => dense(array.as_primitive::<UInt8Type>(), values, u64::from),
            Kind::U16 => dense(array.as_primitive::<UInt16Type>(), values, u64::from),
            Kind::U32 => dense(array.as_primitive::<UInt32Type>(), values, u64::from),
            Kind::U64 => dense(array.as_primitive::<UInt64Type>(), values, |n| n),
            Kind::F16 => dense(array.as_primitive::<Float16Type>(), values, |value| {
                u64::from(value.to_bits())
            }),
            Kind::F32 => dense(array.as_primitive::<Float32Type>(), values, |value| {
                u64::from(value.to_bits())
            }),
            Kind::F64 => dense(array.as_primitive::<Float64Type>(), values, f64::to_bits),
            Kind::Timestamp => {
                let bits = |n: i64| n as u64;
                match array.data_type() {
                    DataType::Timestamp(TimeUnit::Second, _) => {
                        dense(array.as_primitive::<TimestampSecondType>(), values, bits);
                    }
                    DataType::Timestamp(TimeUnit::Millisecond, _) => {
                        dense(
                            array.as_primitive::<TimestampMillisecondType>(),
                            values,
                            bits,
                        );
                    }
                    DataType::Timestamp(TimeUnit::Microsecond, _) => {
                        dense(
                            array.as_primitive::<TimestampMicrosecondType>(),
                            values,
                            bits,
                        );
                    }
                    _ => dense(
                        array.as_primitive::<TimestampNanosecondType>(),
                        values,
                        bits,
                    ),
                }
            }
        }
        let mode = match column.kind.modes() {
            Modes::Float => column.float_mode(&self.values, &mut self.whole),
            _ => column.whole_mode(&self.values),
        };
        if mode != column.mode {
            column.mode = mode;
            column.before = Predecessor::default();
            self.changed.push((at, mode));
        }
        column.put(&self.values, &self.whole, &mut self.blocks);
    }
}

impl Column {
    /// The mode of whole numbers: timestamps are whole milliseconds for as long as all were.
    fn whole_mode(&mut self, values: &[u64]) -> Mode {
        if self.kind != Kind::Timestamp {
            return Mode::Delta(0);
        }
        if self.exponent > 0 {
            let power = power(self.exponent);
            if values.iter().any(|value| value.cast_signed() % power != 0) {
                self.exponent = 0;
            }
        }
        Mode::DeltaOfDelta(self.exponent)
    }

    /// The mode of floats; for decimals, `whole` then has their n.
    fn float_mode(&mut self, values: &[u64], whole: &mut Vec<i64>) -> Mode {
        if values.is_empty() {
            return self.mode;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Mode::Xor;
        }
        let found = match self.kind {
            Kind::F32 => decimals(
                values,
                &mut self.exponent,
                whole,
                |bits| f64::from(f32::from_bits(bits as u32)),
                |n, power| u64::from((decimal(n, power) as f32).to_bits()),
            ),
            _ => decimals(
                values,
                &mut self.exponent,
                whole,
                f64::from_bits,
                |n, power| decimal(n, power).to_bits(),
            ),
        };
        if found {
            self.patience = 1;
            self.lower_exponent(whole);
            return Mode::Decimal(self.exponent);
        }
        self.rest = self.patience;
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        Mode::Xor
    }

    /// An exponent that a single value raised long ago makes all deltas longer.
    fn lower_exponent(&mut self, whole: &mut [i64]) {
        if self.exponent == 0 || whole.iter().any(|n| n % 10 != 0) {
            self.idle = 0;
            return;
        }
        self.idle += 1;
        if self.idle >= IDLE_MAX {
            self.idle = IDLE_MAX - IDLE_STEP;
            self.exponent -= 1;
            for n in whole {
                *n /= 10;
            }
        }
    }

    fn put(&mut self, values: &[u64], whole: &[i64], out: &mut Vec<u8>) {
        let before = &mut self.before;
        match self.mode {
            Mode::Delta(_) => {
                let mut n = before.n();
                for value in values {
                    let value = value.cast_signed();
                    put_varint(out, zigzag(value.wrapping_sub(n)));
                    n = value;
                }
                before.value = n.cast_unsigned();
            }
            Mode::DeltaOfDelta(exponent) => {
                let power = power(exponent);
                let mut n = before.n();
                for value in values {
                    let next = value.cast_signed() / power;
                    if before.is_set {
                        let delta = next.wrapping_sub(n);
                        put_varint(out, zigzag(delta.wrapping_sub(before.delta)));
                        before.delta = delta;
                    } else {
                        put_varint(out, zigzag(next));
                        before.is_set = true;
                    }
                    n = next;
                }
                before.value = n.cast_unsigned();
            }
            Mode::Decimal(_) => {
                let mut n = before.n();
                for next in whole.iter().take(values.len()) {
                    put_varint(out, zigzag(next.wrapping_sub(n)));
                    n = *next;
                }
                before.value = n.cast_unsigned();
            }
            Mode::Xor => {
                let width = self.kind.bytes(1);
                for value in values {
                    put_xor(out, before.value ^ value, width);
                    before.value = *value;
                }
            }
        }
    }
}

/// Fills `whole` with what makes `values` decimals, and raises `exponent` if it has to be; whether
/// there is an exponent that serves all of them. They are exact: `back` gives the same bits.
fn decimals(
    values: &[u64],
    exponent: &mut u8,
    whole: &mut Vec<i64>,
    value: impl Fn(u64) -> f64,
    back: impl Fn(i64, f64) -> u64,
) -> bool {
    let n_of = |bits: u64, power: f64| {
        let scaled = (value(bits) * power).round_ties_even();
        // False for NaN and infinities too.
        (scaled.abs() <= EXACT_MAX)
            .then_some(scaled as i64)
            .filter(|n| back(*n, power) == bits)
    };
    let mut tried = *exponent;
    'exponents: loop {
        whole.clear();
        let scale = power(tried) as f64;
        for bits in values {
            match n_of(*bits, scale) {
                Some(n) => whole.push(n),
                None => {
                    let Some(next) = (tried + 1..=DECIMALS_MAX)
                        .find(|more| n_of(*bits, power(*more) as f64).is_some())
                    else {
                        return false;
                    };
                    tried = next;
                    continue 'exponents;
                }
            }
        }
        *exponent = tried;
        return true;
    }
}

/// The values that are not null.
fn dense<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    out: &mut Vec<u64>,
    bits: impl Fn(T::Native) -> u64,
) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => out.extend(array.values().iter().map(|value| bits(*value))),
        Some(_) => out.extend(array.iter().flatten().map(bits)),
    }
}

/// Packs bits, the first into the lowest bit of the first byte.
fn put_bits(out: &mut Vec<u8>, bits: impl Iterator<Item = bool>) {
    let (mut byte, mut count) = (0, 0);
    for bit in bits {
        byte |= u8::from(bit) << count;
        count += 1;
        if count == 8 {
            out.push(byte);
            (byte, count) = (0, 0);
        }
    }
    if count > 0 {
        out.push(byte);
    }
}

fn put_texts<O: OffsetSizeTrait>(
    out: &mut Vec<u8>,
    told: &mut ToldTexts,
    remembered: &mut usize,
    array: &ArrayRef,
    is_single: bool,
) {
    for text in array.as_string::<O>().iter().flatten() {
        if let Some(number) = told.number(text) {
            put_varint(out, KNOWN + number);
            continue;
        }
        let is_remembered = !is_single && told.remember(text, remembered);
        put_varint(out, if is_remembered { REMEMBER } else { LITERAL });
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}
