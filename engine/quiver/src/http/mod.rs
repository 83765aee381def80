//! The HTTP door (actix-web): liveness, metrics, SQL, administration.
//!
//! | path | method | token |
//! | --- | --- | --- |
//! | `/live`, `/ready`, `/metrics`, `/api/openapi.json` | GET | no |
//! | `/api/v1/sql` | POST | yes |
//! | `/api/v1/status`, `/api/v1/audit`, `/api/v1/devices`, `/api/v1/archive/files` | GET | yes |
//! | `/api/v1/devices`, `/api/v1/devices/revoke`, `/api/v1/archive/check`, `/api/v1/archive/compact` | POST | yes |
//!
//! Every request must name a known host (a page on the web cannot make a browser ask under a name
//! of its own), and what reads data or changes something needs a JSON content type (which a form
//! on such a page cannot send) and the token from the data directory.

mod admin;
mod guard;
mod metrics;
mod openapi;
mod sql;

pub use admin::Status;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, middleware::from_fn, web};
use quiver_archive::DeltaArchive;
use quiver_model::Timestamp;
use quiver_query::{QueryEngine, QueryLimits};
use quiver_runtime::Engine;

use crate::{
    exit::{Failure, UNAVAILABLE},
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
    /// What queries read.
    pub sources: Sources,
    /// Their limits.
    pub limits: QueryLimits,
    /// Queries as of now.
    pub queries: QueryEngine,
    /// Where they run.
    pub query_runtime: tokio::runtime::Handle,
    /// Who has it may ask.
    pub token: String,
    /// Names under which the server may be asked, beside loopback's.
    pub hosts: Vec<String>,
    /// When the engine started.
    pub started: Timestamp,
}

/// The open door.
pub struct HttpDoor {
    address: SocketAddr,
    handle: ServerHandle,
    task: tokio::task::JoinHandle<()>,
}

impl HttpDoor {
    /// Listens. Must be called on a thread that runs an actix system.
    pub fn open(address: SocketAddr, state: HttpState) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(
                UNAVAILABLE,
                format!("cannot listen on --http {address} (TCP): {error}"),
            )
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(state.clone()))
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
                .route("/ready", web::get().to(metrics::ready))
                .route("/metrics", web::get().to(metrics::metrics))
                .route("/api/openapi.json", web::get().to(openapi::openapi))
                .service(
                    web::scope("/api/v1")
                        .wrap(from_fn(guard::token_and_json))
                        .route("/sql", web::post().to(sql::sql))
                        .route("/status", web::get().to(admin::status))
                        .route("/audit", web::get().to(admin::audit))
                        .route("/devices", web::get().to(admin::devices))
                        .route("/devices", web::post().to(admin::enroll))
                        .route("/devices/revoke", web::post().to(admin::revoke))
                        .route("/archive/files", web::get().to(admin::archive_files))
                        .route("/archive/check", web::post().to(admin::archive_check))
                        .route("/archive/compact", web::post().to(admin::archive_compact)),
                )
                .default_service(web::to(|| async {
                    HttpResponse::NotFound()
                        .json(serde_json::json!({ "error": "no such path; see /api/openapi.json" }))
                }))
        })
        .workers(WORKERS)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .client_request_timeout(Duration::from_secs(10))
        .disable_signals()
        .listen(listener)
        .map_err(failed)?
        .run();
        let handle = server.handle();
        let task = actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the HTTP door failed");
            }
        });
        Ok(Self {
            address,
            handle,
            task,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests under way finish, and closes.
    pub async fn close(self) {
        self.handle.stop(true).await;
        // A panic of the server task has been reported by its message.
        let _ = self.task.await;
    }
}
