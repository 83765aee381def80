//! Certificates for development and for fleets, and the TLS settings both ends of a Quiver
//! connection use.
//!
//! ```text
//! DevelopmentCa ──issue(Request)──▶ Credential ──save──▶ directory {cert.pem, key.pem, ca.pem}
//!  (a directory)                       │                         │ load, or one's own PEM files
//!                                      ▼                         ▼
//!                 ServerTls, ClientTls ──▶ rustls configurations ──▶ quinn
//!                                                    │
//!                    a peer's verified certificate ──┴─ identity_of ──▶ SenderId
//! ```
//!
//! A sender is who its certificate says: one SAN URI `urn:quiver:<kind>:<id>`. Nothing here
//! decides whether that sender may speak; the registry does.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use quiver_model::{DeviceId, OsEntropy, SenderId, SystemClock};
//! use quiver_pki::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = Arc::new(SystemClock::new());
//! let entropy = OsEntropy;
//! let ca = DevelopmentCa::generate(
//!     KeyKind::EcdsaP256,
//!     Validity::starting_now(&*clock, CA_LIFETIME),
//!     &entropy,
//! )?;
//! let year = Validity::starting_now(&*clock, Duration::from_secs(365 * 24 * 60 * 60));
//! let server = ca.issue(&Request::server(default_server_names(), year), &entropy)?;
//! let truck = SenderId::device(DeviceId::new("truck-17")?);
//! let device = ca.issue(&Request::client(truck.clone(), year), &entropy)?;
//! assert_eq!(identity_of(device.certificate())?, truck);
//!
//! let server_config = rustls_server_config(ServerTls::new(server), clock.clone())?;
//! let client_config = rustls_client_config(ClientTls::new(device), clock)?;
//! # Ok(())
//! # }
//! ```
//!
//! What is absent, on purpose: TLS 1.2, 0-RTT, session resumption (a resumed session would skip
//! the check of expiry and revocation), a process-wide default rustls provider, and any reading of
//! the machine's clock (a [`quiver_model::Clock`] is handed in, so expiry can be simulated).
//! Secret keys never appear in `Debug` output, and files that hold one are created `0600`.

mod ca;
mod credential;
mod directory;
mod inspect;
mod pem_files;
mod request;
mod tls;
mod validity;

#[cfg(test)]
mod handshake_tests;

pub use ca::{CA_LIFETIME, CaLoadError, CaOpenError, DevelopmentCa, IssueError};
pub use credential::{Credential, directory_name};
pub use directory::SaveError;
pub use inspect::{IdentityError, Serial, fingerprint, identity_of, serial_of, validity_of};
pub use pem_files::{
    PEM_FILE_MAX_BYTES, PemError, load_certificates, load_private_key, load_revocation_lists,
};
pub use request::{KeyKind, Request, ServerNameError, default_server_names, server_names};
pub use tls::{
    ALPN, ClientAuthentication, ClientTls, ServerTls, TlsError, rustls_client_config,
    rustls_server_config,
};
pub use validity::{BACKDATE, Validity, ValidityError};
