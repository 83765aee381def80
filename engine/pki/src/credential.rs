//! A certificate with its key and what its peers are checked against.

use std::{fmt, path::Path};

use pem::Pem;
use quiver_model::SenderId;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    directory::{self, Access, SaveError},
    pem_files::{PemError, load_certificates, load_private_key},
};

const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";
const ROOTS_FILE: &str = "ca.pem";

/// A certificate chain, its private key, and the roots to check peers against: all that one end
/// of a connection needs.
pub struct Credential {
    /// The certificate, then any intermediate ones.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// The certificates a peer's chain must end in.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Credential {
    /// The certificate itself; empty only if somebody emptied the chain.
    pub fn certificate(&self) -> &[u8] {
        self.chain
            .first()
            .map_or(&[], |certificate| certificate.as_ref())
    }

    /// Writes `cert.pem`, `key.pem` (`0600`) and `ca.pem` into a new directory (`0700`), which
    /// appears whole or not at all: the directory to copy to a device.
    ///
    /// # Errors
    /// If something is there already, or the file system fails.
    pub fn save(&self, directory: &Path) -> Result<(), SaveError> {
        let key_label = match &self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let key = pem::encode(&Pem::new(key_label, self.key.secret_der()));
        directory::create(
            directory,
            &[
                (KEY_FILE, key.as_bytes(), Access::Secret),
                (
                    CERTIFICATE_FILE,
                    certificates_pem(&self.chain).as_bytes(),
                    Access::Public,
                ),
                (
                    ROOTS_FILE,
                    certificates_pem(&self.roots).as_bytes(),
                    Access::Public,
                ),
            ],
        )
    }

    /// Reads what [`Credential::save`] wrote.
    ///
    /// # Errors
    /// If one of the three files is missing or not what it should be.
    pub fn load(directory: &Path) -> Result<Self, PemError> {
        Self::load_files(
            &directory.join(ROOTS_FILE),
            &directory.join(CERTIFICATE_FILE),
            &directory.join(KEY_FILE),
        )
    }

    /// Reads the three from PEM files anywhere; two of them may be the same file.
    ///
    /// # Errors
    /// If one of them is missing or not what it should be.
    pub fn load_files(roots: &Path, chain: &Path, key: &Path) -> Result<Self, PemError> {
        Ok(Self {
            chain: load_certificates(chain)?,
            key: load_private_key(key)?,
            roots: load_certificates(roots)?,
        })
    }
}

impl Clone for Credential {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots: self.roots.clone(),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("fingerprint", &crate::fingerprint(self.certificate()))
            .field("chain_length", &self.chain.len())
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// The certificates as PEM, one after another.
pub(crate) fn certificates_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates
        .iter()
        .map(|certificate| pem::encode(&Pem::new("CERTIFICATE", certificate.as_ref())))
        .collect()
}

/// A name for the directory of a sender's credential, different for different senders: its kind,
/// a dash, and its id with all but `[A-Za-z0-9._-]` written as `%` and two hexadecimal digits.
pub fn directory_name(sender: &SenderId) -> String {
    use fmt::Write as _;

    let mut name = format!("{}-", sender.kind.as_str());
    for byte in sender.id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _infallible = write!(name, "%{byte:02X}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_has_no_separator_and_no_collisions() {
        let name = |urn: &str| directory_name(&SenderId::from_urn(urn).unwrap());
        assert_eq!(name("urn:quiver:device:truck_17"), "device-truck_17");
        assert_eq!(
            name("urn:quiver:gateway:depot/7:a@b"),
            "gateway-depot%2F7%3Aa%40b"
        );
        assert_ne!(name("urn:quiver:device:a/b"), name("urn:quiver:device:a-b"));
    }
}
