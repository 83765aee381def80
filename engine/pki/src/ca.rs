//! A certificate authority in a directory: for development, for tests, and for fleets that have
//! none of their own.

use std::{
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use pem::Pem;
use quiver_model::{Entropy, SenderId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
};

use crate::{
    Credential, IdentityError, KeyKind, PemError, Request, Serial, Validity,
    credential::certificates_pem,
    directory::{self, Access, SaveError},
    inspect,
    pem_files::{load_certificates, load_private_key},
    request::Subject,
    validity::since_epoch,
};

/// How long a development CA holds: ten years of 365 days.
pub const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca-key.pem";

/// The longest common name X.520 allows, in characters.
const COMMON_NAME_MAX: usize = 64;

/// A certificate authority whose key is at hand.
pub struct DevelopmentCa {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// Why a certificate, a signing request or a revocation list could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The key pair could not be made: the operating system gave no randomness.
    #[error("cannot make a key pair: {0}")]
    Key(#[source] rcgen::Error),
    /// The certificate or list could not be encoded or signed.
    #[error("cannot sign: {0}")]
    Sign(#[source] rcgen::Error),
    /// A server certificate was asked for without a name.
    #[error(
        "a server certificate needs at least one DNS name or IP address; localhost, 127.0.0.1 and ::1 are usual"
    )]
    NoServerName,
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate as a subject alternative name")]
    Name {
        /// The name.
        name: String,
    },
    /// A signing request does not parse, or is not signed by its own key.
    #[error(
        "the certificate signing request cannot be used: {0}; it must be PEM (BEGIN CERTIFICATE REQUEST), signed by its own key"
    )]
    SigningRequest(#[source] rcgen::Error),
}

/// Why a CA could not be read from its directory.
#[derive(Debug, thiserror::Error)]
pub enum CaLoadError {
    /// One of its files is missing or not PEM.
    #[error(transparent)]
    File(#[from] PemError),
    /// Others than the owner may read its key.
    #[error(
        "{path} may be read by others (mode {mode:03o}); whoever reads it can issue identities. Check who could, then `chmod 600` it"
    )]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is of a kind that cannot sign here.
    #[error(
        "{path} holds a key that cannot sign certificates here: {source}; PKCS #8 with ECDSA P-256, P-384, Ed25519 or RSA can"
    )]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// The certificate does not parse.
    #[error("{path}: {source}")]
    Certificate {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The certificate is not one of a CA.
    #[error("{path} is not a CA certificate: its basic constraints do not allow it to issue")]
    NotACa {
        /// The certificate file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together.
    #[error("{certificate} and {key} do not belong together: their public keys differ")]
    KeyMismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
}

/// Why a CA could be neither read from its directory nor created there.
#[derive(Debug, thiserror::Error)]
pub enum CaOpenError {
    /// It is there and cannot be used.
    #[error(transparent)]
    Load(#[from] CaLoadError),
    /// It could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// It could not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl DevelopmentCa {
    /// A CA in memory; [`DevelopmentCa::save`] keeps it.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn generate(
        key: KeyKind,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Self, IssueError> {
        let key = generate_key(key)?;
        let serial = random_serial(entropy);
        let mut params = base_params(validity, &serial);
        // Part of the serial in the name, so that two development CAs can be told apart where
        // only names are shown, and path building never confuses them.
        let short = serial.to_string();
        params.distinguished_name = name(&format!("Quiver CA {}", short.get(..8).unwrap_or("")));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(IssueError::Sign)?.into();
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Generates a CA and writes it into a new directory; see [`DevelopmentCa::save`].
    ///
    /// # Errors
    /// If something is there already, the file system fails, or there is no randomness.
    pub fn create(
        directory: &Path,
        key: KeyKind,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Self, CaOpenError> {
        let this = Self::generate(key, validity, entropy)?;
        this.save(directory)?;
        Ok(this)
    }

    /// Writes `ca.pem` and `ca-key.pem` (`0600`) into a new directory (`0700`), which appears
    /// whole or not at all.
    ///
    /// # Errors
    /// If something is there already, or the file system fails.
    pub fn save(&self, directory: &Path) -> Result<(), SaveError> {
        let key = pem::encode(&Pem::new("PRIVATE KEY", self.issuer.key().serialized_der()));
        directory::create(
            directory,
            &[
                (KEY_FILE, key.as_bytes(), Access::Secret),
                (
                    CERTIFICATE_FILE,
                    self.certificate_pem().as_bytes(),
                    Access::Public,
                ),
            ],
        )
    }

    /// Reads `ca.pem` and `ca-key.pem` from a directory.
    ///
    /// # Errors
    /// If a file is missing or unfit, the two do not belong together, or others may read the key.
    pub fn load(directory: &Path) -> Result<Self, CaLoadError> {
        let certificate_path = directory.join(CERTIFICATE_FILE);
        let key_path = directory.join(KEY_FILE);
        let certificate = load_certificates(&certificate_path)?.swap_remove(0);
        refuse_if_exposed(&key_path)?;
        let key = KeyPair::try_from(&load_private_key(&key_path)?).map_err(|source| {
            CaLoadError::Key {
                path: key_path.clone(),
                source,
            }
        })?;

        let parsed = inspect::parse(&certificate).map_err(|source| CaLoadError::Certificate {
            path: certificate_path.clone(),
            source,
        })?;
        if !parsed.is_ca() {
            return Err(CaLoadError::NotACa {
                path: certificate_path,
            });
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(CaLoadError::KeyMismatch {
                certificate: certificate_path,
                key: key_path,
            });
        }
        drop(parsed);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| {
            let source = IdentityError::Malformed {
                reason: error.to_string(),
            };
            CaLoadError::Certificate {
                path: certificate_path,
                source,
            }
        })?;
        Ok(Self {
            certificate,
            issuer,
        })
    }

    /// Reads the CA of a directory, or creates one (ECDSA P-256) if the directory is absent or
    /// empty. Safe against another process that does the same at the same moment.
    ///
    /// # Errors
    /// If what is there cannot be used, or nothing can be written.
    pub fn load_or_create(
        directory: &Path,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Self, CaOpenError> {
        let present = [CERTIFICATE_FILE, KEY_FILE]
            .iter()
            .any(|name| directory.join(name).exists());
        if present {
            return Ok(Self::load(directory)?);
        }
        match Self::create(directory, KeyKind::default(), validity, entropy) {
            Err(CaOpenError::Save(SaveError::Exists { .. }))
                if directory.join(CERTIFICATE_FILE).exists() =>
            {
                Ok(Self::load(directory)?)
            }
            outcome => outcome,
        }
    }

    /// The CA's own certificate: the root that peers are checked against.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's own certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        certificates_pem(std::slice::from_ref(&self.certificate))
    }

    /// Makes a key pair and a certificate for it. The key always comes from the operating
    /// system's randomness; `entropy` gives the serial number.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate, none is given, or there is no randomness.
    pub fn issue(
        &self,
        request: &Request,
        entropy: &dyn Entropy,
    ) -> Result<Credential, IssueError> {
        let key = generate_key(request.key)?;
        let certificate = self.sign(request, &key, entropy)?;
        Ok(Credential {
            chain: vec![certificate],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec())),
            roots: vec![self.certificate.clone()],
        })
    }

    /// Signs the public key of a certificate signing request (PEM, PKCS #10), so that the private
    /// key never leaves the device that made it. Of the signing request only the public key is
    /// taken: what the certificate says is up to `request`.
    ///
    /// # Errors
    /// If the signing request does not parse or is not signed by its own key, or as
    /// [`DevelopmentCa::issue`].
    pub fn issue_for_signing_request(
        &self,
        signing_request: &str,
        request: &Request,
        entropy: &dyn Entropy,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let parsed = CertificateSigningRequestParams::from_pem(signing_request)
            .map_err(IssueError::SigningRequest)?;
        self.sign(request, &parsed.public_key, entropy)
    }

    /// A list of revoked certificates of this CA, signed. `number` rises from list to list; the
    /// list's validity says from when it holds and by when the next is due.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn revocation_list(
        &self,
        revoked: &[Serial],
        number: u64,
        validity: Validity,
    ) -> Result<CertificateRevocationListDer<'static>, IssueError> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let this_update = epoch + since_epoch(validity.not_before());
        let revoked_certs = revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial.as_bytes()),
                revocation_time: this_update,
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let list = CertificateRevocationListParams {
            this_update,
            next_update: epoch + since_epoch(validity.not_after()),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list
            .signed_by(&self.issuer)
            .map_err(IssueError::Sign)?
            .into())
    }

    fn sign(
        &self,
        request: &Request,
        public_key: &impl PublicKeyData,
        entropy: &dyn Entropy,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let mut params = base_params(request.validity, &random_serial(entropy));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match &request.subject {
            Subject::Sender(sender) => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names = vec![sender_uri(sender)?];
                params.distinguished_name = name(&sender.to_string());
            }
            Subject::Server(names) => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.subject_alt_names =
                    names.iter().map(server_name).collect::<Result<_, _>>()?;
                let first = names.first().ok_or(IssueError::NoServerName)?;
                params.distinguished_name = name(&first.to_str());
            }
        }
        Ok(params
            .signed_by(public_key, &self.issuer)
            .map_err(IssueError::Sign)?
            .into())
    }
}

impl fmt::Debug for DevelopmentCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevelopmentCa")
            .field("fingerprint", &crate::fingerprint(&self.certificate))
            .finish_non_exhaustive()
    }
}

fn generate_key(kind: KeyKind) -> Result<KeyPair, IssueError> {
    let algorithm = match kind {
        KeyKind::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
    };
    KeyPair::generate_for(algorithm).map_err(IssueError::Key)
}

/// 16 random bytes, of which 126 bits vary: positive, and always of the same encoded length.
fn random_serial(entropy: &dyn Entropy) -> Serial {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend(entropy.next_u64().to_be_bytes());
    bytes.extend(entropy.next_u64().to_be_bytes());
    bytes[0] = 0x40 | (bytes[0] & 0x3f);
    Serial::from_bytes(bytes)
}

fn base_params(validity: Validity, serial: &Serial) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch(validity.not_before());
    params.not_after = epoch + since_epoch(validity.not_after());
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params
}

/// A distinguished name for people to read; nothing decides by it.
fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Quiver");
    name.push(
        DnType::CommonName,
        common_name
            .chars()
            .take(COMMON_NAME_MAX)
            .collect::<String>(),
    );
    name
}

fn sender_uri(sender: &SenderId) -> Result<SanType, IssueError> {
    let urn = sender.to_urn();
    match urn.as_str().try_into() {
        Ok(uri) => Ok(SanType::URI(uri)),
        Err(_) => Err(IssueError::Name { name: urn }),
    }
}

fn server_name(server: &ServerName<'_>) -> Result<SanType, IssueError> {
    let unfit = || IssueError::Name {
        name: server.to_str().into_owned(),
    };
    match server {
        ServerName::DnsName(dns) => Ok(SanType::DnsName(
            dns.as_ref().try_into().map_err(|_| unfit())?,
        )),
        ServerName::IpAddress(address) => Ok(SanType::IpAddress((*address).into())),
        _ => Err(unfit()),
    }
}

fn refuse_if_exposed(key: &Path) -> Result<(), CaLoadError> {
    let metadata = std::fs::metadata(key).map_err(|source| PemError::Io {
        path: key.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CaLoadError::KeyExposed {
            path: key.to_owned(),
            mode,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
