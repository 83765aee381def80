//! What a certificate is asked to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use quiver_model::SenderId;
use rustls_pki_types::{DnsName, ServerName};

use crate::Validity;

/// The kind of key pair made for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA over P-256: what every TLS library on a device knows.
    #[default]
    EcdsaP256,
    /// Ed25519. Signatures have a fixed length, so that a simulation sends the same packets each
    /// time it is run; ECDSA's vary by a few bytes.
    Ed25519,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Sender(SenderId),
    Server(Vec<ServerName<'static>>),
}

/// What a certificate is asked to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub(crate) subject: Subject,
    pub(crate) validity: Validity,
    pub(crate) key: KeyKind,
}

impl Request {
    /// A client certificate (extended key usage clientAuth) with one SAN URI: the sender's URN.
    pub fn client(sender: SenderId, validity: Validity) -> Self {
        Self {
            subject: Subject::Sender(sender),
            validity,
            key: KeyKind::default(),
        }
    }

    /// A server certificate (extended key usage serverAuth) for these names and addresses; see
    /// [`default_server_names`] and [`server_names`].
    pub fn server(names: Vec<ServerName<'static>>, validity: Validity) -> Self {
        Self {
            subject: Subject::Server(names),
            validity,
            key: KeyKind::default(),
        }
    }

    /// The same with another kind of key. It has no effect where the public key comes from a
    /// signing request.
    #[must_use]
    pub fn with_key(self, key: KeyKind) -> Self {
        Self { key, ..self }
    }
}

/// `localhost`, `127.0.0.1` and `::1`: what a server on its own machine is called.
pub fn default_server_names() -> Vec<ServerName<'static>> {
    let mut names = vec![
        ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ServerName::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    if let Ok(localhost) = DnsName::try_from("localhost") {
        names.insert(0, ServerName::DnsName(localhost));
    }
    names
}

/// Neither a DNS name nor an IP address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "server name {0:?} is neither a DNS name nor an IP address; give a bare name such as quiver.example.org, without port or scheme"
)]
pub struct ServerNameError(pub String);

/// Reads DNS names and IP addresses.
///
/// # Errors
/// At the first that is neither.
pub fn server_names<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<ServerName<'static>>, ServerNameError> {
    names
        .into_iter()
        .map(|name| {
            ServerName::try_from(name.to_owned()).map_err(|_| ServerNameError(name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_names_are_localhost_and_both_loopback_addresses() {
        let expected = server_names(["localhost", "127.0.0.1", "::1"]);
        assert_eq!(expected, Ok(default_server_names()));
    }

    #[test]
    fn an_address_with_a_port_is_not_a_server_name() {
        assert_eq!(
            server_names(["ok.example", "quiver.example:4433"]),
            Err(ServerNameError("quiver.example:4433".into()))
        );
    }
}
