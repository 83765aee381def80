//! What a certificate says. Who reads it here has had the chain verified by rustls already; these
//! functions verify nothing.

use std::fmt;

use quiver_model::{SenderId, Timestamp};
use ring::digest;
use x509_parser::{
    certificate::X509Certificate, error::X509Error, extensions::GeneralName, prelude::FromDer,
};

use crate::{Validity, ValidityError};

/// What every Quiver SAN URI begins with.
const URN_PREFIX: &str = "urn:quiver:";

/// Why no sender could be read from a certificate, or why it could not be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not one X.509 certificate in DER.
    #[error("the certificate does not parse as X.509 DER: {reason}")]
    Malformed {
        /// What the parser said.
        reason: String,
    },
    /// It has no Quiver identity.
    #[error(
        "the certificate has no subject alternative name (URI) of the form urn:quiver:device:<id>, urn:quiver:gateway:<id> or urn:quiver:operator:<id>; issue it with `quiver pki`, or ask your CA to add one"
    )]
    NoIdentity,
    /// It has more than one Quiver identity.
    #[error("the certificate has {} Quiver identities ({}), and a connection has exactly one; issue a certificate for each", .urns.len(), .urns.join(", "))]
    SeveralIdentities {
        /// All of them, in order.
        urns: Vec<String>,
    },
    /// Its Quiver identity is not a kind and an id.
    #[error(
        "the certificate's identity {urn:?} is not urn:quiver:<device|gateway|operator>:<id> with an id of 1 to 128 characters of [A-Za-z0-9._:@/-] that starts with a letter or digit"
    )]
    MalformedIdentity {
        /// The SAN URI as it stands in the certificate.
        urn: String,
    },
}

/// The sender a certificate speaks for: its one SAN URI that begins with `urn:quiver:`. Other
/// alternative names are passed over.
///
/// # Errors
/// If the certificate does not parse, or has no such URI, several, or a malformed one.
pub fn identity_of(certificate: &[u8]) -> Result<SenderId, IdentityError> {
    let certificate = parse(certificate)?;
    let alternative_names = certificate.subject_alternative_name().map_err(malformed)?;
    let mut urns: Vec<&str> = alternative_names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(URN_PREFIX) => Some(*uri),
            _ => None,
        })
        .collect();
    match (urns.pop(), urns.is_empty()) {
        (None, _) => Err(IdentityError::NoIdentity),
        (Some(urn), true) => {
            SenderId::from_urn(urn).ok_or_else(|| IdentityError::MalformedIdentity {
                urn: urn.to_owned(),
            })
        }
        (Some(last), false) => {
            urns.push(last);
            let urns = urns.into_iter().map(str::to_owned).collect();
            Err(IdentityError::SeveralIdentities { urns })
        }
    }
}

/// SHA-256 of the whole certificate as 64 lower-case hexadecimal digits: the name of this very
/// credential in the registry. `openssl x509 -fingerprint -sha256` prints the same with colons.
pub fn fingerprint(certificate: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, certificate).as_ref())
}

/// From when until when a certificate holds. A connection outlives its certificate by no more
/// than a grace; who wants to end it needs to know when.
///
/// # Errors
/// If the certificate does not parse, or ends before it begins.
pub fn validity_of(certificate: &[u8]) -> Result<Validity, IdentityError> {
    let validity = parse(certificate)?.validity().clone();
    let moment = |seconds: i64| Timestamp(seconds.saturating_mul(1_000_000));
    Validity::between(
        moment(validity.not_before.timestamp()),
        moment(validity.not_after.timestamp()),
    )
    .map_err(|error: ValidityError| IdentityError::Malformed {
        reason: error.to_string(),
    })
}

/// A certificate's serial number: what a revocation list names it by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From big-endian bytes.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Big-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// The serial number of a certificate.
///
/// # Errors
/// If the certificate does not parse.
pub fn serial_of(certificate: &[u8]) -> Result<Serial, IdentityError> {
    Ok(Serial(parse(certificate)?.raw_serial().to_vec()))
}

/// Parses one certificate and nothing after it.
pub(crate) fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(IdentityError::Malformed {
            reason: format!("{} bytes follow the certificate", rest.len()),
        }),
        Err(error) => Err(IdentityError::Malformed {
            reason: error.to_string(),
        }),
    }
}

fn malformed(error: X509Error) -> IdentityError {
    IdentityError::Malformed {
        reason: error.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;

    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate_with(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["device.example".to_owned()]).unwrap();
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().unwrap()));
        }
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn the_one_quiver_uri_is_the_identity_and_others_are_passed_over() {
        let der = certificate_with(&["spiffe://fleet/truck", "urn:quiver:gateway:depot/7"]);
        assert_eq!(identity_of(&der).unwrap().to_string(), "gateway:depot/7");
    }

    #[test]
    fn without_a_quiver_uri_there_is_no_identity() {
        assert_eq!(
            identity_of(&certificate_with(&[])),
            Err(IdentityError::NoIdentity)
        );
        let other = certificate_with(&["urn:quiverish:device:a", "urn:uuid:f81d4fae"]);
        assert_eq!(identity_of(&other), Err(IdentityError::NoIdentity));
    }

    #[test]
    fn two_quiver_uris_are_no_identity_even_if_they_are_equal() {
        let urns = ["urn:quiver:device:a", "urn:quiver:operator:root"];
        assert_eq!(
            identity_of(&certificate_with(&urns)),
            Err(IdentityError::SeveralIdentities {
                urns: urns.map(str::to_owned).to_vec()
            })
        );
        let twice = certificate_with(&["urn:quiver:device:a"; 2]);
        assert!(matches!(
            identity_of(&twice),
            Err(IdentityError::SeveralIdentities { .. })
        ));
    }

    #[test]
    fn a_malformed_quiver_uri_is_named_in_the_error() {
        for urn in [
            "urn:quiver:device:",
            "urn:quiver:robot:a",
            "urn:quiver:device:a b",
        ] {
            let error = identity_of(&certificate_with(&[urn])).unwrap_err();
            assert_eq!(
                error,
                IdentityError::MalformedIdentity {
                    urn: urn.to_owned()
                }
            );
        }
    }

    #[test]
    fn no_cut_and_no_flipped_bit_of_a_certificate_panics_or_grows_another_identity() {
        let der = certificate_with(&["urn:quiver:device:a"]);
        for length in 0..der.len() {
            assert!(identity_of(&der[..length]).is_err());
        }
        for bit in 0..der.len() * 8 {
            let mut flipped = der.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(sender) = identity_of(&flipped) {
                assert_eq!(sender.to_urn().len(), "urn:quiver:device:a".len());
            }
        }
        let mut longer = der;
        longer.push(0);
        assert!(matches!(
            identity_of(&longer),
            Err(IdentityError::Malformed { .. })
        ));
    }

    #[test]
    fn the_fingerprint_is_sha256_in_lower_case_hex() {
        assert_eq!(
            fingerprint(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
