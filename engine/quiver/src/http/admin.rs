//! Administration: status, audit, streams, archive.

use actix_web::{HttpResponse, http::StatusCode, web};
use quiver_archive::{CompactOptions, VacuumOptions};
use quiver_model::{FieldName, StreamField, StreamName};
use quiver_runtime::control::EnsureError;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{HttpState, sql::problem};
use crate::{
    exit::{DATA, Failure},
    verbs::archive,
};

/// What `demo` and people look at.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Identified connections.
    pub connections: i64,
    /// Rows accepted since the start.
    pub rows: u64,
    /// Points accepted since the start.
    pub points: u64,
    /// Server-side acknowledgement latency, median, in microseconds.
    pub ack_p50_us: u64,
    /// 99th percentile, in microseconds.
    pub ack_p99_us: u64,
    /// Rows in memory, not archived.
    pub hot_rows: u64,
    /// Archived files.
    pub archived_files: u64,
    /// Archived rows.
    pub archived_rows: u64,
    /// Bytes of archived files.
    pub archived_bytes: u64,
    /// Last committed position.
    pub committed: u64,
    /// When the engine started, RFC 3339.
    pub started: String,
    /// Version of the program.
    pub version: String,
}

impl Status {
    /// The status of an engine now.
    pub fn of(engine: &quiver_runtime::Engine, started: &str) -> Self {
        let metrics = engine.metrics();
        let ack = metrics.ack_latency.histogram();
        let mut status = Self {
            connections: metrics.connections.get(),
            rows: metrics.rows.get(),
            points: metrics.points.get(),
            ack_p50_us: ack.value_at_quantile(0.5),
            ack_p99_us: ack.value_at_quantile(0.99),
            committed: engine.progress().committed().get(),
            started: started.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Self::default()
        };
        for table in engine.tables().all() {
            status.hot_rows += table.stats().rows;
            let archived = table.state().archived().clone();
            status.archived_files += archived.files.len() as u64;
            status.archived_rows += archived.rows();
            status.archived_bytes += archived.bytes();
        }
        status
    }
}

/// `GET /api/v1/status`.
pub async fn status(state: web::Data<HttpState>) -> HttpResponse {
    HttpResponse::Ok().json(Status::of(&state.engine, &state.started.to_string()))
}

/// `GET /api/v1/audit`: ledgers and queries as of the same position.
pub async fn audit(state: web::Data<HttpState>) -> HttpResponse {
    let failed = |text: String| problem(StatusCode::INTERNAL_SERVER_ERROR, &text);
    let _one_at_a_time = state.turns.audit.lock().await;
    // What leaves the archive is written down before it leaves.
    let _nothing_leaves = state.archive.still().await;
    let (position, ledgers) = match state.engine.ledgers_at_barrier().await {
        Ok(found) => found,
        Err(error) => return failed(error.to_string()),
    };
    let queries = match state
        .sources
        .query_engine(state.limits.clone(), Some(position))
    {
        Ok(queries) => queries,
        Err(error) => return failed(error.to_string()),
    };
    let streams: Vec<String> = state
        .engine
        .tables()
        .all()
        .iter()
        .map(|table| table.name().to_string())
        .collect();
    let (engine, archive) = (state.engine.clone(), state.archive.clone());
    let task = state.query_runtime.spawn(async move {
        let damage = &engine.control().damage;
        crate::audit::audit(
            position.get(),
            &ledgers,
            &streams,
            &queries,
            &archive,
            damage,
        )
        .await
    });
    match task.await {
        Ok(Ok(mut audit)) => {
            audit.duplicate_batches_since_start = state.engine.metrics().duplicate_batches.get();
            HttpResponse::Ok().json(audit)
        }
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

/// Body of `POST /api/v1/streams`, and its answer with all fields that the stream has then.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclareRequest {
    /// The stream.
    pub stream: String,
    /// (name, type) of each field: int64, float64, utf8, bool, timestamp, or decimal(2) for a
    /// float64 field with two digits after the point.
    pub fields: Vec<(String, String)>,
}

impl DeclareRequest {
    fn parse(&self) -> Result<(StreamName, Vec<StreamField>), String> {
        let stream = StreamName::for_sender(&self.stream).map_err(|error| error.to_string())?;
        let field = |(name, word): &(String, String)| {
            let field = FieldName::new(name).map_err(|error| error.to_string())?;
            StreamField::from_type_word(field, word).ok_or_else(|| {
                format!("type {word:?} of field {name} is not one of int64, float64, utf8, bool, timestamp, decimal(0) to decimal(9)")
            })
        };
        let fields = self.fields.iter().map(field).collect::<Result<_, _>>()?;
        Ok((stream, fields))
    }
}

/// `POST /api/v1/streams`.
pub async fn declare(
    state: web::Data<HttpState>,
    request: web::Json<DeclareRequest>,
) -> HttpResponse {
    let (stream, fields) = match request.parse() {
        Ok(parsed) => parsed,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    if fields.is_empty() {
        return problem(StatusCode::BAD_REQUEST, "name at least one field");
    }
    let operator = match crate::access::local_operator() {
        Ok(operator) => operator,
        Err(failure) => return problem(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
    };
    let declared = state
        .engine
        .declare_fields(&operator, &stream, &fields)
        .await;
    match declared {
        Ok(schema) => HttpResponse::Ok().json(DeclareRequest {
            stream: stream.to_string(),
            fields: schema
                .fields()
                .iter()
                .map(|field| (field.name.to_string(), field.type_word()))
                .collect(),
        }),
        Err(error @ EnsureError::Append(_)) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
        Err(error) => problem(StatusCode::CONFLICT, &error.to_string()),
    }
}

/// Which stream; all if none is named.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StreamChoice {
    /// Its name.
    #[serde(default)]
    pub stream: Option<String>,
}

/// `GET /api/v1/archive/files`.
pub async fn archive_files(
    state: web::Data<HttpState>,
    choice: web::Query<StreamChoice>,
) -> HttpResponse {
    answer(archive::files(
        state.engine.tables(),
        choice.stream.as_deref(),
    ))
}

/// Works on the archive, away from the threads that answer requests.
async fn maintain<T: Serialize + Send + 'static>(
    state: &HttpState,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> HttpResponse {
    match state.query_runtime.spawn(work).await {
        Ok(done) => answer(done),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn answer<T: Serialize>(done: Result<T, Failure>) -> HttpResponse {
    match done {
        Ok(done) => HttpResponse::Ok().json(done),
        // There is no such stream.
        Err(failure) if failure.code() == DATA => {
            problem(StatusCode::NOT_FOUND, &failure.to_string())
        }
        Err(failure) => problem(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
    }
}

/// `POST /api/v1/archive/check`.
pub async fn archive_check(
    state: web::Data<HttpState>,
    choice: web::Json<StreamChoice>,
) -> HttpResponse {
    let archive = state.archive.clone();
    let work = async move { archive::check(&archive, choice.stream.as_deref()).await };
    maintain(&state, work).await
}

/// `POST /api/v1/archive/suggest`.
pub async fn archive_suggest(
    state: web::Data<HttpState>,
    choice: web::Json<StreamChoice>,
) -> HttpResponse {
    let archive = state.archive.clone();
    let work = async move { archive::suggest(&archive, choice.stream.as_deref()).await };
    maintain(&state, work).await
}

/// `POST /api/v1/archive/compact`.
pub async fn archive_compact(
    state: web::Data<HttpState>,
    choice: web::Json<StreamChoice>,
) -> HttpResponse {
    let (archive, tables) = (state.archive.clone(), state.engine.tables().clone());
    // As much as merges in the background, which do not run meanwhile.
    let memory_bytes = state.maintenance.as_ref().map_or_else(
        || CompactOptions::default().memory_bytes,
        |maintenance| maintenance.memory_bytes(),
    );
    let work = async move {
        archive::compact(&archive, &tables, choice.stream.as_deref(), memory_bytes).await
    };
    maintain(&state, work).await
}

/// Body of `POST /api/v1/archive/vacuum`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VacuumRequest {
    /// The stream; all if none is named.
    #[serde(default)]
    pub stream: Option<String>,
    /// Files replaced or left more recently are kept; 7 days if nothing is said.
    #[serde(default)]
    pub older_than_seconds: Option<f64>,
    /// Only list what would be deleted.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/archive/vacuum`.
pub async fn archive_vacuum(
    state: web::Data<HttpState>,
    request: web::Json<VacuumRequest>,
) -> HttpResponse {
    let mut options = VacuumOptions {
        is_dry_run: request.dry_run,
        ..VacuumOptions::default()
    };
    if let Some(seconds) = request.older_than_seconds {
        match Duration::try_from_secs_f64(seconds) {
            Ok(older_than) => options.older_than = older_than,
            Err(error) => {
                let text = format!("older_than_seconds {seconds}: {error}; give a number from 0");
                return problem(StatusCode::BAD_REQUEST, &text);
            }
        }
    }
    let archive = state.archive.clone();
    let work = async move { archive::vacuum(&archive, request.stream.as_deref(), &options).await };
    maintain(&state, work).await
}
