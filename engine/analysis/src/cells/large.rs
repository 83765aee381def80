//! What does not fit into words: texts, and the states of functions that keep more than numbers.

use crate::{
    bytes::{ReadBytes, SavedError, WriteBytes},
    cells::layout::What,
    states::{Digest, Distinct, Weighted},
};

/// A value of a cell that is in the slab.
#[derive(Clone, Debug)]
pub(crate) enum Large {
    Text(Box<str>),
    Digest(Digest),
    Distinct(Distinct),
    Weighted(Weighted),
}

impl Large {
    /// The state of a cell before its first value; `None` of cells whose value is one of the rows'.
    pub(crate) fn empty(what: What) -> Option<Self> {
        match what {
            What::Digest => Some(Self::Digest(Digest::default())),
            What::Distinct => Some(Self::Distinct(Distinct::default())),
            What::Weighted => Some(Self::Weighted(Weighted::default())),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Adds what is in another state of the same kind, whose rows are taken to have come later.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Digest(own), Self::Digest(other)) => own.merge(other),
            (Self::Distinct(own), Self::Distinct(other)) => own.merge(other),
            (Self::Weighted(own), Self::Weighted(other)) => {
                // Panes and sessions do not lie among each other, nor do rows in their order.
                let merged = own.merge(other);
                debug_assert!(merged.is_ok(), "the panes of a window follow each other");
            }
            // Texts are compared, not merged; of one cell all states are of one kind.
            _ => {}
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.put_bytes(text.as_bytes()),
            Self::Digest(state) => state.write(out),
            Self::Distinct(state) => state.write(out),
            Self::Weighted(state) => state.write(out),
        }
    }

    /// Reads what [`Self::write`] wrote of a cell.
    pub(crate) fn read(what: What, input: &mut &[u8]) -> Result<Self, SavedError> {
        Ok(match what {
            What::Digest => Self::Digest(Digest::read(input)?),
            What::Distinct => Self::Distinct(Distinct::read(input)?),
            What::Weighted => Self::Weighted(Weighted::read(input)?),
            _ => Self::Text(Box::from(input.text()?)),
        })
    }
}
