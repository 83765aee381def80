//! What may be said of an identity: keys that expressions can name (`device.fleet`), and texts that
//! stay small, since every change writes the whole entry to the log.

use std::collections::BTreeMap;

use quiver_model::FieldName;

/// Most attributes of an identity.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest value of an attribute, in bytes.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 256;

/// Characters that are shown of a text that is no key.
const KEY_SHOWN: usize = 80;

/// An attribute that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Its key cannot be named in an expression.
    #[error(
        "attribute key {0:?} must match [A-Za-z_][A-Za-z0-9_]{{0,62}}: expressions name it as device.key"
    )]
    Key(String),
    /// Its value is too long.
    #[error(
        "the value of attribute {key} has {bytes} bytes, and may have {ATTRIBUTE_VALUE_BYTES_MAX}"
    )]
    Value {
        /// Its key.
        key: String,
        /// Bytes of its value.
        bytes: usize,
    },
}

/// Whether a key may be an attribute's: it has the form of a field's name.
///
/// # Errors
/// If it has not.
pub fn check_attribute_key(key: &str) -> Result<(), AttributeError> {
    FieldName::new(key)
        .map(drop)
        .map_err(|_| AttributeError::Key(key.chars().take(KEY_SHOWN).collect()))
}

/// Whether an attribute may be said of an identity. Its value may be empty.
///
/// # Errors
/// If it may not.
pub fn check_attribute(key: &str, value: &str) -> Result<(), AttributeError> {
    check_attribute_key(key)?;
    if value.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        return Err(AttributeError::Value {
            key: key.to_owned(),
            bytes: value.len(),
        });
    }
    Ok(())
}

/// Whether all of these may be said.
pub(super) fn check_all(attributes: &BTreeMap<String, String>) -> Result<(), AttributeError> {
    attributes
        .iter()
        .try_for_each(|(key, value)| check_attribute(key, value))
}
