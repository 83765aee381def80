//! Names that peers choose: streams and fields. Checked once, when they enter.

use std::{fmt, sync::Arc};

/// Longest stream or field name, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// A name that Quiver refuses, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The stream's name has characters or a length that are not allowed.
    #[error("stream name {0:?} must match [a-z][a-z0-9_]{{0,62}}")]
    Stream(String),
    /// The name belongs to the engine.
    #[error("stream name {0:?} is reserved for the engine")]
    Reserved(String),
    /// The field's name has characters or a length that are not allowed.
    #[error("field name {0:?} must match [A-Za-z_][A-Za-z0-9_]{{0,62}}")]
    Field(String),
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Name of a table of telemetry: `[a-z][a-z0-9_]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// Checks the form only; names that belong to the engine pass (it uses them itself).
    pub fn new(name: &str) -> Result<Self, NameError> {
        let bytes = name.as_bytes();
        let well_formed = matches!(bytes.first(), Some(b'a'..=b'z'))
            && bytes.len() <= NAME_BYTES_MAX
            && bytes
                .iter()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if well_formed {
            Ok(Self(Arc::from(name)))
        } else {
            Err(NameError::Stream(shorten(name)))
        }
    }

    /// Checks form and that a sender may write to it: `alerts`, `rejects` and the prefix
    /// `quiver_` are the engine's own.
    pub fn for_sender(name: &str) -> Result<Self, NameError> {
        let stream = Self::new(name)?;
        if stream.is_reserved() {
            Err(NameError::Reserved(shorten(name)))
        } else {
            Ok(stream)
        }
    }

    /// Whether only the engine itself writes this stream.
    pub fn is_reserved(&self) -> bool {
        &*self.0 == "alerts" || &*self.0 == "rejects" || self.0.starts_with("quiver_")
    }

    /// The stream of refused and quarantined rows.
    pub fn rejects() -> Self {
        Self(Arc::from("rejects"))
    }

    /// The stream of control records.
    pub fn control() -> Self {
        Self(Arc::from("quiver_control"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a field: `[A-Za-z_][A-Za-z0-9_]{0,62}`, unique in its stream ignoring case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(Arc<str>);

impl FieldName {
    /// Checks the form. Whether the name is reserved or taken is the schema's question.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let bytes = name.as_bytes();
        let well_formed = matches!(bytes.first(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'_'))
            && bytes.len() <= NAME_BYTES_MAX
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if well_formed {
            Ok(Self(Arc::from(name)))
        } else {
            Err(NameError::Field(shorten(name)))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
