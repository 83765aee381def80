//! Reading certificates, keys and revocation lists from PEM files, with errors that say which
//! file and what to do.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{Error as PemSyntaxError, PemObject},
};

/// The largest PEM file that is read, in bytes; a chain is a few kilobytes, a revocation list of
/// a large fleet a few hundred.
pub const PEM_FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why a PEM file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than [`PEM_FILE_MAX_BYTES`].
    #[error(
        "{path} is larger than {PEM_FILE_MAX_BYTES} bytes, which no PEM file of certificates or keys is; check the path"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file has a PEM section that does not parse.
    #[error(
        "{path} is not valid PEM: {source}; expected text that begins with -----BEGIN {expected}-----"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The section that was looked for.
        expected: &'static str,
        /// What is wrong with it.
        source: PemSyntaxError,
    },
    /// The file has no section of the kind looked for.
    #[error("{path} holds no {expected} section; is it the right file, and PEM rather than DER?")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The section that was looked for.
        expected: &'static str,
    },
    /// The file has several private keys.
    #[error(
        "{path} holds {count} private keys, and it is not clear which is meant; leave one in it"
    )]
    SeveralKeys {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
}

/// All certificates of a PEM file, in order: a chain (the leaf first) or a set of roots.
///
/// # Errors
/// If the file cannot be read, is not PEM, or holds none.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    load_all(path, "CERTIFICATE")
}

/// The one private key of a PEM file (PKCS #8, SEC 1 or PKCS #1); certificates beside it are
/// passed over.
///
/// # Errors
/// If the file cannot be read, is not PEM, or does not hold exactly one.
pub fn load_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut keys: Vec<PrivateKeyDer<'static>> = load_all(path, "PRIVATE KEY")?;
    match keys.pop() {
        Some(key) if keys.is_empty() => Ok(key),
        _ => Err(PemError::SeveralKeys {
            path: path.to_owned(),
            count: keys.len() + 1,
        }),
    }
}

/// All certificate revocation lists of a PEM file.
///
/// # Errors
/// If the file cannot be read, is not PEM, or holds none.
pub fn load_revocation_lists(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    load_all(path, "X509 CRL")
}

fn load_all<T: PemObject>(path: &Path, expected: &'static str) -> Result<Vec<T>, PemError> {
    let text = read_bounded(path)?;
    let found = T::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| PemError::Malformed {
            path: path.to_owned(),
            expected,
            source,
        })?;
    if found.is_empty() {
        return Err(PemError::Missing {
            path: path.to_owned(),
            expected,
        });
    }
    Ok(found)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, PemError> {
    let io_error = |source| PemError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io_error)?;
    let mut text = Vec::new();
    file.take(PEM_FILE_MAX_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(io_error)?;
    if text.len() as u64 > PEM_FILE_MAX_BYTES {
        return Err(PemError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn encode(label: &str, der: &[u8]) -> String {
        pem::encode(&pem::Pem::new(label, der))
    }

    #[test]
    fn a_chain_keeps_its_order_and_a_key_may_stand_beside_it() {
        let text = [
            encode("CERTIFICATE", b"leaf"),
            encode("PRIVATE KEY", b"key"),
            encode("CERTIFICATE", b"issuer"),
        ];
        let file = file(text.concat().as_bytes());
        let chain = load_certificates(file.path()).unwrap();
        assert_eq!(
            chain,
            [
                CertificateDer::from(b"leaf".to_vec()),
                b"issuer".to_vec().into()
            ]
        );
        assert_eq!(load_private_key(file.path()).unwrap().secret_der(), b"key");
    }

    #[test]
    fn errors_name_the_file_and_what_was_looked_for() {
        let missing = load_certificates(Path::new("no/such.pem")).unwrap_err();
        assert!(matches!(missing, PemError::Io { .. }));
        assert!(missing.to_string().contains("no/such.pem"));

        let der = file(&[0x30, 0x82, 1, 2]);
        assert!(matches!(
            load_certificates(der.path()),
            Err(PemError::Missing {
                expected: "CERTIFICATE",
                ..
            })
        ));

        let certificate_only = file(encode("CERTIFICATE", b"x").as_bytes());
        assert!(matches!(
            load_private_key(certificate_only.path()),
            Err(PemError::Missing {
                expected: "PRIVATE KEY",
                ..
            })
        ));

        let cut = file(b"-----BEGIN CERTIFICATE-----\nAAAA\n");
        assert!(matches!(
            load_certificates(cut.path()),
            Err(PemError::Malformed { .. })
        ));

        let key = encode("PRIVATE KEY", b"x");
        let two = file(format!("{key}{key}").as_bytes());
        assert!(matches!(
            load_private_key(two.path()),
            Err(PemError::SeveralKeys { count: 2, .. })
        ));
    }
}
