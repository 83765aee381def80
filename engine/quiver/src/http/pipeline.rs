//! The graph: figures of its nodes, rows as they come, and reading it again.

use std::sync::atomic::Ordering;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::{Stream, stream};
use quiver_model::StreamName;
use quiver_pipeline::{
    Graph,
    graph::{Origin, Port},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{HttpState, peer::Peer, sql::problem};
use crate::pipeline::{ApplyError, Watch, WatchError};

/// What the graph did so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// Positions of the log that it has not seen yet.
    pub lag: u64,
    /// Record time up to which it has seen everything, RFC 3339.
    pub seen: String,
    /// Positions that it has missed.
    pub missed: u64,
    /// Bytes of the log that are kept for it alone are at most those from this position on.
    pub kept: u64,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeStatus>,
    /// Rows that entered each stream since the start.
    pub streams: BTreeMap<String, u64>,
    /// For how long rows of streams are kept, in seconds; those of streams that are not here for ever.
    #[serde(default)]
    pub kept_for: BTreeMap<String, f64>,
}

/// What a node did so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its section in the configuration.
    pub kind: String,
    /// Rows that came in since the graph was applied.
    pub rows_in: u64,
    /// Rows that went out.
    pub rows_out: u64,
    /// Rows that were late.
    pub late: u64,
    /// Rows for which an expression had no value.
    pub errors: u64,
    /// Rows that its streams could not take, and that are lost, since the start.
    #[serde(default)]
    pub refused: u64,
    /// How far its rows are complete behind record time, in seconds; of windows.
    pub watermark_delay: Option<f64>,
    /// Bytes that it remembers; of windows.
    pub state_bytes: u64,
    /// Names the definition of what it remembers.
    pub generation: String,
    /// Names its whole definition.
    pub definition: String,
    /// Whether it remembers anything.
    pub has_state: bool,
}

/// `GET /api/v1/pipeline`.
pub async fn figures(state: web::Data<HttpState>) -> HttpResponse {
    let Some(pipeline) = &state.pipeline else {
        return problem(StatusCode::NOT_FOUND, &WatchError::NoGraph.to_string());
    };
    let graph = pipeline.graph();
    let (figures, streams) = pipeline.board().figures(&graph);
    let analyzer = state.engine.analyzer();
    let status = analyzer.map(|analyzer| analyzer.status());
    let status = status.unwrap_or_default();
    let refused = analyzer.map(|analyzer| analyzer.refused());
    let refused = refused.unwrap_or_default();
    let committed = state.engine.progress().committed().get();
    let nodes = graph.nodes.iter().enumerate().map(|(number, node)| {
        let figures = figures.get(number).copied().unwrap_or_default();
        let behind = |watermark: i64| {
            let micros = status.record_time.as_micros().saturating_sub(watermark);
            micros as f64 / 1e6
        };
        NodeStatus {
            name: node.name().to_owned(),
            kind: node.section().to_owned(),
            rows_in: figures.counters.rows_in,
            rows_out: figures.counters.rows_out,
            late: figures.counters.late,
            errors: figures.counters.errors,
            refused: streams_of(&graph, number)
                .filter_map(|stream| refused.get(&stream))
                .sum(),
            watermark_delay: figures.watermark.map(behind),
            state_bytes: figures.bytes as u64,
            generation: format!("{:016x}", node.generation()),
            definition: format!("{:016x}", node.definition()),
            has_state: node.has_state(),
        }
    });
    HttpResponse::Ok().json(PipelineStatus {
        lag: committed.saturating_sub(status.position.get()),
        seen: status.record_time.to_string(),
        missed: status.missed,
        kept: status.kept.get(),
        nodes: nodes.collect(),
        streams,
        kept_for: pipeline
            .retention()
            .spans()
            .iter()
            .map(|(stream, span)| (stream.to_string(), span.as_secs_f64()))
            .collect(),
    })
}

/// The streams that rows of a node are stored as: its own, or those of its ports that are kept.
fn streams_of(graph: &Graph, number: usize) -> impl Iterator<Item = StreamName> {
    let ports = graph.nodes.get(number).map_or(&[][..], |node| node.ports());
    let stream = move |port: &Port| {
        let origin = Origin::Node(number, *port);
        let name = graph.kept_as(origin).unwrap_or_else(|| graph.name(origin));
        StreamName::new(&name).ok()
    };
    ports.iter().filter_map(stream)
}

/// `POST /api/v1/pipeline`: the configuration is read again and applied.
pub async fn reload(state: web::Data<HttpState>) -> HttpResponse {
    let Some(pipeline) = &state.pipeline else {
        return problem(StatusCode::NOT_FOUND, &WatchError::NoGraph.to_string());
    };
    match pipeline.reload(&state.engine).await {
        Ok(applied) => HttpResponse::Ok().json(serde_json::json!({
            "from": applied.from.get(),
            "nodes": applied.nodes,
        })),
        Err(error @ ApplyError::Configuration(_)) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string())
        }
        Err(error @ ApplyError::Engine(_)) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
    }
}

/// What to tail.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailQuery {
    port: String,
}

/// `GET /api/v1/tail?port=NODE.PORT`: rows as they come, as JSON, one a line, until the client has
/// enough. Rows that a slow client misses are counted in lines `{"missed": n}`.
pub async fn tail(
    state: web::Data<HttpState>,
    http: HttpRequest,
    query: web::Query<TailQuery>,
) -> HttpResponse {
    let Some(pipeline) = &state.pipeline else {
        return problem(StatusCode::NOT_FOUND, &WatchError::NoGraph.to_string());
    };
    match pipeline.board().watch(&query.port) {
        Ok(watch) => HttpResponse::Ok()
            .content_type("application/x-ndjson")
            .streaming(lines(watch, Peer::of(&http))),
        Err(error @ WatchError::Full) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
        Err(error) => problem(StatusCode::NOT_FOUND, &error.to_string()),
    }
}

fn lines(watch: Watch, peer: Peer) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold((watch, peer), |(mut watch, peer)| async {
        let batch = tokio::select! {
            batch = watch.rows.recv() => batch?,
            () = peer.gone() => return None,
        };
        let mut text = as_lines(&batch);
        let missed = watch.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            text.extend(format!("{{\"missed\":{missed}}}\n").into_bytes());
        }
        Some((Ok(Bytes::from(text)), (watch, peer)))
    })
}

fn as_lines(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow_json::writer::LineDelimited>(Vec::new());
    if let Err(error) = writer.write(batch).and_then(|()| writer.finish()) {
        tracing::warn!(%error, "rows cannot be shown");
    }
    writer.into_inner()
}
