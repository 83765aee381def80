//! `POST /api/v1/sql`: `{"sql": "SELECT …", "format": "json"}`, answered as a stream.

use actix_web::{HttpResponse, http::StatusCode, web};
use futures::StreamExt;
use quiver_query::{Format, QueryError, encode};
use serde::Deserialize;

use super::HttpState;

/// The request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    sql: String,
    #[serde(default)]
    format: Option<String>,
}

/// Answers a query. An error that comes once rows have been sent breaks the connection off, so
/// that a cut result is not taken for a whole one.
pub async fn sql(state: web::Data<HttpState>, request: web::Json<SqlRequest>) -> HttpResponse {
    let SqlRequest { sql, format } = request.into_inner();
    let format = match format.as_deref().unwrap_or("json").parse::<Format>() {
        Ok(format) => format,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let queries = state.queries.clone();
    let query = state
        .query_runtime
        .spawn(async move { queries.query(&sql).await });
    let result = match query.await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => return problem(status(&error), &error.to_string()),
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    HttpResponse::Ok()
        .content_type(format.media_type())
        .insert_header(("X-Quiver-Position", result.position().to_string()))
        .streaming(encode(result, format).map(|chunk| {
            chunk.map_err(|error| {
                tracing::warn!(%error, "a query failed while its result was being sent");
                actix_web::error::ErrorInternalServerError(error.to_string())
            })
        }))
}

fn status(error: &QueryError) -> StatusCode {
    match error {
        QueryError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        QueryError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        error if error.is_callers_mistake() => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An answer that says what is wrong.
pub(super) fn problem(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::build(status).json(serde_json::json!({ "error": text }))
}
