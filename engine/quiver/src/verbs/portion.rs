//! Identities that wait for the next request to the engine: as many as wait for the disk together,
//! and no more than it takes at once.

use serde::Serialize;

use crate::exit::{DATA, Failure};

/// Identities, and bytes of them, from which on a request is sent. The engine takes five times as
/// many, and twice the bytes; the last one may bring a line of its file, of which a byte takes six
/// at most.
const IDENTITIES_MAX: usize = 2_000;
const BYTES_MAX: usize = 512 << 10;

/// Identities, each with what it is told by.
pub struct Portion<T, L> {
    identities: Vec<T>,
    labels: Vec<L>,
    /// Bytes of them in the request.
    bytes: usize,
}

impl<T: Serialize, L> Portion<T, L> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            identities: Vec::new(),
            labels: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds an identity; whether it is time to send what there is.
    ///
    /// # Errors
    /// If it has no JSON form.
    pub fn push(&mut self, identity: T, label: L) -> Result<bool, Failure> {
        let json = serde_json::to_vec(&identity).map_err(Failure::with(DATA))?;
        self.bytes += json.len() + 1;
        self.identities.push(identity);
        self.labels.push(label);
        Ok(self.identities.len() >= IDENTITIES_MAX || self.bytes >= BYTES_MAX)
    }

    /// What is there, with the labels; nothing afterwards.
    pub fn take(&mut self) -> (Vec<T>, Vec<L>) {
        self.bytes = 0;
        (
            std::mem::take(&mut self.identities),
            std::mem::take(&mut self.labels),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_of_many_small_ones_or_few_large_ones() {
        // As JSON a control character takes six bytes.
        for (text, expected) in [
            ("x".to_owned(), IDENTITIES_MAX),
            ("\u{1}".repeat(32 << 10), 3),
        ] {
            let mut portion = Portion::new();
            let mut count = 1;
            while !portion.push(text.clone(), count).unwrap() {
                count += 1;
            }
            assert_eq!(count, expected);
            let (identities, labels) = portion.take();
            assert_eq!((identities.len(), labels.len()), (count, count));
            assert!(portion.take().0.is_empty() && !portion.push(text, 0).unwrap());
        }
    }
}
