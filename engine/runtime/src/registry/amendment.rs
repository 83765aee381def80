//! What somebody asks for when changing a part of what is said of an identity.

use std::collections::{BTreeMap, BTreeSet};

use quiver_model::{SenderId, Timestamp};

use super::{RegistryEntry, WishRefusal, attributes::check_attribute};

/// A wish to change what it names, and nothing else: unlike an enrolment it leaves a revoked
/// identity revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// Who.
    pub sender: SenderId,
    /// SHA-256 of the one certificate it may use from now on, as of
    /// [`fingerprint_digits`](super::fingerprint_digits); `None` leaves the one there is.
    pub fingerprint: Option<String>,
    /// Gateways that may speak for it, beside those that may already.
    pub gateways: BTreeSet<String>,
    /// Attributes by key: a value to be set, or `None` for one to be removed. That there was none
    /// is no matter.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Whether it is enrolled if nobody knows it; refused otherwise.
    pub enrolls_unknown: bool,
}

impl Amendment {
    /// The identity's entry from now on.
    pub(super) fn entry(
        self,
        known: Option<RegistryEntry>,
        now: Timestamp,
    ) -> Result<RegistryEntry, WishRefusal> {
        let mut entry = match known {
            Some(known) => known,
            None if self.enrolls_unknown => RegistryEntry::new(&self.sender, now),
            None => {
                return Err(WishRefusal::Unknown {
                    sender: self.sender,
                });
            }
        };
        for (key, value) in self.attributes {
            match value {
                // Whatever the key: what an earlier version took can be removed.
                None => drop(entry.attributes.remove(&key)),
                Some(value) => {
                    check_attribute(&key, &value)?;
                    entry.attributes.insert(key, value);
                }
            }
        }
        entry.fingerprint = self.fingerprint.or(entry.fingerprint);
        entry.gateways.extend(self.gateways);
        Ok(entry)
    }
}
