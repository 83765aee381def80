//! Who may connect, and for whom a gateway may speak. Every change is a control record; this is
//! the state those records add up to.

mod amendment;
mod attributes;
mod enrolment;
mod entries;
mod portions;
mod wish;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};

use quiver_model::{DeviceId, SenderId, SenderKind, Timestamp};
use serde::{Deserialize, Serialize};

pub use amendment::Amendment;
pub use attributes::{
    ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, AttributeError, check_attribute, check_attribute_key,
};
pub use enrolment::{Enrolment, MalformedFingerprint, fingerprint_digits};
pub(crate) use entries::{FrozenEntries, Known};
pub use wish::{Decision, Outcome, Wish, WishRefusal};

use entries::Entries;

/// Whether an identity may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// It may.
    Active,
    /// It may not, and its live connections were closed.
    Revoked,
}

/// An identity that the engine knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryEntry {
    /// Its id, without the kind.
    pub id: String,
    /// `device`, `gateway` or `operator`.
    pub kind: String,
    /// SHA-256 of the one certificate it may use (hex); any certificate of the CA if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// SHA-256 of its bearer token (hex), if it may use one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// Gateways that may speak for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gateways: BTreeSet<String>,
    /// What people say of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Whether it may connect.
    pub state: EntryState,
    /// When it was enrolled, in microseconds since 1970.
    pub enrolled_us: i64,
}

impl RegistryEntry {
    /// An active entry with nothing else said of it.
    pub fn new(sender: &SenderId, enrolled: Timestamp) -> Self {
        Self {
            id: sender.id.to_string(),
            kind: sender.kind.as_str().to_owned(),
            fingerprint: None,
            token_sha256: None,
            gateways: BTreeSet::new(),
            attributes: BTreeMap::new(),
            state: EntryState::Active,
            enrolled_us: enrolled.as_micros(),
        }
    }

    /// The identity, if id and kind are well formed.
    pub fn sender(&self) -> Option<SenderId> {
        Some(SenderId {
            kind: SenderKind::from_word(&self.kind)?,
            id: DeviceId::new(&self.id).ok()?,
        })
    }
}

/// A change of the registry, as its control record carries it (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum RegistryChange {
    /// The identity is known from now on, or known differently.
    Put {
        /// Its whole new entry.
        entry: RegistryEntry,
    },
    /// The identity may not connect any more.
    Revoke {
        /// Its id.
        id: String,
        /// Its kind.
        kind: String,
    },
}

/// Why an identity may not do what it asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Nobody enrolled it.
    #[error("{sender} is not enrolled; enroll it with: quiver devices enroll {id} --kind {kind}", id = sender.id, kind = sender.kind.as_str())]
    Unknown {
        /// The identity.
        sender: SenderId,
    },
    /// It was revoked.
    #[error("{sender} is revoked; to let it connect again, enroll it: quiver devices enroll {id} --kind {kind}", id = sender.id, kind = sender.kind.as_str())]
    Revoked {
        /// The identity.
        sender: SenderId,
    },
    /// It is pinned to another certificate.
    #[error("{sender} is enrolled with another certificate; enroll the new fingerprint {offered}")]
    Fingerprint {
        /// The identity.
        sender: SenderId,
        /// SHA-256 of the certificate it offered.
        offered: String,
    },
    /// The token is not the one it was enrolled with.
    #[error("the bearer token is not valid for {sender}")]
    Token {
        /// The identity it claimed.
        sender: SenderId,
    },
}

/// The registry. Shared; changed only by applying control records.
#[derive(Debug, Default)]
pub struct Registry {
    entries: RwLock<Entries>,
}

impl Registry {
    /// Applies a change, which is durable.
    pub fn apply(&self, change: &RegistryChange) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            RegistryChange::Put { entry } => {
                if let Some(sender) = entry.sender() {
                    entries.put(&sender, entry);
                }
            }
            RegistryChange::Revoke { id, kind } => {
                if let Some(kind) = SenderKind::from_word(kind) {
                    entries.revoke(kind, id);
                }
            }
        }
    }

    /// Sets many entries, up to the first error.
    fn put_all<E>(&self, entries: impl Iterator<Item = Result<RegistryEntry, E>>) -> Result<(), E> {
        let mut own = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let entry = entry?;
            if let Some(sender) = entry.sender() {
                own.put(&sender, &entry);
            }
        }
        Ok(())
    }

    /// The entry of an identity.
    pub fn get(&self, sender: &SenderId) -> Option<RegistryEntry> {
        let entries = self.read();
        let known = entries.find(sender.kind, sender.id.as_str())?;
        Some(known.to_entry())
    }

    /// Every entry, by kind and id.
    pub fn all(&self) -> Vec<RegistryEntry> {
        self.all_with(&[])
    }

    /// Every entry that has all of these attributes (key and value), by kind and id.
    pub fn all_with(&self, attributes: &[(String, String)]) -> Vec<RegistryEntry> {
        let entries = self.freeze();
        let has_all = |known: &Known<'_>| {
            attributes
                .iter()
                .all(|(key, value)| known.attribute(key) == Some(value))
        };
        let mut all: Vec<_> = entries.iter().filter(has_all).collect();
        all.sort_unstable_by_key(|known| known.name());
        all.into_iter().map(Known::to_entry).collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.read().bytes()
    }

    /// All entries as they are now; cheap to have.
    pub(crate) fn freeze(&self) -> FrozenEntries {
        self.read().freeze()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an identity may connect with this certificate.
    pub fn admit_certificate(
        &self,
        sender: &SenderId,
        fingerprint: &str,
    ) -> Result<(), AdmissionError> {
        let entries = self.read();
        let entry = active(&entries, sender)?;
        match entry.fingerprint() {
            Some(pinned) if !pinned.is(fingerprint) => Err(AdmissionError::Fingerprint {
                sender: sender.clone(),
                offered: fingerprint.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether an identity may connect with a token of this SHA-256 (hex).
    pub fn admit_token(&self, sender: &SenderId, token_sha256: &str) -> Result<(), AdmissionError> {
        let entries = self.read();
        // One answer for unknown, token-less and wrong: a guesser learns nothing about ids.
        let wrong = || AdmissionError::Token {
            sender: sender.clone(),
        };
        let entry = active(&entries, sender).map_err(|_| wrong())?;
        // Both sides are hashes of secrets: comparing them in variable time reveals no secret.
        match entry.token_sha256() {
            Some(known) if known.is(token_sha256) => Ok(()),
            _ => Err(wrong()),
        }
    }

    /// Whether `speaker` may send rows of `device`. Asked for each device of a gateway's batch:
    /// it allocates nothing.
    pub fn may_speak_for(&self, speaker: &SenderId, device: &str) -> bool {
        if speaker.kind == SenderKind::Device && speaker.id.as_str() != device {
            return false;
        }
        let entries = self.read();
        let known = entries.find(SenderKind::Device, device);
        known.is_some_and(|known| {
            known.state() == EntryState::Active
                && (speaker.kind != SenderKind::Gateway || known.has_gateway(speaker.id.as_str()))
        })
    }

    /// Whether a device was ever enrolled, revoked ones included.
    pub fn knows_device(&self, device: &str) -> bool {
        self.read().find(SenderKind::Device, device).is_some()
    }
}

fn active<'a>(entries: &'a Entries, sender: &SenderId) -> Result<Known<'a>, AdmissionError> {
    match entries.find(sender.kind, sender.id.as_str()) {
        None => Err(AdmissionError::Unknown {
            sender: sender.clone(),
        }),
        Some(entry) if entry.state() == EntryState::Revoked => Err(AdmissionError::Revoked {
            sender: sender.clone(),
        }),
        Some(entry) => Ok(entry),
    }
}

#[cfg(test)]
#[path = "registry/tests.rs"]
mod tests;
#[cfg(test)]
#[path = "registry/wish_tests.rs"]
mod wish_tests;
