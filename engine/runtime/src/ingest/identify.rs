//! From a handshake to an identity that may connect.

use std::time::Duration;

use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use quiver_model::{SenderId, Timestamp};
use quiver_protocol::{
    ConnectionClose, ConnectionCloseCode, Credential, HelloReceived, ServerConversation,
    ServerEvent, ServerRules,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::IngestContext;
use crate::registry::{AdmissionError, Registry};

/// From the first packet to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the handshake to the Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read from the control stream at once.
const READ_BYTES: usize = 64 << 10;

/// What a sender has shown to be admitted.
pub enum Shown {
    /// A certificate with this fingerprint.
    Certificate(String),
    /// A token with this SHA-256, in hexadecimal digits.
    Token(String),
}

impl Shown {
    /// Whether the sender may connect with it now.
    ///
    /// # Errors
    /// If it may not, or not any more.
    pub fn admit(&self, registry: &Registry, sender: &SenderId) -> Result<(), ConnectionClose> {
        match self {
            Self::Certificate(fingerprint) => registry.admit_certificate(sender, fingerprint),
            Self::Token(hash) => registry.admit_token(sender, hash),
        }
        .map_err(|error| refusal(&error))
    }
}

/// A connection whose sender is known and may connect.
pub struct Identified {
    /// Who.
    pub sender: SenderId,
    /// What it has shown.
    pub shown: Shown,
    /// The connection.
    pub connection: Connection,
    /// Control stream, to the client.
    pub send: SendStream,
    /// Control stream, from the client.
    pub receive: RecvStream,
    /// Its conversation, with a Hello that waits for its answer.
    pub conversation: ServerConversation,
    /// That Hello.
    pub hello: HelloReceived,
    /// Until when its certificate holds; `None` for a token, or if that cannot be known.
    pub expires: Option<Timestamp>,
    /// What ingest works with.
    pub context: std::sync::Arc<IngestContext>,
}

pub(super) fn close(connection: &Connection, close: &ConnectionClose) {
    connection.close(
        VarInt::from_u32(close.code.number()),
        close.reason.as_bytes(),
    );
}

/// Completes the handshake, reads the Hello and asks the registry. The error has been told to the
/// client, as far as it could be.
pub async fn identify(
    incoming: Incoming,
    context: &std::sync::Arc<IngestContext>,
) -> Result<Identified, String> {
    let connection = tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming)
        .await
        .map_err(|_| "the handshake took too long".to_owned())?
        .map_err(|error| format!("handshake: {error}"))?;
    let certificate = match certificate_identity(&connection) {
        Ok(certificate) => certificate,
        Err(refusal) => return Err(refuse(&connection, &refusal)),
    };
    let (send, mut receive, conversation, hello) = match tokio::time::timeout(
        HELLO_TIMEOUT,
        hello(&connection, certificate.as_ref(), context),
    )
    .await
    {
        Ok(Ok(parts)) => parts,
        Ok(Err(refusal)) => return Err(refuse(&connection, &refusal)),
        Err(_) => {
            let refusal = ConnectionClose::new(
                ConnectionCloseCode::HelloTimeout,
                "no Hello came within 10 s: open a bidirectional stream and send it at once",
            );
            return Err(refuse(&connection, &refusal));
        }
    };
    match admit(certificate.as_ref(), &hello, context).await {
        Ok((sender, shown)) => Ok(Identified {
            sender,
            shown,
            connection,
            send,
            receive,
            conversation,
            expires: certificate.and_then(|certificate| certificate.expires),
            hello,
            context: context.clone(),
        }),
        Err(refusal) => {
            // Nothing more is read: what the client sends is of no use.
            let _ = receive.stop(VarInt::from_u32(refusal.code.number()));
            Err(refuse(&connection, &refusal))
        }
    }
}

fn refuse(connection: &Connection, refusal: &ConnectionClose) -> String {
    close(connection, refusal);
    refusal.to_string()
}

/// A client certificate's identity and fingerprint.
struct Certificate {
    sender: SenderId,
    fingerprint: String,
    expires: Option<Timestamp>,
}

fn certificate_identity(connection: &Connection) -> Result<Option<Certificate>, ConnectionClose> {
    let Some(identity) = connection.peer_identity() else {
        return Ok(None);
    };
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| {
            ConnectionClose::new(
                ConnectionCloseCode::Internal,
                "the certificate could not be read",
            )
        })?;
    let Some(leaf) = chain.first() else {
        return Ok(None);
    };
    let sender = quiver_pki::identity_of(leaf).map_err(|error| {
        ConnectionClose::new(
            ConnectionCloseCode::Unauthenticated,
            format!("client certificate: {error}"),
        )
    })?;
    Ok(Some(Certificate {
        sender,
        fingerprint: quiver_pki::fingerprint(leaf),
        expires: quiver_pki::validity_of(leaf)
            .ok()
            .map(|validity| validity.not_after()),
    }))
}

type Conversation = (SendStream, RecvStream, ServerConversation, HelloReceived);

async fn hello(
    connection: &Connection,
    certificate: Option<&Certificate>,
    context: &IngestContext,
) -> Result<Conversation, ConnectionClose> {
    let gone = |what: &str| ConnectionClose::new(ConnectionCloseCode::ProtocolViolation, what);
    let (send, mut receive) = connection
        .accept_bi()
        .await
        .map_err(|_| gone("the connection ended before the Hello"))?;
    let rules = ServerRules {
        tokens_allowed: context.tokens_allowed,
    };
    let mut conversation =
        ServerConversation::new(certificate.map(|known| known.sender.clone()), rules);
    loop {
        match conversation.poll_event() {
            Some(ServerEvent::Hello(hello)) => return Ok((send, receive, conversation, hello)),
            Some(ServerEvent::Closed(close)) => return Err(close),
            Some(ServerEvent::Finished) => {
                return Err(gone("the control stream ended before the Hello"));
            }
            None => {}
        }
        match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => conversation.handle_bytes(chunk.bytes),
            Ok(None) => conversation.handle_end(),
            Err(_) => return Err(gone("the control stream was reset before the Hello")),
        }
    }
}

async fn admit(
    certificate: Option<&Certificate>,
    hello: &HelloReceived,
    context: &IngestContext,
) -> Result<(SenderId, Shown), ConnectionClose> {
    let registry = &context.control.state().registry;
    match (&hello.credential, certificate) {
        (Credential::Certificate(sender), Some(certificate)) => {
            if context.options.enroll_unknown {
                context
                    .control
                    .enroll_unknown(sender)
                    .await
                    .map_err(|error| {
                        ConnectionClose::new(
                            ConnectionCloseCode::Overloaded,
                            format!("{sender} could not be enrolled: {error}; try again"),
                        )
                    })?;
            }
            let shown = Shown::Certificate(certificate.fingerprint.clone());
            shown.admit(registry, sender)?;
            Ok((sender.clone(), shown))
        }
        (Credential::Token { device_id, token }, _) => {
            let sender = SenderId::device(device_id.clone());
            let hash: String = Sha256::digest(token.as_bytes())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let shown = Shown::Token(hash);
            shown.admit(registry, &sender)?;
            Ok((sender, shown))
        }
        (Credential::Certificate(_), None) => Err(ConnectionClose::new(
            ConnectionCloseCode::Unauthenticated,
            "the connection has no certificate",
        )),
    }
}

fn refusal(error: &AdmissionError) -> ConnectionClose {
    let code = match error {
        AdmissionError::Unknown { .. } => ConnectionCloseCode::NotEnrolled,
        AdmissionError::Revoked { .. } => ConnectionCloseCode::Revoked,
        AdmissionError::Fingerprint { .. } | AdmissionError::Token { .. } => {
            ConnectionCloseCode::Unauthenticated
        }
    };
    ConnectionClose::new(code, error.to_string())
}
