//! Real rustls handshakes in memory, against every way a certificate can be wrong.

use std::{sync::Arc, time::Duration};

use quiver_model::{Clock, ManualClock, OsEntropy, SenderId, Timestamp};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, Error,
    HandshakeKind, ServerConfig, ServerConnection,
};
use rustls_pki_types::ServerName;

use crate::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// 2026-11-22T00:00:00Z.
const NOW: Timestamp = Timestamp(1_795_305_600_000_000);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

fn holding_now() -> Validity {
    Validity::starting_now(&ManualClock::new(NOW), DAY)
}

fn device(id: &str) -> SenderId {
    SenderId::from_urn(&format!("urn:quiver:device:{id}")).unwrap()
}

/// A CA, and a clock shared by both ends.
struct Fleet {
    ca: DevelopmentCa,
    key: KeyKind,
    clock: Arc<ManualClock>,
}

impl Fleet {
    fn new() -> Self {
        Self::with_key(KeyKind::EcdsaP256)
    }

    fn with_key(key: KeyKind) -> Self {
        let validity = Validity::starting_now(&ManualClock::new(NOW), CA_LIFETIME);
        let ca = DevelopmentCa::generate(key, validity, &OsEntropy).unwrap();
        Self {
            ca,
            key,
            clock: clock(),
        }
    }

    fn issue(&self, request: Request) -> Credential {
        self.ca
            .issue(&request.with_key(self.key), &OsEntropy)
            .unwrap()
    }

    fn truck(&self) -> Credential {
        self.issue(Request::client(device("truck-1"), holding_now()))
    }

    fn server_credential(&self) -> Credential {
        self.issue(Request::server(default_server_names(), holding_now()))
    }

    fn server_tls(&self) -> ServerTls {
        ServerTls::new(self.server_credential())
    }

    fn server(&self, tls: ServerTls) -> ServerConfig {
        rustls_server_config(tls, Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap()
    }

    fn client(&self, tls: ClientTls) -> ClientConfig {
        rustls_client_config(tls, Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap()
    }

    /// A handshake with the usual server.
    fn connect(&self, client: ClientTls) -> Outcome {
        handshake(
            self.client(client),
            self.server(self.server_tls()),
            "localhost",
        )
    }
}

/// How a handshake ended on each side; an `Err` of one side is what it found wrong itself, or the
/// alert it was sent.
struct Outcome {
    client: Result<ClientConnection, Error>,
    server: Result<ServerConnection, Error>,
}

impl Outcome {
    fn identity(&self) -> SenderId {
        let server = self.server.as_ref().unwrap();
        self.client.as_ref().unwrap();
        identity_of(&server.peer_certificates().unwrap()[0]).unwrap()
    }

    fn refused_by_server(&self) -> CertificateError {
        match self.server.as_ref().map(|_| ()).unwrap_err() {
            Error::InvalidCertificate(error) => error.clone(),
            other => panic!("the server ended with {other:?}"),
        }
    }

    fn refused_by_client(&self) -> CertificateError {
        match self.client.as_ref().map(|_| ()).unwrap_err() {
            Error::InvalidCertificate(error) => error.clone(),
            other => panic!("the client ended with {other:?}"),
        }
    }
}

fn handshake(client: ClientConfig, server: ServerConfig, name: &'static str) -> Outcome {
    let name = ServerName::try_from(name).unwrap();
    let mut client = Connection::from(ClientConnection::new(Arc::new(client), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(Arc::new(server)).unwrap());
    let (mut client_error, mut server_error) = (None, None);
    for _flight in 0..10 {
        pass(&mut client, &mut server, &mut server_error);
        pass(&mut server, &mut client, &mut client_error);
    }
    let client = match (client_error, client) {
        (None, Connection::Client(client)) if !client.is_handshaking() => Ok(client),
        (error, _) => Err(error.expect("the client is stuck")),
    };
    let server = match (server_error, server) {
        (None, Connection::Server(server)) if !server.is_handshaking() => Ok(server),
        (error, _) => Err(error.expect("the server is stuck")),
    };
    Outcome { client, server }
}

fn pass(from: &mut Connection, to: &mut Connection, error: &mut Option<Error>) {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).unwrap();
        if let Err(found) = to.process_new_packets() {
            *error = Some(found);
        }
    }
}

#[test]
fn a_device_connects_and_is_who_its_certificate_says() {
    for key in [KeyKind::EcdsaP256, KeyKind::Ed25519] {
        let fleet = Fleet::with_key(key);
        let outcome = fleet.connect(ClientTls::new(fleet.truck()));
        assert_eq!(outcome.identity(), device("truck-1"));
        assert_eq!(outcome.client.unwrap().alpn_protocol(), Some(ALPN));
    }
}

#[test]
fn the_default_server_certificate_holds_for_localhost_and_both_loopback_addresses() {
    let fleet = Fleet::new();
    for name in ["localhost", "127.0.0.1", "::1"] {
        let client = fleet.client(ClientTls::new(fleet.truck()));
        handshake(client, fleet.server(fleet.server_tls()), name).identity();
    }
    let client = fleet.client(ClientTls::new(fleet.truck()));
    let outcome = handshake(client, fleet.server(fleet.server_tls()), "quiver.example");
    assert!(matches!(
        outcome.refused_by_client(),
        CertificateError::NotValidForNameContext { .. }
    ));
}

#[test]
fn a_device_of_another_ca_is_refused() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let stranger = ClientTls {
        roots: fleet.truck().roots,
        ..ClientTls::new(other.truck())
    };
    assert_eq!(
        fleet.connect(stranger).refused_by_server(),
        CertificateError::UnknownIssuer
    );
}

#[test]
fn a_server_of_another_ca_is_refused() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let client = other.client(ClientTls::new(other.truck()));
    let outcome = handshake(client, fleet.server(fleet.server_tls()), "localhost");
    assert_eq!(outcome.refused_by_client(), CertificateError::UnknownIssuer);
}

#[test]
fn a_certificate_holds_from_its_first_second_to_its_last() {
    let fleet = Fleet::new();
    let start = NOW;
    let end = NOW.plus(Duration::from_secs(3600));
    let brief = Validity::between(start, end).unwrap();
    let truck = fleet.issue(Request::client(device("truck-1"), brief));
    assert_eq!(validity_of(truck.certificate()), Ok(brief));
    let connect_at = |moment| {
        fleet.clock.step_wall(moment);
        fleet.connect(ClientTls::new(truck.clone()))
    };
    let second = 1_000_000;
    assert!(matches!(
        connect_at(Timestamp(start.0 - second)).refused_by_server(),
        CertificateError::NotValidYetContext { .. }
    ));
    connect_at(start).identity();
    connect_at(end).identity();
    assert!(matches!(
        connect_at(Timestamp(end.0 + second)).refused_by_server(),
        CertificateError::ExpiredContext { .. }
    ));
}

#[test]
fn an_expired_server_is_refused_by_the_client() {
    let fleet = Fleet::new();
    let past = Validity::between(
        Timestamp(NOW.0 - 7_200_000_000),
        Timestamp(NOW.0 - 3_600_000_000),
    );
    let names = default_server_names();
    let tls = ServerTls::new(fleet.issue(Request::server(names, past.unwrap())));
    let client = fleet.client(ClientTls::new(fleet.truck()));
    let outcome = handshake(client, fleet.server(tls), "localhost");
    assert!(matches!(
        outcome.refused_by_client(),
        CertificateError::ExpiredContext { .. }
    ));
}

#[test]
fn a_certificate_is_good_for_one_side_only() {
    let fleet = Fleet::new();
    let outcome = fleet.connect(ClientTls::new(fleet.server_credential()));
    assert!(matches!(
        outcome.refused_by_server(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
    ));

    // The purpose is looked at before the name, which would not fit either.
    let server = fleet.server(ServerTls::new(fleet.truck()));
    let outcome = handshake(
        fleet.client(ClientTls::new(fleet.truck())),
        server,
        "localhost",
    );
    assert!(matches!(
        outcome.refused_by_client(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
    ));
}

#[test]
fn a_device_certificate_cannot_issue_others() {
    let fleet = Fleet::new();
    let truck = fleet.truck();
    let key = rcgen::KeyPair::try_from(truck.key.secret_der()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&truck.chain[0], key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(
        "urn:quiver:operator:root".try_into().unwrap(),
    )];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let forged_key = rcgen::KeyPair::generate().unwrap();
    let forged = params.signed_by(&forged_key, &issuer).unwrap();
    let forged = Credential {
        chain: vec![forged.into(), truck.chain[0].clone()],
        key: rustls_pki_types::PrivatePkcs8KeyDer::from(forged_key.serialize_der()).into(),
        roots: truck.roots.clone(),
    };
    let error = fleet.connect(ClientTls::new(forged)).refused_by_server();
    assert!(
        format!("{error:?}").contains("EndEntityUsedAsCa"),
        "{error:?}"
    );
}

#[test]
fn without_a_certificate_a_client_is_refused_unless_tokens_are_allowed() {
    let fleet = Fleet::new();
    let nobody = || ClientTls {
        roots: fleet.truck().roots,
        identity: None,
    };
    let outcome = fleet.connect(nobody());
    assert_eq!(
        outcome.server.map(|_| ()),
        Err(Error::NoCertificatesPresented)
    );
    assert_eq!(
        outcome.client.map(|_| ()),
        Err(Error::AlertReceived(AlertDescription::CertificateRequired))
    );

    let tokens_allowed = || ServerTls {
        client_authentication: ClientAuthentication::CertificateOrToken,
        ..fleet.server_tls()
    };
    let outcome = handshake(
        fleet.client(nobody()),
        fleet.server(tokens_allowed()),
        "localhost",
    );
    outcome.client.unwrap();
    assert!(outcome.server.unwrap().peer_certificates().is_none());

    // A certificate that is shown is checked even where none is needed.
    let other = Fleet::new();
    let stranger = ClientTls {
        roots: fleet.truck().roots,
        ..ClientTls::new(other.truck())
    };
    let outcome = handshake(
        fleet.client(stranger),
        fleet.server(tokens_allowed()),
        "localhost",
    );
    assert_eq!(outcome.refused_by_server(), CertificateError::UnknownIssuer);
}

#[test]
fn a_server_for_tokens_alone_needs_no_roots() {
    let fleet = Fleet::new();
    let tls = ServerTls {
        client_roots: Vec::new(),
        client_authentication: ClientAuthentication::CertificateOrToken,
        ..fleet.server_tls()
    };
    let nobody = ClientTls {
        roots: fleet.truck().roots,
        identity: None,
    };
    let outcome = handshake(fleet.client(nobody), fleet.server(tls), "localhost");
    outcome.client.unwrap();
    outcome.server.unwrap();
}

#[test]
fn a_revoked_certificate_is_refused_and_its_neighbour_is_not() {
    let fleet = Fleet::new();
    let (good, revoked) = (fleet.truck(), fleet.truck());
    let serial = serial_of(revoked.certificate()).unwrap();
    let list = fleet
        .ca
        .revocation_list(&[serial], 1, holding_now())
        .unwrap();
    let connect = |credential| {
        let tls = ServerTls {
            revocation_lists: vec![list.clone()],
            ..fleet.server_tls()
        };
        let client = fleet.client(ClientTls::new(credential));
        handshake(client, fleet.server(tls), "localhost")
    };
    connect(good).identity();
    assert_eq!(
        connect(revoked).refused_by_server(),
        CertificateError::Revoked
    );
}

#[test]
fn another_protocol_is_refused() {
    let fleet = Fleet::new();
    let mut client = fleet.client(ClientTls::new(fleet.truck()));
    client.alpn_protocols = vec![b"h3".to_vec()];
    let outcome = handshake(client, fleet.server(fleet.server_tls()), "localhost");
    assert_eq!(
        outcome.server.map(|_| ()),
        Err(Error::NoApplicationProtocol)
    );
}

#[test]
fn no_session_is_ever_resumed_even_if_the_client_wants_to() {
    let fleet = Fleet::new();
    let server = Arc::new(fleet.server(fleet.server_tls()));
    let mut client = fleet.client(ClientTls::new(fleet.truck()));
    client.resumption = rustls::client::Resumption::in_memory_sessions(8);
    client.enable_early_data = true;
    for _connection in 0..2 {
        let outcome = handshake(client.clone(), ServerConfig::clone(&server), "localhost");
        assert_eq!(
            outcome.server.unwrap().handshake_kind(),
            Some(HandshakeKind::Full)
        );
    }
    assert_eq!(server.max_early_data_size, 0);
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused_before_any_connection() {
    let fleet = Fleet::new();
    let mismatched = Credential {
        key: fleet.truck().key,
        ..fleet.server_credential()
    };
    assert!(matches!(
        rustls_server_config(ServerTls::new(mismatched), clock()),
        Err(TlsError::Credential {
            own: "server",
            source: Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch),
        })
    ));
    let tls = ServerTls {
        client_roots: Vec::new(),
        ..fleet.server_tls()
    };
    assert!(matches!(
        rustls_server_config(tls, clock()),
        Err(TlsError::NoRoots { peer: "client" })
    ));
}

#[test]
fn a_device_that_keeps_its_own_key_gets_a_certificate_for_it_and_nothing_it_asked_beside() {
    let fleet = Fleet::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wishes = rcgen::CertificateParams::new(vec!["quiver.example".to_owned()]).unwrap();
    wishes.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signing_request = wishes.serialize_request(&key).unwrap().pem().unwrap();
    let request = Request::client(device("truck-9"), holding_now());
    let certificate = fleet
        .ca
        .issue_for_signing_request(&signing_request, &request, &OsEntropy)
        .unwrap();

    let parsed = crate::inspect::parse(&certificate).unwrap();
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    let credential = Credential {
        chain: vec![certificate.clone()],
        key: rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        roots: vec![fleet.ca.certificate().clone()],
    };
    let outcome = fleet.connect(ClientTls::new(credential));
    assert_eq!(outcome.identity(), device("truck-9"));
    assert!(matches!(
        fleet
            .ca
            .issue_for_signing_request("nonsense", &request, &OsEntropy),
        Err(IssueError::SigningRequest(_))
    ));
}

#[test]
fn what_a_directory_keeps_connects_like_what_was_issued() {
    let root = tempfile::tempdir().unwrap();
    let fleet = Fleet::new();
    let place = root
        .path()
        .join("devices")
        .join(directory_name(&device("truck-1")));
    fleet.truck().save(&place).unwrap();
    let loaded = Credential::load(&place).unwrap();
    assert_eq!(
        fleet.connect(ClientTls::new(loaded)).identity(),
        device("truck-1")
    );
}

#[test]
fn ed25519_certificates_have_one_length_whatever_the_keys() {
    let fleet = Fleet::with_key(KeyKind::Ed25519);
    let length = fleet.truck().certificate().len();
    for _certificate in 0..50 {
        assert_eq!(fleet.truck().certificate().len(), length);
    }
}
