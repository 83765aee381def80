//! Saved state as bytes: numbers in little-endian order, whole numbers also as varints (LEB128),
//! texts after their length.
//!
//! What is read may be anything: a file can be damaged, or of another version. So reading never
//! panics, and never sets aside more memory than the bytes at hand can fill ([`ReadBytes::count`]).
//! Writing is to a `Vec<u8>`, reading from a `&mut &[u8]` that moves on behind what was read; after
//! an error where it stands is unspecified.

/// Saved bytes that cannot be what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// The bytes end in the middle of something.
    #[error("the saved state ends too early")]
    Short,
    /// There are bytes behind the end.
    #[error("{0} bytes follow the saved state")]
    Trailing(usize),
    /// It was written by a version that this one does not know.
    #[error("the saved state is of version {0}, which is not known here")]
    Version(u8),
    /// A number or text that no writer makes; names what it should be.
    #[error("the saved state is damaged: {0}")]
    Invalid(&'static str),
}

/// Most bytes of a varint of 64 bits.
const VARINT_BYTES: u32 = 10;

/// What is added to a `Vec<u8>` for saving.
pub trait WriteBytes {
    /// Adds one byte.
    fn put_byte(&mut self, value: u8);
    /// Adds four bytes.
    fn put_u32(&mut self, value: u32);
    /// Adds eight bytes.
    fn put_u64(&mut self, value: u64);
    /// Adds eight bytes.
    fn put_i64(&mut self, value: i64);
    /// Adds eight bytes: every bit of the number, also of one that is none.
    fn put_f64(&mut self, value: f64);
    /// Adds eight bytes: a number that arithmetic gave. One that is none always has the same bits
    /// here: which it has else depends on the machine, and on what the compiler makes of a program.
    fn put_computed(&mut self, value: f64) {
        self.put_f64(if value.is_nan() { f64::NAN } else { value });
    }
    /// Adds a whole number in one byte if it is below 128, in ten at most.
    fn put_varint(&mut self, value: u64);
    /// Adds a whole number that is small in either direction in few bytes (zigzag).
    fn put_signed(&mut self, value: i64);
    /// Adds how many there are of something; read with [`ReadBytes::count`].
    fn put_count(&mut self, count: usize);
    /// Adds the number of bytes, and them.
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl WriteBytes for Vec<u8> {
    fn put_byte(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_f64(&mut self, value: f64) {
        self.put_u64(value.to_bits());
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_signed(&mut self, value: i64) {
        self.put_varint((value << 1 ^ value >> 63).cast_unsigned());
    }

    fn put_count(&mut self, count: usize) {
        self.put_varint(count as u64);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.extend_from_slice(bytes);
    }
}

/// What is taken off the front of saved bytes. Everything fails with [`SavedError::Short`] if there
/// is less than that.
pub trait ReadBytes<'a> {
    /// The next `N` bytes.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], SavedError>;
    /// The next `len` bytes, where they lie.
    fn slice(&mut self, len: usize) -> Result<&'a [u8], SavedError>;
    /// What [`WriteBytes::put_varint`] wrote; a longer spelling of the same number is refused, so
    /// that each state has one.
    fn varint(&mut self) -> Result<u64, SavedError>;
    /// That there is nothing more; else [`SavedError::Trailing`].
    fn end(&self) -> Result<(), SavedError>;
    /// What [`WriteBytes::put_count`] wrote, if so many things of `each` bytes or more can follow:
    /// memory for them may be set aside.
    fn count(&mut self, each: usize) -> Result<usize, SavedError>;

    /// One byte.
    fn byte(&mut self) -> Result<u8, SavedError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// What [`WriteBytes::put_u32`] wrote.
    fn u32(&mut self) -> Result<u32, SavedError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// What [`WriteBytes::put_u64`] wrote.
    fn u64(&mut self) -> Result<u64, SavedError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// What [`WriteBytes::put_i64`] wrote.
    fn i64(&mut self) -> Result<i64, SavedError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// What [`WriteBytes::put_f64`] wrote.
    fn f64(&mut self) -> Result<f64, SavedError> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// What [`WriteBytes::put_signed`] wrote.
    fn signed(&mut self) -> Result<i64, SavedError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// What [`WriteBytes::put_bytes`] wrote.
    fn bytes(&mut self) -> Result<&'a [u8], SavedError> {
        let len = self.count(1)?;
        self.slice(len)
    }

    /// A text that was written by [`WriteBytes::put_bytes`].
    fn text(&mut self) -> Result<&'a str, SavedError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| SavedError::Invalid("a text is UTF-8"))
    }
}

impl<'a> ReadBytes<'a> for &'a [u8] {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], SavedError> {
        let (array, rest) = self.split_first_chunk().ok_or(SavedError::Short)?;
        *self = rest;
        Ok(*array)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], SavedError> {
        let (slice, rest) = self.split_at_checked(len).ok_or(SavedError::Short)?;
        *self = rest;
        Ok(slice)
    }

    fn varint(&mut self) -> Result<u64, SavedError> {
        const TOO_LONG: SavedError =
            SavedError::Invalid("a number is in the fewest bytes, of 64 bits");
        let mut value = 0;
        for index in 0..VARINT_BYTES {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << (7 * index);
            if shifted >> (7 * index) != bits {
                return Err(TOO_LONG);
            }
            value |= shifted;
            if byte < 0x80 {
                return match (byte, index) {
                    (0, 1..) => Err(TOO_LONG),
                    _ => Ok(value),
                };
            }
        }
        Err(TOO_LONG)
    }

    fn end(&self) -> Result<(), SavedError> {
        match self.len() {
            0 => Ok(()),
            more => Err(SavedError::Trailing(more)),
        }
    }

    fn count(&mut self, each: usize) -> Result<usize, SavedError> {
        let count = usize::try_from(self.varint()?).map_err(|_| SavedError::Short)?;
        match count.checked_mul(each.max(1)) {
            Some(bytes) if bytes <= self.len() => Ok(count),
            _ => Err(SavedError::Short),
        }
    }
}

#[cfg(test)]
mod tests;
