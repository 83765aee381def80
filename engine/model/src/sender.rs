//! Identities. They come from the connection (certificate or token), never from a payload.

use std::{fmt, sync::Arc};

/// A thing with an identity that measures: 1 to 128 bytes of `[A-Za-z0-9._:@/-]`, starting with a
/// letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

/// The bytes that a device id may have.
const IS_ID_BYTE: [bool; 256] = {
    let mut is_id_byte = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        is_id_byte[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'@' | b'/' | b'-');
        byte += 1;
    }
    is_id_byte
};

impl DeviceId {
    /// Checks an id that came from a certificate, a token, a gateway's `device` column or a user.
    pub fn new(id: &str) -> Result<Self, DeviceIdError> {
        if Self::is_well_formed(id) {
            Ok(Self(Arc::from(id)))
        } else {
            Err(DeviceIdError(id.chars().take(80).collect()))
        }
    }

    /// Whether `id` may be a device id, without making one.
    pub fn is_well_formed(id: &str) -> bool {
        let bytes = id.as_bytes();
        bytes.len() <= 128
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            // Of every row of a file, among others.
            && bytes.iter().all(|byte| IS_ID_BYTE[usize::from(*byte)])
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a device id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "device id {0:?} must be 1 to 128 characters of [A-Za-z0-9._:@/-] and start with a letter or digit"
)]
pub struct DeviceIdError(pub String);

/// What kind of identity a connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SenderKind {
    /// Speaks for itself only.
    Device,
    /// Speaks for the devices enrolled behind it, and may state when rows reached the edge.
    Gateway,
    /// A tool of the people who run the engine; speaks for devices as a gateway does.
    Operator,
    /// A node of the pipeline graph, whose rows enter the log from within. Nothing that connects can
    /// be one.
    Node,
}

impl SenderKind {
    /// The word used in certificates (`urn:quiver:<word>:<id>`) and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
            Self::Node => "node",
        }
    }

    /// The kind of a sender that connects, from its word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "device" => Some(Self::Device),
            "gateway" => Some(Self::Gateway),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }

    /// Whether this kind may send rows for other devices.
    pub const fn speaks_for_others(self) -> bool {
        matches!(self, Self::Gateway | Self::Operator | Self::Node)
    }
}

/// The identity of a connection: a device, a gateway, or an operator tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenderId {
    /// Device, gateway, operator, or a node of the graph.
    pub kind: SenderKind,
    /// The id; the kinds have separate name spaces.
    pub id: DeviceId,
}

impl SenderId {
    /// A device as a sender.
    pub fn device(id: DeviceId) -> Self {
        Self {
            kind: SenderKind::Device,
            id,
        }
    }

    /// Parses `urn:quiver:<kind>:<id>`, the SAN URI of a client certificate.
    pub fn from_urn(urn: &str) -> Option<Self> {
        let rest = urn.strip_prefix("urn:quiver:")?;
        let (kind, id) = rest.split_once(':')?;
        Some(Self {
            kind: SenderKind::from_word(kind)?,
            id: DeviceId::new(id).ok()?,
        })
    }

    /// The shard that keeps this identity's sequences. A device's is also the shard of its rows.
    pub fn shard(&self, shard_count: u16) -> crate::ShardId {
        crate::Partition::of(&self.id).shard(shard_count)
    }

    /// The SAN URI of this identity.
    pub fn to_urn(&self) -> String {
        format!("urn:quiver:{}:{}", self.kind.as_str(), self.id)
    }
}

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id)
    }
}
