//! `POST /api/v1/sql`: `{"sql": "SELECT …", "format": "json", "timeout_ms": 10000}`, answered as a
//! stream.

use std::{
    fmt,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use quiver_query::{Format, QueryError, WriteError, encode};
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::{HttpState, peer::Peer};

/// The request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    sql: String,
    #[serde(default)]
    format: Option<String>,
    /// Time that the query may take; the server's own limit stays in force.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// A task that ends when nobody waits for it any more.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long an answer takes is measured, not decided on"
)]
/// Answers a query. An error that comes once rows have been sent breaks the connection off, so
/// that a cut result is not taken for a whole one. A query whose client is gone is ended.
pub async fn sql(
    state: web::Data<HttpState>,
    http: HttpRequest,
    request: web::Json<SqlRequest>,
) -> HttpResponse {
    let SqlRequest {
        sql,
        format,
        timeout_ms,
    } = request.into_inner();
    let format = match format.as_deref().unwrap_or("json").parse::<Format>() {
        Ok(format) => format,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if timeout_ms == Some(0) {
        let text = "timeout_ms is 0, in which no query can be answered; give it more, or leave it out for the server's limit";
        return problem(StatusCode::BAD_REQUEST, text);
    }
    let timeout = timeout_ms.map_or(Duration::MAX, Duration::from_millis);
    let queries = state.queries.clone();
    // Before it is handed over: another core may be done before this one goes on.
    let began = Instant::now();
    let mut query = AbortOnDrop(
        state
            .query_runtime
            .spawn(async move { queries.query_within(&sql, timeout).await }),
    );
    let peer = Peer::of(&http);
    let started = async {
        let result = match (&mut query.0).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => return Err(refusal(&error)),
            Err(error) => {
                let text = error.to_string();
                return Err(problem(StatusCode::INTERNAL_SERVER_ERROR, &text));
            }
        };
        let position = result.position();
        // What goes wrong before there is anything to send can still be said in full.
        let mut chunks = encode(result, format);
        match chunks.next().await {
            Some(Err(WriteError::Query(error))) => Err(refusal(&error)),
            first => Ok((position, stream::iter(first).chain(chunks))),
        }
    };
    let started = tokio::select! {
        started = started => started,
        () = peer.gone() => {
            tracing::debug!("a query was ended, because its client is gone");
            Err(problem(StatusCode::REQUEST_TIMEOUT, &Cut::ClientGone.to_string()))
        }
    };
    match started {
        Ok((position, chunks)) => HttpResponse::Ok()
            .content_type(format.media_type())
            .insert_header(("X-Quiver-Position", position.to_string()))
            .insert_header(("Server-Timing", timing(began.elapsed())))
            .streaming(while_there(chunks, peer)),
        Err(refusal) => refusal,
    }
}

/// Time from the query's text to its first rows, in milliseconds, as browsers' tools show it
/// (<https://www.w3.org/TR/server-timing/>). The rest is not known yet when headers are sent.
fn timing(took: Duration) -> String {
    format!(
        "first;desc=\"planned, first rows ready\";dur={:.3}",
        took.as_secs_f64() * 1e3
    )
}

/// Why an answer ends before the result does.
#[derive(Debug)]
enum Cut {
    ClientGone,
    Failed(WriteError),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientGone => f.write_str("the client is gone"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Cut {}

/// The chunks, as long as there is somebody to send them to. Drops them, which ends the query, once
/// there is nobody, also while the query produces none.
fn while_there(
    chunks: impl Stream<Item = Result<Bytes, WriteError>> + Unpin,
    peer: Peer,
) -> impl Stream<Item = Result<Bytes, Cut>> {
    stream::unfold(Some((chunks, peer)), |state| async {
        let (mut chunks, peer) = state?;
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk?.map_err(Cut::Failed),
            () = peer.gone() => Err(Cut::ClientGone),
        };
        match chunk {
            Ok(chunk) => Some((Ok(chunk), Some((chunks, peer)))),
            Err(cut) => {
                match &cut {
                    Cut::ClientGone => {
                        tracing::debug!("a query was ended, because its client is gone");
                    }
                    Cut::Failed(error) => {
                        tracing::warn!(%error, "a query failed while its result was being sent");
                    }
                }
                Some((Err(cut), None))
            }
        }
    })
}

fn refusal(error: &QueryError) -> HttpResponse {
    let status = match error {
        QueryError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        QueryError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        error if error.is_callers_mistake() => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = problem(status, &error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

/// An answer that says what is wrong.
pub(super) fn problem(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::build(status).json(serde_json::json!({ "error": text }))
}
