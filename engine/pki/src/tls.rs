//! The TLS settings of both ends. TLS 1.3 alone, ring alone, named explicitly: other crates of
//! the same program may bring a second provider, and rustls then has no default.

use std::{sync::Arc, time::Duration};

use quiver_model::Clock;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};

use crate::Credential;

/// The protocol a connection is for; both ends offer this one and no other.
pub const ALPN: &[u8] = b"quiver/1";

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// A connection without a certificate ends in the handshake.
    CertificateRequired,
    /// A client may come without one, and must then show a token in its `Hello`. A certificate
    /// that is shown must hold all the same.
    CertificateOrToken,
}

/// What a server needs to speak TLS.
#[derive(Debug)]
pub struct ServerTls {
    /// The server's certificate, then any intermediate ones.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// The roots that clients' chains must end in.
    pub client_roots: Vec<CertificateDer<'static>>,
    /// Whether clients must have certificates.
    pub client_authentication: ClientAuthentication,
    /// Revocation lists of the CAs that issue clients' certificates. With none, revocation is not
    /// checked here (the registry checks it); with any, a client whose issuer has no list is
    /// refused. They are part of the configuration: to load newer ones, build it anew.
    pub revocation_lists: Vec<CertificateRevocationListDer<'static>>,
}

impl ServerTls {
    /// A server with this credential, whose clients must have certificates from the same roots.
    pub fn new(credential: Credential) -> Self {
        Self {
            chain: credential.chain,
            key: credential.key,
            client_roots: credential.roots,
            client_authentication: ClientAuthentication::CertificateRequired,
            revocation_lists: Vec::new(),
        }
    }
}

/// What a client needs to speak TLS.
#[derive(Debug)]
pub struct ClientTls {
    /// The roots that the server's chain must end in.
    pub roots: Vec<CertificateDer<'static>>,
    /// The client's own chain and key; without them it must have a token.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl ClientTls {
    /// A client with this credential.
    pub fn new(credential: Credential) -> Self {
        Self {
            roots: credential.roots,
            identity: Some((credential.chain, credential.key)),
        }
    }
}

/// Why certificates do not make a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No root to check the peer against.
    #[error(
        "no CA certificate to check the {peer} against; name one (ca.pem of the CA that issued the {peer}'s certificate)"
    )]
    NoRoots {
        /// `server` or `client`.
        peer: &'static str,
    },
    /// A root is not a usable certificate.
    #[error("CA certificate number {number} cannot be used: {source}")]
    Root {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A revocation list does not parse.
    #[error("a certificate revocation list cannot be used: {0}")]
    RevocationList(#[source] VerifierBuilderError),
    /// The own certificate and key cannot be used, alone or together.
    #[error(
        "the {own} certificate and its key cannot be used: {source}; the key must be that of the first certificate, and ECDSA (P-256, P-384), Ed25519 or RSA"
    )]
    Credential {
        /// `server` or `client`.
        own: &'static str,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The provider does not do TLS 1.3.
    #[error("TLS 1.3 is not available: {0}")]
    Provider(#[source] rustls::Error),
}

/// A server's TLS configuration. `clock` says whether clients' certificates hold.
///
/// # Errors
/// If roots, revocation lists, certificate or key cannot be used.
pub fn rustls_server_config(
    tls: ServerTls,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let builder =
        ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(WallClock(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Provider)?;

    let required = tls.client_authentication == ClientAuthentication::CertificateRequired;
    let builder = if tls.client_roots.is_empty() && !required {
        // Tokens alone: without a root no certificate could hold, so none is asked for.
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(root_store(tls.client_roots, "client")?);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .with_crls(tls.revocation_lists)
            .only_check_end_entity_revocation();
        if !required {
            verifier = verifier.allow_unauthenticated();
        }
        builder.with_client_cert_verifier(verifier.build().map_err(TlsError::RevocationList)?)
    };
    let mut config = builder
        .with_single_cert(tls.chain, tls.key)
        .map_err(|source| TlsError::Credential {
            own: "server",
            source,
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A replayed 0-RTT flight could precede the handshake that proves who sends it.
    config.max_early_data_size = 0;
    // A resumed session takes over the identity of the old one without looking at the
    // certificate again, past its expiry or revocation.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// A client's TLS configuration. `clock` says whether the server's certificate holds.
///
/// # Errors
/// If roots, certificate or key cannot be used.
pub fn rustls_client_config(
    tls: ClientTls,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, TlsError> {
    let roots = root_store(tls.roots, "server")?;
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(WallClock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Provider)?
        .with_root_certificates(roots);
    let mut config = match tls.identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|source| TlsError::Credential {
                own: "client",
                source,
            })?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn root_store(
    roots: Vec<CertificateDer<'static>>,
    peer: &'static str,
) -> Result<RootCertStore, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::NoRoots { peer });
    }
    let mut store = RootCertStore::empty();
    for (index, root) in roots.into_iter().enumerate() {
        store.add(root).map_err(|source| TlsError::Root {
            number: index + 1,
            source,
        })?;
    }
    Ok(store)
}

/// Quiver's clock as rustls wants it.
#[derive(Debug)]
struct WallClock(Arc<dyn Clock>);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let micros = u64::try_from(self.0.wall().as_micros()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_micros(micros)))
    }
}
