//! What both directions share: numbers, kinds of columns, modes, predecessors.

use arrow_schema::DataType;

/// Bit of the header: every column begins anew, and the batch decodes alone.
pub(super) const RESTART: u64 = 1;
/// Bit of the header: null kinds follow.
pub(super) const NULLS: u64 = 2;
/// Bit of the header: some columns change their mode.
pub(super) const MODES: u64 = 4;
/// Bits of the header below the number of rows.
pub(super) const FLAG_BITS: u32 = 3;
/// Most bytes of the length in front of a payload.
pub(crate) const LENGTH_BYTES_MAX: usize = 4;
/// Largest decimal exponent of a mode. 10^18 is the largest power of ten in an i64, and powers up to
/// 10^22 are exact as float64.
pub(super) const EXPONENT_MAX: u8 = 18;

/// Two bits for each column that say which of its values are there.
pub(super) const ALL_VALID: u8 = 0;
pub(super) const ALL_NULL: u8 = 1;
pub(super) const SOME_NULL: u8 = 2;

const POWERS: [i64; EXPONENT_MAX as usize + 1] = {
    let mut powers = [1; EXPONENT_MAX as usize + 1];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// 10 to the power of `exponent`, which is at most [`EXPONENT_MAX`].
#[inline]
pub(super) fn power(exponent: u8) -> i64 {
    POWERS.get(exponent as usize).copied().unwrap_or(1)
}

/// A signed number as an unsigned one that is small if it is near 0.
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The reverse of [`zigzag`].
pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Appends `value` as a varint: seven bits a byte, the lowest first, the high bit set on all but
/// the last.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a payload from front to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next varint; `None` if the bytes end before it does, or it has more than 64 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        match *self.0 {
            [first, ref rest @ ..] if first < 0x80 => {
                self.0 = rest;
                Some(u64::from(first))
            }
            [first, second, ref rest @ ..] if second < 0x80 => {
                self.0 = rest;
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * at);
            if *byte < 0x80 {
                self.0 = self.0.get(at + 1..)?;
                return Some(value);
            }
        }
        None
    }

    /// The next varint as a signed number.
    #[inline]
    pub(super) fn signed(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// How the values of a column are written: by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    /// A half float: its bits, as an unsigned integer.
    F16,
    F32,
    F64,
    Timestamp,
    Bool,
    Text,
    LargeText,
    Null,
}

/// What the modes of a kind of column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modes {
    /// It has none.
    None,
    /// Those of whole numbers.
    Whole,
    /// Those of floats.
    Float,
}

impl Kind {
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Int8 => Self::I8,
            DataType::Int16 => Self::I16,
            DataType::Int32 => Self::I32,
            DataType::Int64 => Self::I64,
            DataType::UInt8 => Self::U8,
            DataType::UInt16 => Self::U16,
            DataType::UInt32 => Self::U32,
            DataType::UInt64 => Self::U64,
            DataType::Float16 => Self::F16,
            DataType::Float32 => Self::F32,
            DataType::Float64 => Self::F64,
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Boolean => Self::Bool,
            DataType::Utf8 => Self::Text,
            DataType::LargeUtf8 => Self::LargeText,
            DataType::Null => Self::Null,
            _ => return None,
        })
    }

    #[inline]
    pub(super) fn modes(self) -> Modes {
        match self {
            Self::Bool | Self::Text | Self::LargeText | Self::Null => Modes::None,
            Self::F32 | Self::F64 => Modes::Float,
            _ => Modes::Whole,
        }
    }

    /// Bytes of the buffer of values of `rows` rows, or of their offsets if they are texts.
    #[inline]
    pub(super) fn bytes(self, rows: usize) -> usize {
        match self {
            Self::I8 | Self::U8 => rows,
            Self::I16 | Self::U16 | Self::F16 => 2 * rows,
            Self::I32 | Self::U32 | Self::F32 => 4 * rows,
            Self::I64 | Self::U64 | Self::F64 | Self::Timestamp => 8 * rows,
            Self::Bool => rows.div_ceil(8),
            Self::Text => 4 * (rows + 1),
            Self::LargeText => 8 * (rows + 1),
            Self::Null => 0,
        }
    }

    /// The mode of a column before anything chose one.
    pub(super) fn first_mode(self) -> Mode {
        match self {
            Self::Timestamp => Mode::DeltaOfDelta(3),
            Self::F32 | Self::F64 => Mode::Decimal(0),
            _ => Mode::Delta(0),
        }
    }
}

/// How the numbers of a column are written. A whole value is `n × 10^exponent`, a decimal one
/// `n / 10^exponent`; what is written is how n changes, or for [`Mode::Xor`] the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Whole numbers: n minus the n before.
    Delta(u8),
    /// Whole numbers: that, minus what it was before.
    DeltaOfDelta(u8),
    /// Floats: n minus the n before.
    Decimal(u8),
    /// Floats: bits, exclusive or with the bits before.
    Xor,
}

impl Mode {
    /// The byte that names it.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Delta(exponent) => exponent,
            Self::DeltaOfDelta(exponent) => 0x20 + exponent,
            Self::Decimal(exponent) => 0x40 + exponent,
            Self::Xor => 0x60,
        }
    }

    /// The mode with this number, if columns with these modes may have it.
    pub(super) fn from_number(number: u8, modes: Modes) -> Option<Self> {
        let exponent = number & 0x1f;
        let mode = match number >> 5 {
            0 => Self::Delta(exponent),
            1 => Self::DeltaOfDelta(exponent),
            2 => Self::Decimal(exponent),
            3 if exponent == 0 => Self::Xor,
            _ => return None,
        };
        let is_of_kind = match mode {
            Self::Delta(_) | Self::DeltaOfDelta(_) => modes == Modes::Whole,
            Self::Decimal(_) | Self::Xor => modes == Modes::Float,
        };
        (is_of_kind && exponent <= EXPONENT_MAX).then_some(mode)
    }
}

/// The value before, of one column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Predecessor {
    /// n, or bits.
    pub value: u64,
    /// What n changed by, for [`Mode::DeltaOfDelta`].
    pub delta: i64,
    /// Whether there was a value since the column began anew.
    pub is_set: bool,
}

impl Predecessor {
    /// n.
    pub(super) fn n(self) -> i64 {
        self.value.cast_signed()
    }
}

/// A float64 that is written as decimal: `n / 10^exponent`, rounded once.
#[inline]
pub(super) fn decimal(n: i64, power: f64) -> f64 {
    n as f64 / power
}

/// Appends bits of at most `width` bytes: a byte with the number of leading zero bytes and of bytes
/// that follow, then these; the zero bytes behind them are left out too.
pub(super) fn put_xor(out: &mut Vec<u8>, bits: u64, width: usize) {
    let leading = bits.leading_zeros() as usize / 8 + width - 8;
    if bits == 0 {
        out.push(0);
        return;
    }
    let trailing = bits.trailing_zeros() as usize / 8;
    let length = width - leading - trailing;
    out.push((leading << 4 | length) as u8);
    out.extend_from_slice(&(bits >> (8 * trailing)).to_le_bytes()[..length]);
}

/// Reads what [`put_xor`] wrote; `None` if it is cut off or has more than `width` bytes.
#[inline]
pub(super) fn read_xor(reader: &mut Reader<'_>, width: usize) -> Option<u64> {
    let control = reader.byte()?;
    let (leading, length) = (usize::from(control >> 4), usize::from(control & 0xf));
    let trailing = width.checked_sub(leading + length)?;
    if length == 0 {
        return Some(0);
    }
    let bits = match reader.0.first_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight) & (u64::MAX >> (64 - 8 * length)),
        None => {
            let mut eight = [0; 8];
            eight
                .get_mut(..length)?
                .copy_from_slice(reader.0.get(..length)?);
            u64::from_le_bytes(eight)
        }
    };
    reader.0 = reader.0.get(length..)?;
    Some(bits << (8 * trailing))
}
