//! What somebody asks for when enrolling an identity, and what becomes of its entry.

use std::collections::{BTreeMap, BTreeSet};

use quiver_model::{SenderId, Timestamp};

use super::{EntryState, RegistryEntry};

/// A wish to let an identity connect, or to change what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Who.
    pub sender: SenderId,
    /// SHA-256 of the one certificate it may use, as of [`fingerprint_digits`].
    pub fingerprint: Option<String>,
    /// SHA-256 of its bearer token, in hexadecimal digits.
    pub token_sha256: Option<String>,
    /// Gateways that may speak for it, beside those that may already.
    pub gateways: BTreeSet<String>,
    /// What is said of it, beside what is said already.
    pub attributes: BTreeMap<String, String>,
}

/// A fingerprint that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a fingerprint is the SHA-256 of a certificate, 64 hexadecimal digits; quiver pki show prints it"
)]
pub struct MalformedFingerprint;

/// A fingerprint as the registry has it, of one as people write it: with colons, in capitals.
///
/// # Errors
/// If it has not 64 hexadecimal digits.
pub fn fingerprint_digits(fingerprint: &str) -> Result<String, MalformedFingerprint> {
    let digits = fingerprint.to_ascii_lowercase().replace(':', "");
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(MalformedFingerprint);
    }
    Ok(digits)
}

impl Enrolment {
    /// The identity's entry from now on. Enrolling again changes what is said, and keeps the rest.
    pub(super) fn entry(self, known: Option<RegistryEntry>, now: Timestamp) -> RegistryEntry {
        let mut entry = known.unwrap_or_else(|| RegistryEntry::new(&self.sender, now));
        if entry.state == EntryState::Revoked {
            // It may have been revoked because somebody else has its token.
            entry.token_sha256 = None;
        }
        entry.state = EntryState::Active;
        entry.fingerprint = self.fingerprint.or(entry.fingerprint);
        entry.token_sha256 = self.token_sha256.or(entry.token_sha256);
        entry.gateways.extend(self.gateways);
        entry.attributes.extend(self.attributes);
        entry
    }
}
