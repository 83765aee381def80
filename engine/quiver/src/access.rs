//! Files that let programs on the same machine find and use an engine: its credentials, its HTTP
//! token, and where it listens.
//!
//! ```text
//! <data>/pki/ca/         the development CA (loopback only)
//! <data>/pki/server/     the server's certificate
//! <data>/pki/operator/   the identity of the command line's tools
//! <data>/http-token      0600; whoever can read it may use the HTTP door
//! <data>/server.json     addresses of the engine that runs, or ran last
//! ```

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use quiver_model::{DeviceId, OsEntropy, SenderId, SenderKind, SystemClock};
use quiver_pki::{CA_LIFETIME, Credential, DevelopmentCa, Request, Validity, default_server_names};
use serde::{Deserialize, Serialize};

use crate::exit::{CONFIG, Failure, IO};

/// Lifetime of certificates that are made by themselves.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// A certificate with less left than this is made anew at start.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// Id of the operator identity that the command line uses.
const LOCAL_OPERATOR: &str = "local";

/// Directory of the development CA.
pub fn ca_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pki/ca")
}

/// Directory of the operator's credential.
pub fn operator_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pki/operator")
}

/// The operator identity that the command line's tools use.
pub fn local_operator() -> Result<SenderId, Failure> {
    let id = DeviceId::new(LOCAL_OPERATOR).map_err(Failure::with(CONFIG))?;
    Ok(SenderId {
        kind: SenderKind::Operator,
        id,
    })
}

/// The development CA of a data directory, made on first use.
pub fn development_ca(data_dir: &Path) -> Result<DevelopmentCa, Failure> {
    make_private_dir(&data_dir.join("pki"))?;
    let clock = SystemClock::new();
    DevelopmentCa::load_or_create(
        &ca_dir(data_dir),
        Validity::starting_now(&clock, CA_LIFETIME),
        &OsEntropy,
    )
    .map_err(Failure::with(CONFIG))
}

fn make_private_dir(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Failure::new(IO, format!("cannot create {}: {error}", dir.display())))
}

/// The server's credential from the development CA, made on first use and before it expires.
pub fn server_credential(data_dir: &Path) -> Result<Credential, Failure> {
    let request = |validity| Request::server(default_server_names(), validity);
    kept_credential(data_dir, &data_dir.join("pki/server"), request)
}

/// The operator's credential from the development CA, made on first use and before it expires.
pub fn operator_credential(data_dir: &Path) -> Result<Credential, Failure> {
    let operator = local_operator()?;
    kept_credential(data_dir, &operator_dir(data_dir), |validity| {
        Request::client(operator, validity)
    })
}

fn kept_credential(
    data_dir: &Path,
    dir: &Path,
    request: impl FnOnce(Validity) -> Request,
) -> Result<Credential, Failure> {
    let clock = SystemClock::new();
    if dir.join("cert.pem").exists() {
        let credential = Credential::load(dir).map_err(Failure::with(CONFIG))?;
        let validity =
            quiver_pki::validity_of(credential.certificate()).map_err(Failure::with(CONFIG))?;
        let soon = quiver_model::Clock::wall(&clock).plus(RENEW_BEFORE);
        if soon < validity.not_after() {
            return Ok(credential);
        }
        fs::remove_dir_all(dir).map_err(|error| {
            Failure::new(IO, format!("cannot renew {}: {error}", dir.display()))
        })?;
    }
    let ca = development_ca(data_dir)?;
    let validity = Validity::starting_now(&clock, CERTIFICATE_LIFETIME);
    let credential = ca
        .issue(&request(validity), &OsEntropy)
        .map_err(Failure::with(CONFIG))?;
    credential.save(dir).map_err(Failure::with(IO))?;
    Ok(credential)
}

/// File of the HTTP token.
pub fn http_token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("http-token")
}

/// The HTTP token of a data directory, made on first use.
pub fn http_token(data_dir: &Path) -> Result<String, Failure> {
    let path = http_token_file(data_dir);
    match fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => return Ok(token.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Failure::new(
                IO,
                format!("cannot read {}: {error}", path.display()),
            ));
        }
    }
    let token = random_token();
    write_private(&path, &token)?;
    Ok(token)
}

/// 256 random bits as hexadecimal digits.
pub fn random_token() -> String {
    use quiver_model::Entropy;
    (0..4)
        .map(|_| format!("{:016x}", OsEntropy.next_u64()))
        .collect()
}

fn write_private(path: &Path, content: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(IO, format!("cannot write {}: {error}", path.display()))
    };
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAddresses {
    /// UDP address of the QUIC door.
    pub quic: SocketAddr,
    /// TCP address of the HTTP door.
    pub http: SocketAddr,
    /// Process.
    pub pid: u32,
}

impl ServerAddresses {
    /// Writes them down for programs on this machine.
    pub fn save(&self, data_dir: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string(self).map_err(Failure::with(IO))?;
        write_private(&data_dir.join("server.json"), &text)
    }

    /// What an engine on this data directory wrote down last.
    pub fn load(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data_dir.join("server.json")).ok()?).ok()
    }
}
