//! QUIC endpoints with the engine's TLS and transport settings, and a CA of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use quinn::{
    Connection, Endpoint, MtuDiscoveryConfig, TokioRuntime, TransportConfig,
    congestion::CubicConfig, crypto::rustls::QuicClientConfig,
};
use quiver_model::{DeviceId, OsEntropy, SenderId, SystemClock};
use quiver_pki::{
    ClientTls, Credential, DevelopmentCa, KeyKind, Request, ServerTls, Validity,
    default_server_names, rustls_client_config, rustls_server_config,
};
use quiver_protocol::limits::{INITIAL_WINDOW_BYTES, UDP_PAYLOAD_MAX};
use quiver_runtime::ingest;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{Fault, options::Scenario};

/// The name that the server's certificate has.
pub const SERVER_NAME: &str = "localhost";
const DAY: Duration = Duration::from_secs(86_400);
/// What a client has under way unacknowledged, as the SDK's default.
const SEND_WINDOW: u64 = 4 << 20;

/// As many threads as the engine gives to QUIC.
///
/// # Errors
/// If the operating system gives none.
pub fn runtime(name: &str) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(1, usize::from))
        .thread_name(name)
        .enable_all()
        .build()
}

/// A server, and where its client's credential is.
pub struct Server {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its address.
    pub address: SocketAddr,
    credential: PathBuf,
    _directory: TempDir,
}

impl Server {
    /// Starts one on a free port of the loopback. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If there is no port, no randomness, or no room for the certificates.
    pub fn start() -> Result<Self, Fault> {
        let directory = TempDir::new()?;
        let clock = Arc::new(SystemClock::new());
        let validity = Validity::starting_now(&*clock, DAY);
        let ca = DevelopmentCa::generate(KeyKind::default(), validity, &OsEntropy)?;
        let server = Request::server(default_server_names(), validity);
        let server = ca.issue(&server, &OsEntropy)?;
        let sender = SenderId::device(DeviceId::new("limits")?);
        let client = ca.issue(&Request::client(sender, validity), &OsEntropy)?;
        let credential = directory.path().join("client");
        client.save(&credential)?;

        let tls = rustls_server_config(ServerTls::new(server), clock)?;
        let config = ingest::server_config(Arc::new(tls))?;
        let socket = ingest::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        let endpoint = Endpoint::new(
            ingest::endpoint_config(),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            address,
            credential,
            _directory: directory,
        })
    }

    /// Starts the generator as a process of its own.
    ///
    /// # Errors
    /// If this program cannot be started again.
    pub fn generator(
        &self,
        scenario: &Scenario,
        ready: usize,
        one_per_packet: bool,
    ) -> Result<Generator, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("generate")
            .args(["--server", &self.address.to_string()])
            .arg("--credential")
            .arg(&self.credential)
            .args(["--connections", &scenario.connections.to_string()])
            .args(["--devices", &scenario.devices.to_string()])
            .args([
                "--devices-per-batch",
                &scenario.devices_per_batch.to_string(),
            ])
            .args(["--rows", &scenario.rows.to_string()])
            .args(["--ready", &ready.to_string()])
            .args(["--codec", scenario.codec.name()]);
        if one_per_packet {
            command.arg("--one-per-packet");
        }
        Ok(Generator(command.spawn()?))
    }
}

/// The generator's process, which is ended with this.
pub struct Generator(Child);

impl Generator {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended, which it does not by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client's endpoint.
///
/// # Errors
/// If the credential cannot be read, or there is no port.
pub fn client(credential: &Path) -> Result<Endpoint, Fault> {
    let tls = ClientTls::new(Credential::load(credential)?);
    let tls = rustls_client_config(tls, Arc::new(SystemClock::new()))?;
    let mut transport = TransportConfig::default();
    transport.send_window(SEND_WINDOW);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_MAX);
    transport.mtu_discovery_config(Some(mtu));
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    transport.congestion_controller_factory(Arc::new(congestion));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    let socket = ingest::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let mut endpoint = Endpoint::new(
        ingest::endpoint_config(),
        None,
        socket,
        Arc::new(TokioRuntime),
    )?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// Datagrams that these connections have received.
pub fn datagrams(connections: &[Connection]) -> u64 {
    connections
        .iter()
        .map(|connection| connection.stats().udp_rx.datagrams)
        .sum()
}
