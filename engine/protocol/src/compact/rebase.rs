//! A payload written so that it decodes alone, while it is decoded: all modes named, the first value
//! of each column absolute, texts told anew. Everything else is copied.

use bytes::Bytes;

use super::{
    format::{
        FLAG_BITS, Kind, Mode, Modes, NULLS, Predecessor, RESTART, Reader, put_varint, put_xor,
        read_xor, zigzag,
    },
    texts::{KNOWN, LITERAL, REMEMBER},
};
use crate::limits::{
    COMPACT_TEXT_BYTES_MAX, COMPACT_TEXT_COST, COMPACT_TEXTS_BYTES_MAX, COMPACT_TEXTS_MAX,
};

/// Writes one payload after the other.
#[derive(Debug, Default)]
pub(super) struct Rebased {
    out: Vec<u8>,
    /// Number of the payload, from 1.
    record: u64,
    /// Texts that the column remembers so far.
    places: u64,
    /// What all columns remember.
    remembered: usize,
}

impl Rebased {
    pub(super) fn begin(
        &mut self,
        rows: usize,
        has_nulls: bool,
        modes: impl Iterator<Item = (Kind, Mode)>,
    ) {
        self.record += 1;
        self.remembered = 0;
        self.out.clear();
        let nulls = if has_nulls { NULLS } else { 0 };
        put_varint(&mut self.out, (rows as u64) << FLAG_BITS | nulls | RESTART);
        for (kind, mode) in modes {
            if kind.modes() != Modes::None {
                self.out.push(mode.number());
            }
        }
    }

    pub(super) fn copy(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A column of numbers, bools or nulls, of which `present` values were written as `written`
    /// after the predecessor `before`. `None` if that cannot be.
    pub(super) fn column(
        &mut self,
        kind: Kind,
        mode: Mode,
        before: Predecessor,
        written: &[u8],
        present: usize,
    ) -> Option<()> {
        let mut reader = Reader::new(written);
        let is_first = before == Predecessor::default();
        if kind.modes() != Modes::None && !is_first && present > 0 {
            match mode {
                Mode::Delta(_) | Mode::Decimal(_) => {
                    let n = before.n().wrapping_add(reader.signed()?);
                    put_varint(&mut self.out, zigzag(n));
                }
                Mode::DeltaOfDelta(_) if !before.is_set => {}
                Mode::DeltaOfDelta(_) => {
                    let delta = before.delta.wrapping_add(reader.signed()?);
                    put_varint(&mut self.out, zigzag(before.n().wrapping_add(delta)));
                    if present > 1 {
                        // The delta before the second value is 0 again.
                        put_varint(&mut self.out, zigzag(delta.wrapping_add(reader.signed()?)));
                    }
                }
                Mode::Xor => {
                    let width = kind.bytes(1);
                    let bits = before.value ^ read_xor(&mut reader, width)?;
                    put_xor(&mut self.out, bits, width);
                }
            }
        }
        self.copy(reader.rest());
        Some(())
    }

    /// Number of the payload that is being written.
    pub(super) fn record(&self) -> u64 {
        self.record
    }

    pub(super) fn begin_texts(&mut self) {
        self.places = 0;
    }

    /// A text that is not remembered.
    pub(super) fn literal(&mut self, text: &str) {
        self.put(LITERAL, text);
    }

    /// A text that has the place `known`, or is told here and remembered if there is room: then its
    /// place.
    pub(super) fn text(&mut self, text: &str, known: Option<u64>) -> Option<u64> {
        if let Some(place) = known {
            put_varint(&mut self.out, KNOWN + place);
            return None;
        }
        let needed = self.remembered + text.len() + COMPACT_TEXT_COST;
        if self.places >= COMPACT_TEXTS_MAX as u64
            || text.len() > COMPACT_TEXT_BYTES_MAX
            || needed > COMPACT_TEXTS_BYTES_MAX
        {
            self.literal(text);
            return None;
        }
        self.remembered = needed;
        self.put(REMEMBER, text);
        self.places += 1;
        Some(self.places - 1)
    }

    fn put(&mut self, what: u64, text: &str) {
        put_varint(&mut self.out, what);
        put_varint(&mut self.out, text.len() as u64);
        self.copy(text.as_bytes());
    }

    pub(super) fn finish(&self) -> Bytes {
        Bytes::copy_from_slice(&self.out)
    }
}
