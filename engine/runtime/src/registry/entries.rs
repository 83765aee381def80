//! The entries, as they are kept: a million of them may be there for ten thousand connections. What
//! most do not have takes no room.

use std::{collections::BTreeMap, sync::Arc};

use quiver_model::{NameTable, Names, Pages, SenderId, SenderKind, Timestamp};

use super::{EntryState, RegistryEntry};
use crate::identity_name::{self, IdentityName};

/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Entries by identity.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// An identity's number is its slot.
    names: NameTable,
    slots: Pages<Slot>,
    /// Gateways that are named by entries. Never forgotten: they are few, and ids.
    gateways: NameTable,
    rare: Pages<Option<Arc<Rare>>>,
    /// Places in `rare` that nobody has.
    free: Vec<u32>,
}

/// Everything of an identity but its name.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// When it was enrolled, in microseconds since 1970: an `i64`, little-endian, so that a slot
    /// has no padding.
    enrolled: [u8; 8],
    more: More,
}

/// A number, what it is of, and the state: all in 32 bits.
#[derive(Clone, Copy, Debug, Default)]
struct More(u32);

const REVOKED: u32 = 1 << 31;
const GATEWAY: u32 = 1 << 30;
const RARE: u32 = 1 << 29;
const NUMBER: u32 = RARE - 1;

/// What else there is of an identity.
enum Else {
    Nothing,
    /// This one gateway may speak for it, and nothing more is said.
    Gateway(usize),
    Rare(usize),
}

impl More {
    fn new(state: EntryState, what: u32, number: u32) -> Self {
        let revoked = if state == EntryState::Revoked {
            REVOKED
        } else {
            0
        };
        Self(revoked | what | number)
    }

    const fn what(self) -> Else {
        let number = (self.0 & NUMBER) as usize;
        if self.0 & GATEWAY != 0 {
            Else::Gateway(number)
        } else if self.0 & RARE != 0 {
            Else::Rare(number)
        } else {
            Else::Nothing
        }
    }

    const fn state(self) -> EntryState {
        if self.0 & REVOKED == 0 {
            EntryState::Active
        } else {
            EntryState::Revoked
        }
    }
}

/// What most entries do not have.
#[derive(Debug)]
struct Rare {
    fingerprint: Option<Digest>,
    token_sha256: Option<Digest>,
    /// Numbers of gateways, by name.
    gateways: Box<[u32]>,
    attributes: BTreeMap<String, String>,
}

/// A SHA-256 as it was given: hexadecimal digits, or whatever else somebody took for one.
#[derive(Debug)]
pub(crate) enum Digest {
    Sha256([u8; SHA256_DIGITS / 2]),
    Text(Box<str>),
}

impl Digest {
    fn new(text: &str) -> Self {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; SHA256_DIGITS / 2];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let is_exact = rest.is_empty()
            && pairs.len() == bytes.len()
            && bytes.iter_mut().zip(pairs).all(|(byte, [high, low])| {
                let value = digit(*high).zip(digit(*low));
                value.is_some_and(|(high, low)| {
                    *byte = high << 4 | low;
                    true
                })
            });
        if is_exact {
            Self::Sha256(bytes)
        } else {
            Self::Text(text.into())
        }
    }

    /// Whether it is what this text says.
    pub(crate) fn is(&self, text: &str) -> bool {
        match (self, Self::new(text)) {
            (Self::Sha256(own), Self::Sha256(other)) => *own == other,
            (Self::Text(own), Self::Text(other)) => *own == other,
            _ => false,
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Sha256(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::Text(text) => text.to_string(),
        }
    }
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The entry of an identity.
    pub(crate) fn find(&self, kind: SenderKind, id: &str) -> Option<Known<'_>> {
        let name = IdentityName::new(kind, id)?;
        let number = self.names.find(name.as_bytes())?;
        Some(Known {
            name: self.names.names().get(number)?,
            slot: *self.slots.get(number)?,
            gateways: self.gateways.names(),
            rare: &self.rare,
        })
    }

    /// Sets an identity's whole entry.
    pub(crate) fn put(&mut self, sender: &SenderId, entry: &RegistryEntry) {
        let number = IdentityName::of(sender).and_then(|name| self.names.intern(name.as_bytes()));
        // All numbers are given away only beyond what any memory holds.
        let Some(number) = number else { return };
        if number == self.slots.len() {
            self.slots.push(Slot {
                enrolled: [0; 8],
                more: More::default(),
            });
        }
        let held = self.slots.get(number).map(|slot| slot.more.what());
        let gateways: Vec<u32> = entry
            .gateways
            .iter()
            .filter_map(|gateway| self.gateways.intern(gateway.as_bytes()))
            .filter_map(|number| u32::try_from(number).ok())
            .collect();
        let is_plain = entry.fingerprint.is_none()
            && entry.token_sha256.is_none()
            && entry.attributes.is_empty();
        let place = match held {
            Some(Else::Rare(place)) => Some(place),
            _ => None,
        };
        let more = match gateways.as_slice() {
            [] if is_plain => More::new(entry.state, 0, 0),
            [gateway] if is_plain && *gateway <= NUMBER => {
                More::new(entry.state, GATEWAY, *gateway)
            }
            _ => {
                let rare = Arc::new(Rare {
                    fingerprint: entry.fingerprint.as_deref().map(Digest::new),
                    token_sha256: entry.token_sha256.as_deref().map(Digest::new),
                    gateways: gateways.into_boxed_slice(),
                    attributes: entry.attributes.clone(),
                });
                let place = self.keep(place, rare);
                More::new(entry.state, RARE, place & NUMBER)
            }
        };
        if let (Some(place), Else::Nothing | Else::Gateway(_)) = (place, more.what()) {
            self.forget(place);
        }
        if let Some(slot) = self.slots.get_mut(number) {
            *slot = Slot {
                enrolled: entry.enrolled_us.to_le_bytes(),
                more,
            };
        }
    }

    /// Puts something rare into `place`, or where there is room.
    fn keep(&mut self, place: Option<usize>, rare: Arc<Rare>) -> u32 {
        let place = place
            .or_else(|| Some(self.free.pop()? as usize))
            .unwrap_or_else(|| self.rare.push(None));
        if let Some(held) = self.rare.get_mut(place) {
            *held = Some(rare);
        }
        // As many as there are names, which are numbered by 32 bits.
        u32::try_from(place).unwrap_or(NUMBER)
    }

    fn forget(&mut self, place: usize) {
        if let (Some(held), Ok(number)) = (self.rare.get_mut(place), u32::try_from(place)) {
            *held = None;
            self.free.push(number);
        }
    }

    /// Sets the state of an identity to revoked.
    pub(crate) fn revoke(&mut self, kind: SenderKind, id: &str) {
        let number = IdentityName::new(kind, id).and_then(|name| self.names.find(name.as_bytes()));
        if let Some(slot) = number.and_then(|number| self.slots.get_mut(number)) {
            slot.more.0 |= REVOKED;
        }
    }

    /// What is there now.
    pub(crate) fn freeze(&self) -> FrozenEntries {
        FrozenEntries {
            names: self.names.names().clone(),
            slots: self.slots.clone(),
            gateways: self.gateways.names().clone(),
            rare: self.rare.clone(),
        }
    }

    /// Bytes of memory it takes; what is rare only nearly.
    pub(crate) fn bytes(&self) -> usize {
        let rare: usize = (0..self.rare.len())
            .filter_map(|place| self.rare.get(place)?.as_ref())
            .map(|rare| {
                let attributes = rare.attributes.iter();
                let texts: usize = attributes
                    .map(|(key, value)| key.len() + value.len() + 64)
                    .sum();
                size_of::<Rare>() + 2 * size_of::<usize>() + rare.gateways.len() * 4 + texts
            })
            .sum();
        self.names.bytes()
            + self.slots.bytes()
            + self.gateways.bytes()
            + self.rare.bytes()
            + self.free.capacity() * size_of::<u32>()
            + rare
    }
}

/// [`Entries`] as they were at some moment, made without copying them.
#[derive(Debug, Default)]
pub(crate) struct FrozenEntries {
    names: Names,
    slots: Pages<Slot>,
    gateways: Names,
    rare: Pages<Option<Arc<Rare>>>,
}

impl FrozenEntries {
    /// All entries, in the order in which they were first enrolled.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Known<'_>> {
        let numbered = self.names.iter().enumerate();
        numbered.filter_map(|(number, name)| {
            Some(Known {
                name,
                slot: *self.slots.get(number)?,
                gateways: &self.gateways,
                rare: &self.rare,
            })
        })
    }
}

/// An entry.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    name: &'a [u8],
    slot: Slot,
    gateways: &'a Names,
    rare: &'a Pages<Option<Arc<Rare>>>,
}

impl<'a> Known<'a> {
    /// As of [`IdentityName`].
    pub(crate) fn name(&self) -> &'a [u8] {
        self.name
    }

    pub(crate) fn state(&self) -> EntryState {
        self.slot.more.state()
    }

    pub(crate) fn enrolled(&self) -> Timestamp {
        Timestamp(i64::from_le_bytes(self.slot.enrolled))
    }

    fn rare(&self) -> Option<&'a Rare> {
        match self.slot.more.what() {
            Else::Rare(place) => self.rare.get(place)?.as_deref(),
            Else::Nothing | Else::Gateway(_) => None,
        }
    }

    pub(crate) fn fingerprint(&self) -> Option<&'a Digest> {
        self.rare()?.fingerprint.as_ref()
    }

    pub(crate) fn token_sha256(&self) -> Option<&'a Digest> {
        self.rare()?.token_sha256.as_ref()
    }

    /// The value of one of its attributes.
    pub(crate) fn attribute(&self, key: &str) -> Option<&'a str> {
        self.rare()?.attributes.get(key).map(String::as_str)
    }

    /// Whether this gateway may speak for it.
    pub(crate) fn has_gateway(&self, gateway: &str) -> bool {
        let is_it = |number: usize| self.gateways.get(number) == Some(gateway.as_bytes());
        match self.slot.more.what() {
            Else::Nothing => false,
            Else::Gateway(number) => is_it(number),
            Else::Rare(_) => self
                .rare()
                .is_some_and(|rare| rare.gateways.iter().any(|number| is_it(*number as usize))),
        }
    }

    /// The gateway that may speak for it, if that is all that is said of it; `None` if more is, or
    /// nothing.
    pub(crate) fn only_gateway(&self) -> Option<&'a str> {
        match self.slot.more.what() {
            Else::Gateway(number) => self.gateways.text(number),
            Else::Nothing | Else::Rare(_) => None,
        }
    }

    /// Whether more is said of it than [`Known::only_gateway`].
    pub(crate) fn is_rare(&self) -> bool {
        matches!(self.slot.more.what(), Else::Rare(_))
    }

    pub(crate) fn to_entry(self) -> RegistryEntry {
        let (kind, id) = identity_name::kind_and_id(self.name).unwrap_or((SenderKind::Device, ""));
        let text = |digest: Option<&Digest>| digest.map(Digest::to_text);
        let gateways = match self.slot.more.what() {
            Else::Nothing => Vec::new(),
            Else::Gateway(number) => vec![number],
            Else::Rare(_) => {
                let rare = self.rare().map_or(&[][..], |rare| &rare.gateways);
                rare.iter().map(|number| *number as usize).collect()
            }
        };
        RegistryEntry {
            id: id.to_owned(),
            kind: kind.as_str().to_owned(),
            fingerprint: text(self.fingerprint()),
            token_sha256: text(self.token_sha256()),
            gateways: gateways
                .into_iter()
                .filter_map(|number| Some(self.gateways.text(number)?.to_owned()))
                .collect(),
            attributes: self
                .rare()
                .map(|rare| rare.attributes.clone())
                .unwrap_or_default(),
            state: self.state(),
            enrolled_us: self.enrolled().as_micros(),
        }
    }
}
