//! Devices and keys by number.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{
    bytes::{ReadBytes, WriteBytes},
    windows::panes::NONE,
};

/// What is known of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The greatest event time of its rows in time; `i64::MIN` before the first.
    pub(crate) latest: i64,
    /// The record time of the last of them.
    pub(crate) seen: i64,
    /// The event time up to which record time has closed its windows.
    pub(crate) floor: i64,
    /// The event time at which something is to be done for one of its keys.
    pub(crate) due: i64,
    /// The first of its keys.
    pub(crate) keys: u32,
    pub(crate) is_dirty: bool,
}

impl Clock {
    pub(crate) const NEW: Self = Self {
        latest: i64::MIN,
        seen: i64::MIN,
        floor: i64::MIN,
        due: i64::MAX,
        keys: NONE,
        is_dirty: false,
    };
}

/// What is known of a key, beside its panes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyState {
    /// Its device, if windows are of one device.
    pub(crate) device: u32,
    /// The next key of that device.
    pub(crate) next: u32,
    /// The deadline that stands in the queue for it; `i64::MAX`: none.
    pub(crate) queued: i64,
    /// How many panes it has, of all kinds.
    pub(crate) panes: u32,
    pub(crate) is_dirty: bool,
    /// Whether a checkpoint may have it.
    pub(crate) is_saved: bool,
}

impl KeyState {
    pub(crate) const fn new(device: u32) -> Self {
        Self {
            device,
            next: NONE,
            queued: i64::MAX,
            panes: 0,
            is_dirty: false,
            is_saved: false,
        }
    }
}

/// A text; one that is short lies where it is looked for.
#[derive(Clone, Debug)]
enum Name {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

/// Most bytes of a short text: as many as fit into three words.
const SHORT: usize = 22;

impl Name {
    fn new(text: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text);
                Self::Short(len, bytes)
            }
            _ => Self::Long(Box::from(text)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or(&[]),
            Self::Long(bytes) => bytes,
        }
    }
}

/// Whether texts are the same. Most names have 8 to 16 bytes: two words, which may overlap.
#[inline]
fn equal(one: &[u8], other: &[u8]) -> bool {
    if let (8..=16, true) = (one.len(), one.len() == other.len()) {
        return one.first_chunk::<8>() == other.first_chunk()
            && one.last_chunk::<8>() == other.last_chunk();
    }
    one == other
}

/// Texts by number. Numbers of texts that were removed are given to others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    texts: Vec<Name>,
    free: Vec<u32>,
}

impl Numbers {
    /// How many texts there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn find(&self, text: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        let is_it = |number: &u32| equal(self.text(*number), text);
        self.index.find(hash, is_it).copied()
    }

    /// Whether a number, which may be any, is that of a text.
    #[inline]
    pub(crate) fn is(&self, number: u32, text: &[u8]) -> bool {
        let name = self.texts.get(number as usize);
        name.is_some_and(|name| equal(name.bytes(), text))
    }

    /// The number of a text that is new.
    pub(crate) fn add(&mut self, text: &[u8]) -> u32 {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.texts.push(Name::new(&[]));
                // Keys are limited far below so many.
                u32::try_from(self.texts.len() - 1).unwrap_or(NONE)
            }
        };
        if let Some(place) = self.texts.get_mut(number as usize) {
            *place = Name::new(text);
        }
        let hash = self.hasher.hash_one(text);
        let (hasher, texts) = (&self.hasher, &self.texts);
        let rehash = |number: &u32| hasher.hash_one(texts[*number as usize].bytes());
        self.index.insert_unique(hash, number, rehash);
        number
    }

    /// Forgets a number's text.
    pub(crate) fn remove(&mut self, number: u32) -> Option<Box<[u8]>> {
        let text = std::mem::replace(self.texts.get_mut(number as usize)?, Name::new(&[]));
        let hash = self.hasher.hash_one(text.bytes());
        let found = self.index.find_entry(hash, |other| *other == number);
        found.ok()?.remove();
        self.free.push(number);
        Some(Box::from(text.bytes()))
    }

    pub(crate) fn text(&self, number: u32) -> &[u8] {
        self.texts.get(number as usize).map_or(&[], Name::bytes)
    }
}

/// Adds a text, or none, to a key.
pub(crate) fn write_text(text: Option<&str>, key: &mut Vec<u8>) {
    match text {
        None => key.put_count(0),
        Some(text) => {
            key.put_count(text.len() + 1);
            key.extend_from_slice(text.as_bytes());
        }
    }
}

/// Takes a text off the front of a key: `None` if there is none such, `Some(None)` of a null.
pub(crate) fn read_text<'a>(key: &mut &'a [u8]) -> Option<Option<&'a str>> {
    let Some(len) = usize::try_from(key.varint().ok()?).ok()?.checked_sub(1) else {
        return Some(None);
    };
    std::str::from_utf8(key.slice(len).ok()?).ok().map(Some)
}
