//! The HTTP door (actix-web): liveness, metrics, SQL, administration.
//!
//! | path | method | token |
//! | --- | --- | --- |
//! | `/live`, `/ready`, `/metrics`, `/api/openapi.json` | GET | no |
//! | `/api/v1/sql` | POST | yes |
//! | `/api/v1/pipeline`, `/api/v1/tail` | GET | yes |
//! | `/api/v1/pipeline` | POST | yes |
//! | `/api/v1/status`, `/api/v1/audit`, `/api/v1/devices`, `/api/v1/archive/files` | GET | yes |
//! | `/api/v1/devices`, `/api/v1/devices/bulk`, `/api/v1/devices/set`, `/api/v1/devices/revoke`, `/api/v1/streams` | POST | yes |
//! | `/api/v1/archive/check`, `/api/v1/archive/suggest`, `/api/v1/archive/compact`, `/api/v1/archive/vacuum` | POST | yes |
//!
//! The door opens before the engine recovers: until [`HttpDoor::admit`] is called, only `/live` is
//! answered, and everything else is told to come back (503).
//!
//! Every request must name a known host (a page on the web cannot make a browser ask under a name
//! of its own), and what reads data or changes something needs a JSON content type (which a form
//! on such a page cannot send) and the token from the data directory.

mod admin;
mod devices;
mod guard;
mod metrics;
mod openapi;
mod peer;
mod pipeline;
mod sql;

pub use admin::{DeclareRequest, Status};
pub use devices::{AmendRequest, BulkAnswer, BulkRequest, EnrollRequest, SetAnswer, SetRequest};
#[cfg(test)]
pub use pipeline::NodeStatus;
pub use pipeline::PipelineStatus;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, middleware::from_fn, web};
use futures::channel::oneshot;
use quiver_archive::{DeltaArchive, Maintenance};
use quiver_model::Timestamp;
use quiver_query::{QueryEngine, QueryLimits};
use quiver_runtime::{Engine, ingest::SocketDrops};

use crate::{
    exit::{Failure, IO, UNAVAILABLE},
    pipeline::RunningPipeline,
    sources::Sources,
};

/// Longest request body, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long requests under way may take when the server stops.
const SHUTDOWN_SECONDS: u64 = 5;
/// Threads of the HTTP door: it waits for queries, it does not run them.
const WORKERS: usize = 2;

/// What handlers work with.
#[derive(Clone)]
pub struct HttpState {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The archive.
    pub archive: Arc<DeltaArchive>,
    /// What keeps it in shape, unless that was turned off.
    pub maintenance: Option<Arc<Maintenance>>,
    /// What queries read.
    pub sources: Sources,
    /// Their limits.
    pub limits: QueryLimits,
    /// Bytes that the process may take in all.
    pub memory_cap: u64,
    /// What the kernel dropped before it was read, where that is counted.
    pub socket_drops: Option<SocketDrops>,
    /// Queries as of now.
    pub queries: QueryEngine,
    /// Where they run.
    pub query_runtime: tokio::runtime::Handle,
    /// Who has it may ask.
    pub token: String,
    /// When the engine started.
    pub started: Timestamp,
    /// Held by what may be under way once only.
    pub turns: Arc<Turns>,
    /// The graph, if there is one.
    pub pipeline: Option<Arc<RunningPipeline>>,
}

/// What one request at a time does.
#[derive(Debug, Default)]
pub struct Turns {
    /// An audit: its queries come on top of those that the limit counts.
    pub audit: tokio::sync::Mutex<()>,
}

/// What every request passes: the engine is behind it, or not yet.
struct Gate {
    /// Names under which the server may be asked, beside loopback's.
    hosts: Vec<String>,
    state: OnceLock<web::Data<HttpState>>,
}

impl Gate {
    fn knows_host(&self, name: &str) -> bool {
        self.hosts
            .iter()
            .any(|host| host.eq_ignore_ascii_case(name))
    }

    fn state(&self) -> Option<web::Data<HttpState>> {
        self.state.get().cloned()
    }
}

/// The open door.
pub struct HttpDoor {
    address: SocketAddr,
    gate: web::Data<Gate>,
    handle: ServerHandle,
    ended: oneshot::Receiver<()>,
}

impl HttpDoor {
    /// Listens, and answers that the engine is starting, until [`Self::admit`] is called.
    pub fn open(address: SocketAddr, hosts: Vec<String>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(
                UNAVAILABLE,
                format!("cannot listen on --http {address} (TCP): {error}"),
            )
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let gate = web::Data::new(Gate {
            hosts,
            state: OnceLock::new(),
        });
        let shared = gate.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(web::JsonConfig::default().limit(BODY_BYTES_MAX).error_handler(|error, _| {
                    let problem = serde_json::json!({ "error": format!("the request's body: {error}") });
                    actix_web::error::InternalError::from_response(
                        error,
                        HttpResponse::BadRequest().json(problem),
                    )
                    .into()
                }))
                .wrap(from_fn(guard::known_host))
                .route("/live", web::get().to(metrics::live))
                .service(
                    web::scope("/api/v1")
                        .wrap(from_fn(guard::token_and_json))
                        // The last one wrapped is the first one passed.
                        .wrap(from_fn(guard::started))
                        .route("/sql", web::post().to(sql::sql))
                        .route("/status", web::get().to(admin::status))
                        .route("/audit", web::get().to(admin::audit))
                        .route("/devices", web::get().to(devices::list))
                        .route("/devices", web::post().to(devices::enroll))
                        .route("/devices/bulk", web::post().to(devices::enroll_bulk))
                        .route("/devices/set", web::post().to(devices::set))
                        .route("/devices/revoke", web::post().to(devices::revoke))
                        .route("/streams", web::post().to(admin::declare))
                        .route("/pipeline", web::get().to(pipeline::figures))
                        .route("/pipeline", web::post().to(pipeline::reload))
                        .route("/tail", web::get().to(pipeline::tail))
                        .route("/archive/files", web::get().to(admin::archive_files))
                        .route("/archive/check", web::post().to(admin::archive_check))
                        .route("/archive/suggest", web::post().to(admin::archive_suggest))
                        .route("/archive/compact", web::post().to(admin::archive_compact))
                        .route("/archive/vacuum", web::post().to(admin::archive_vacuum))
                        .default_service(web::to(no_such_path)),
                )
                .service(
                    web::scope("")
                        .wrap(from_fn(guard::started))
                        .route("/ready", web::get().to(metrics::ready))
                        .route("/metrics", web::get().to(metrics::metrics))
                        .route("/api/openapi.json", web::get().to(openapi::openapi))
                        .default_service(web::to(no_such_path)),
                )
        })
        .on_connect(peer::Peer::remember)
        .workers(WORKERS)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .client_request_timeout(Duration::from_secs(10))
        .disable_signals()
        .listen(listener)
        .map_err(failed)?
        .run();
        let handle = server.handle();
        let (end, ended) = oneshot::channel();
        // On a thread of its own: recovery keeps the one that starts the engine busy.
        std::thread::Builder::new()
            .name("quiver-http".to_owned())
            .spawn(move || {
                if let Err(error) = actix_rt::System::new().block_on(server) {
                    tracing::error!(%error, "the HTTP door failed");
                }
                // Nobody waits for the end of a door that is not closed.
                let _ = end.send(());
            })
            .map_err(Failure::with(IO))?;
        Ok(Self {
            address,
            gate,
            handle,
            ended,
        })
    }

    /// The engine is there: every request is answered from now on.
    pub fn admit(&self, state: HttpState) {
        // Set once: an engine starts once.
        let _ = self.gate.state.set(web::Data::new(state));
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests under way finish, and closes.
    pub async fn close(self) {
        self.handle.stop(true).await;
        // A panic of the server's thread has been reported by its message.
        let _ = self.ended.await;
    }
}

async fn no_such_path() -> HttpResponse {
    HttpResponse::NotFound()
        .json(serde_json::json!({ "error": "no such path; see /api/openapi.json" }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn ask(address: SocketAddr, path: &str, host: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    #[test]
    fn before_the_engine_is_there_only_liveness_is_answered() {
        let door = HttpDoor::open(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            vec!["quiver.example".to_owned()],
        )
        .unwrap();
        let address = door.address();
        for host in ["localhost", "quiver.example"] {
            assert_eq!(ask(address, "/live", host), (200, "live\n".to_owned()));
            for path in [
                "/ready",
                "/metrics",
                "/api/openapi.json",
                "/api/v1/status",
                "/no/such/path",
            ] {
                let (status, body) = ask(address, path, host);
                assert_eq!(status, 503, "{path}");
                assert!(body.contains("the engine is starting"), "{path}: {body}");
            }
        }
        assert_eq!(ask(address, "/live", "evil.example").0, 421);
        actix_rt::System::new().block_on(door.close());
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
