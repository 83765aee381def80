//! An identity as the bytes that it is found by: a letter for its kind, then its id. Their order is
//! that of [`SenderId`]s.

use quiver_model::{DeviceId, SenderId, SenderKind};

/// Most bytes of an id.
const ID_BYTES_MAX: usize = 128;

const LETTERS: [(SenderKind, u8); 4] = [
    (SenderKind::Device, b'd'),
    (SenderKind::Gateway, b'g'),
    (SenderKind::Operator, b'o'),
    // Of the pipeline.
    (SenderKind::Node, b'p'),
];

const fn letter(kind: SenderKind) -> u8 {
    match kind {
        SenderKind::Device => b'd',
        SenderKind::Gateway => b'g',
        SenderKind::Operator => b'o',
        SenderKind::Node => b'p',
    }
}

/// The bytes, on the stack.
pub(crate) struct IdentityName {
    bytes: [u8; ID_BYTES_MAX + 1],
    len: usize,
}

impl IdentityName {
    /// The name of an identity; `None` if `id` is longer than an id may be.
    pub(crate) fn new(kind: SenderKind, id: &str) -> Option<Self> {
        let mut bytes = [0; ID_BYTES_MAX + 1];
        bytes[0] = letter(kind);
        let len = 1 + id.len();
        bytes.get_mut(1..len)?.copy_from_slice(id.as_bytes());
        Some(Self { bytes, len })
    }

    /// The name of a sender.
    pub(crate) fn of(sender: &SenderId) -> Option<Self> {
        Self::new(sender.kind, sender.id.as_str())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The kind and id of a name.
pub(crate) fn kind_and_id(name: &[u8]) -> Option<(SenderKind, &str)> {
    let (first, id) = name.split_first()?;
    let (kind, _) = LETTERS.iter().find(|(_, letter)| letter == first)?;
    Some((*kind, std::str::from_utf8(id).ok()?))
}

/// The identity that has a name.
pub(crate) fn sender(name: &[u8]) -> Option<SenderId> {
    let (kind, id) = kind_and_id(name)?;
    Some(SenderId {
        kind,
        id: DeviceId::new(id).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_their_senders_and_have_their_order() {
        let ids = ["a", "a.b", "a1", "b", &"z".repeat(128)];
        let mut senders: Vec<_> = [
            SenderKind::Operator,
            SenderKind::Device,
            SenderKind::Gateway,
            SenderKind::Node,
        ]
        .into_iter()
        .flat_map(|kind| {
            ids.map(|id| SenderId {
                kind,
                id: DeviceId::new(id).unwrap(),
            })
        })
        .collect();
        let mut names: Vec<_> = senders
            .iter()
            .map(|sender| IdentityName::of(sender).unwrap().as_bytes().to_vec())
            .collect();
        senders.sort();
        names.sort();
        let named: Vec<_> = names.iter().map(|name| sender(name).unwrap()).collect();
        assert_eq!(named, senders);
        assert!(IdentityName::new(SenderKind::Device, &"z".repeat(129)).is_none());
        assert!(sender(b"").is_none() && sender(b"xa").is_none() && sender(b"d").is_none());
    }
}
