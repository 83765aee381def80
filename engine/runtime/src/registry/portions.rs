//! The registry in a checkpoint: portions of bytes, each of which can be read by itself.
//!
//! `version u8`, then for each identity `name | flags u8 | rest`. The rest is when it was enrolled
//! (i64, microseconds since 1970) and, if the flag says so, the one gateway that may speak for it;
//! or the whole entry as JSON. Names are as in `identity_name`; lengths as in `compact_bytes`.

use super::{EntryState, FrozenEntries, Known, Registry, RegistryEntry};
use crate::{
    compact_bytes::{Bytes, put_bytes},
    identity_name,
};

const VERSION: u8 = 1;
/// Bytes of a portion, about.
const PORTION_BYTES: usize = 1 << 20;

const REVOKED: u8 = 1;
const GATEWAY: u8 = 2;
const WHOLE: u8 = 4;

impl FrozenEntries {
    /// All entries, one portion after the other.
    ///
    /// # Errors
    /// Only if an entry has no JSON form.
    pub(crate) fn portions(&self) -> impl Iterator<Item = Result<Vec<u8>, serde_json::Error>> + '_ {
        let mut entries = self.iter().peekable();
        std::iter::from_fn(move || {
            entries.peek()?;
            let mut portion = Vec::with_capacity(PORTION_BYTES);
            portion.push(VERSION);
            while portion.len() < PORTION_BYTES - PORTION_BYTES / 16
                && let Some(entry) = entries.next()
            {
                if let Err(error) = put(&mut portion, entry) {
                    return Some(Err(error));
                }
            }
            Some(Ok(portion))
        })
    }
}

fn put(portion: &mut Vec<u8>, entry: Known<'_>) -> Result<(), serde_json::Error> {
    put_bytes(portion, entry.name());
    if entry.is_rare() {
        portion.push(WHOLE);
        put_bytes(portion, &serde_json::to_vec(&entry.to_entry())?);
        return Ok(());
    }
    let gateway = entry.only_gateway();
    let revoked = match entry.state() {
        EntryState::Active => 0,
        EntryState::Revoked => REVOKED,
    };
    portion.push(revoked | if gateway.is_some() { GATEWAY } else { 0 });
    portion.extend_from_slice(&entry.enrolled().as_micros().to_le_bytes());
    if let Some(gateway) = gateway {
        put_bytes(portion, gateway.as_bytes());
    }
    Ok(())
}

impl Registry {
    /// Takes over the entries of a portion.
    ///
    /// # Errors
    /// If the bytes are not a portion.
    pub(crate) fn restore(&self, portion: &[u8]) -> Result<(), &'static str> {
        let mut bytes = Bytes::new(portion);
        if bytes.byte() != Some(VERSION) {
            return Err("the registry is of a later program, or none");
        }
        self.put_all(std::iter::from_fn(|| {
            (!bytes.is_empty()).then(|| read(&mut bytes).ok_or("the registry is cut or malformed"))
        }))
    }
}

fn read(bytes: &mut Bytes<'_>) -> Option<RegistryEntry> {
    let sender = identity_name::sender(bytes.prefixed()?)?;
    let flags = bytes.byte()?;
    if flags & WHOLE != 0 {
        return serde_json::from_slice(bytes.prefixed()?).ok();
    }
    let enrolled = quiver_model::Timestamp(i64::from_le_bytes(bytes.array()?));
    let mut entry = RegistryEntry::new(&sender, enrolled);
    if flags & REVOKED != 0 {
        entry.state = EntryState::Revoked;
    }
    if flags & GATEWAY != 0 {
        entry.gateways.insert(bytes.text()?.to_owned());
    }
    Some(entry)
}
