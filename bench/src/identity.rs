//! As whom the load generator comes: certificates for as many devices or gateways as the scenario
//! wants, issued by the CA whose key is at hand, or the operator's credential.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use quinn::{
    MtuDiscoveryConfig, TransportConfig, congestion::CubicConfig, crypto::rustls::QuicClientConfig,
};
use quiver_model::{Clock, DeviceId, OsEntropy, SenderId, SenderKind, SystemClock};
use quiver_pki::{ClientTls, Credential, DevelopmentCa, Request, Validity, rustls_client_config};
use quiver_protocol::limits::{INITIAL_WINDOW_BYTES, UDP_PAYLOAD_MAX};

use crate::{
    error::BenchError,
    scenario::{Identity, Scenario},
    values::device_name,
};

/// How long certificates of a run are valid.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// QUIC settings of a client that only sends.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const SEND_WINDOW: u64 = 4 << 20;
const RECEIVE_WINDOW: u32 = 256 << 10;

/// Where the certificates are that let the load generator in.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Directory of the CA (`ca.pem`, `ca-key.pem`) that issues devices and gateways.
    pub ca: Option<PathBuf>,
    /// The operator's or one gateway's credential: roots, chain and key, in PEM files.
    pub own: Option<(PathBuf, PathBuf, PathBuf)>,
    /// Directory of the operator's credential.
    pub operator: Option<PathBuf>,
}

/// Name of the gateway of a connection.
pub(crate) fn gateway_name(scenario: &Scenario, connection: u32) -> String {
    format!("{}-gateway-{connection}", scenario.stream)
}

/// Id in the certificate that the user gave, if one was given.
pub(crate) fn own_name(credentials: &Credentials) -> Result<Option<String>, BenchError> {
    if credentials.own.is_none() {
        return Ok(None);
    }
    let sender = quiver_pki::identity_of(own(credentials)?.certificate()).map_err(text)?;
    Ok(Some(sender.id.to_string()))
}

/// A QUIC configuration for each connection, in order.
pub(crate) fn client_configs(
    scenario: &Scenario,
    credentials: &Credentials,
) -> Result<Vec<quinn::ClientConfig>, BenchError> {
    let count = scenario.connection_count();
    let transport = Arc::new(transport());
    let name = match scenario.identity {
        Identity::Operator => {
            let own = own(credentials)?;
            let config = config(own, &transport)?;
            return Ok(vec![config; count as usize]);
        }
        Identity::Gateway if credentials.own.is_some() => {
            let config = config(own(credentials)?, &transport)?;
            return Ok(vec![config; count as usize]);
        }
        Identity::Gateway => gateway_name,
        Identity::Device => device_name,
    };
    let kind = match scenario.identity {
        Identity::Gateway => SenderKind::Gateway,
        _ => SenderKind::Device,
    };
    let ca = authority(credentials)?;
    let validity = Validity::starting_now(&SystemClock::new(), LIFETIME);
    let issue = |index: u32| {
        let id = DeviceId::new(&name(scenario, index)).map_err(text)?;
        let request = Request::client(SenderId { kind, id }, validity);
        config(ca.issue(&request, &OsEntropy).map_err(text)?, &transport)
    };
    // Ten thousand take seconds on one core.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let share = count.div_ceil(threads).max(1);
    let parts: Vec<Result<Vec<_>, BenchError>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let issue = &issue;
                let range = (thread * share).min(count)..((thread + 1) * share).min(count);
                scope.spawn(move || range.map(issue).collect())
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| {
                handle.join().unwrap_or_else(|_| {
                    Err(BenchError::Config(
                        "a thread that issues certificates failed".to_owned(),
                    ))
                })
            })
            .collect()
    });
    let mut configs = Vec::with_capacity(count as usize);
    for part in parts {
        configs.extend(part?);
    }
    Ok(configs)
}

fn text(error: impl std::fmt::Display) -> BenchError {
    BenchError::Config(error.to_string())
}

fn authority(credentials: &Credentials) -> Result<DevelopmentCa, BenchError> {
    let directory = credentials.ca.as_deref().ok_or_else(|| {
        BenchError::Config(
            "device and gateway identities need the CA's key: name the engine's --data-dir, or the \
             directory of ca.pem and ca-key.pem with --ca-dir; or set --identity operator"
                .to_owned(),
        )
    })?;
    DevelopmentCa::load(directory).map_err(text)
}

fn own(credentials: &Credentials) -> Result<Credential, BenchError> {
    if let Some((roots, chain, key)) = &credentials.own {
        return Credential::load_files(roots, chain, key).map_err(text);
    }
    let missing = || {
        BenchError::Config(
            "there is no operator credential: name the engine's --data-dir, or give --ca, --cert and --key"
                .to_owned(),
        )
    };
    let directory: &Path = credentials.operator.as_deref().ok_or_else(missing)?;
    Credential::load(directory).map_err(text)
}

fn config(
    credential: Credential,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, BenchError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let tls = rustls_client_config(ClientTls::new(credential), clock).map_err(text)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(text)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport.clone());
    Ok(config)
}

/// As the SDK's: the server opens no QUIC streams and sends nothing but control messages.
fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_MAX);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(RECEIVE_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(SEND_WINDOW)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion))
        .datagram_receive_buffer_size(None);
    transport
}
