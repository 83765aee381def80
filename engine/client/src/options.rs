//! What a client is told when it is started.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{AsyncUdpSocket, EndpointConfig};
use quiver_model::{DeviceId, Entropy, OsEntropy};
use quiver_protocol::Compression;

use crate::{BackoffOptions, Linger, Observer, Window, spool::SpoolOptions};

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// At a fixed address.
    Address(SocketAddr),
    /// At `host:port`, resolved anew for each attempt to connect.
    Host(String),
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(host) => f.write_str(host),
        }
    }
}

impl From<SocketAddr> for ServerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// The UDP socket a client speaks through.
pub enum Transport {
    /// A socket of the machine, on any free port.
    Udp,
    /// One that the caller made, for simulations and special networks. The QUIC endpoint is driven
    /// by tokio's clock, so a paused clock drives it too.
    Socket {
        /// The socket.
        socket: Arc<dyn AsyncUdpSocket>,
        /// Connection ids, reset keys, and the seed of the endpoint's randomness.
        config: EndpointConfig,
    },
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp => f.write_str("Udp"),
            Self::Socket { socket, .. } => f.debug_tuple("Socket").field(socket).finish(),
        }
    }
}

/// A bearer token, where no certificate is used.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The device that the token was issued for.
    pub device: DeviceId,
    /// The token.
    pub secret: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Everything a client is told when it is started. [`ClientOptions::new`] has defaults for all but
/// the first three.
pub struct ClientOptions {
    /// Where the server is.
    pub server: ServerAddress,
    /// The name its certificate must have.
    pub server_name: String,
    /// Certificates of both sides; see [`quiver_pki::rustls_client_config`].
    pub tls: rustls::ClientConfig,
    /// A token, if the client has no certificate.
    pub token: Option<Token>,
    /// Name and version of this software, for the server's logs.
    pub software: String,
    /// Random number of this installation. By default the spool keeps one; without a spool it is
    /// drawn at each start.
    pub instance: Option<u64>,
    /// Where batches wait until the server has them. Without it they wait in memory, and what is
    /// not settled when the program ends is lost.
    pub spool: Option<SpoolOptions>,
    /// With a spool: how much may be on its way to the server at once. Without: how much may be
    /// queued in all; more waits in `send`. Default 8 MiB and 1,024 batches. The client's memory
    /// is bounded by about twice its bytes.
    pub window: Window,
    /// Compression of batches. Default LZ4. For rows at a time and batches of up to some hundred
    /// rows [`Compression::Compact`] is smaller and cheaper, if the server knows it.
    pub compression: Compression,
    /// How long [`ClientStream::send_rows`](crate::ClientStream::send_rows) gathers rows. Default
    /// 20 ms, 1,024 rows.
    pub linger: Linger,
    /// What waited longer than this for a connection goes to a producer of its own, marked
    /// `replayed`, with lower priority than what is measured now. Default 30 s.
    pub backlog_after: Duration,
    /// Longest time for a connection to be made and welcomed. Default 10 s.
    pub connect_timeout: Duration,
    /// Pauses between attempts to connect.
    pub backoff: BackoffOptions,
    /// The UDP socket.
    pub transport: Transport,
    /// Where random numbers come from.
    pub entropy: Arc<dyn Entropy>,
    /// Who is told what happens.
    pub observer: Option<Arc<dyn Observer>>,
}

impl ClientOptions {
    /// Options with defaults: no spool, the machine's UDP.
    pub fn new(
        server: impl Into<ServerAddress>,
        server_name: impl Into<String>,
        tls: rustls::ClientConfig,
    ) -> Self {
        Self {
            server: server.into(),
            server_name: server_name.into(),
            tls,
            token: None,
            software: concat!("quiver-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            instance: None,
            spool: None,
            window: Window {
                bytes: 8 * 1024 * 1024,
                batches: 1_024,
            },
            compression: Compression::default(),
            linger: Linger::default(),
            backlog_after: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            backoff: BackoffOptions::default(),
            transport: Transport::Udp,
            entropy: Arc::new(OsEntropy),
            observer: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("server", &self.server)
            .field("server_name", &self.server_name)
            .field("spool", &self.spool)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
