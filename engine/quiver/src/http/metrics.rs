//! `/live`, `/ready`, `/metrics`.

use std::fmt::Write;

use actix_web::{HttpResponse, web};
use quiver_archive::MaintenanceTotals;
use quiver_hot::Share;
use quiver_runtime::{Engine, Latency, ingest::SocketDrops};

use super::HttpState;
use crate::memory::resident_bytes;

/// The process answers.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("live\n")
}

/// Telemetry is accepted.
pub async fn ready(state: web::Data<HttpState>) -> HttpResponse {
    if state.engine.is_disk_low() {
        return HttpResponse::ServiceUnavailable()
            .content_type("text/plain")
            .body("the disk is nearly full; telemetry is refused until space is free\n");
    }
    HttpResponse::Ok()
        .content_type("text/plain")
        .body("ready\n")
}

/// The exposition text.
pub async fn metrics(state: web::Data<HttpState>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(exposition(&state))
}

/// Writes families in the OpenMetrics text format.
struct Exposition(String);

impl Exposition {
    // Writing to a String cannot fail.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# TYPE quiver_{name} {kind}\n# HELP quiver_{name} {help}"
        );
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        let _ = writeln!(self.0, "quiver_{name}_total {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.0, "quiver_{name} {value}");
    }

    fn maintenance(&mut self, totals: &MaintenanceTotals) {
        let MaintenanceTotals {
            merges,
            merged_files,
            merged_rows,
            merged_bytes,
            deleted_files,
            deleted_bytes,
            expired_files,
            expired_rows,
            failures,
        } = *totals;
        self.counter("archive_merges", "merges of small archived files", merges);
        self.counter(
            "archive_merged_files",
            "archived files that merges replaced",
            merged_files,
        );
        self.counter(
            "archive_merged_rows",
            "rows that merges wrote again",
            merged_rows,
        );
        self.counter(
            "archive_merged_bytes",
            "bytes that merges wrote",
            merged_bytes,
        );
        self.counter(
            "archive_deleted_files",
            "replaced archived files that were deleted",
            deleted_files,
        );
        self.counter(
            "archive_deleted_bytes",
            "bytes of replaced archived files that were deleted",
            deleted_bytes,
        );
        self.counter(
            "archive_expired_files",
            "archived files whose rows were older than they are kept",
            expired_files,
        );
        self.counter(
            "archive_expired_rows",
            "archived rows that were older than they are kept",
            expired_rows,
        );
        self.counter(
            "archive_maintenance_failures",
            "merges, removals and deletions that failed and are tried again",
            failures,
        );
    }

    fn latency(&mut self, name: &str, help: &str, latency: &Latency) {
        self.family(name, "summary", help);
        let histogram = latency.histogram();
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            let seconds = histogram.value_at_quantile(quantile) as f64 / 1e6;
            let _ = writeln!(self.0, "quiver_{name}{{quantile=\"{quantile}\"}} {seconds}");
        }
        let count = histogram.len();
        let sum = histogram.mean() * count as f64 / 1e6;
        let _ = writeln!(
            self.0,
            "quiver_{name}_count {count}\nquiver_{name}_sum {sum}"
        );
    }
}

fn exposition(state: &HttpState) -> String {
    let (engine, maintenance) = (&state.engine, state.maintenance.as_deref());
    let metrics = engine.metrics();
    let mut out = Exposition(String::with_capacity(8_192));
    out.gauge(
        "connections",
        "identified connections",
        metrics.connections.get(),
    );
    out.gauge(
        "devices_connected",
        "connections of devices",
        metrics.devices_connected.get(),
    );
    if let Some(datagrams) = state.socket_drops.and_then(SocketDrops::datagrams) {
        out.counter(
            "udp_dropped_datagrams",
            "packets dropped by the kernel because its receive buffer was full",
            datagrams,
        );
    }
    out.counter("handshakes", "handshakes begun", metrics.handshakes.get());
    out.counter(
        "connections_refused",
        "connections refused or failed",
        metrics.connections_refused.get(),
    );
    out.counter("ingest_batches", "batches accepted", metrics.batches.get());
    out.counter("ingest_rows", "rows accepted", metrics.rows.get());
    out.counter(
        "ingest_points",
        "field values accepted",
        metrics.points.get(),
    );
    out.counter(
        "ingest_received_bytes",
        "bytes of telemetry read",
        metrics.bytes_received.get(),
    );
    out.counter(
        "duplicate_batches",
        "batches that were there already",
        metrics.duplicate_batches.get(),
    );
    out.counter(
        "duplicate_rows",
        "rows of those",
        metrics.duplicate_rows.get(),
    );
    out.family("rejected_rows", "counter", "rows refused, by reason");
    for (code, rows) in metrics.rejected() {
        let _ = writeln!(
            out.0,
            "quiver_rejected_rows_total{{reason=\"{code}\"}} {rows}"
        );
    }
    out.counter(
        "device_mismatch_rows",
        "rows whose device value was not the sender",
        metrics.device_mismatch.get(),
    );
    out.counter(
        "truncated_timestamps",
        "timestamps that lost digits",
        metrics.truncated_timestamps.get(),
    );
    out.counter(
        "declared_lost",
        "gaps that senders declared lost",
        metrics.declared_lost.get(),
    );
    out.counter(
        "streams_closed",
        "telemetry streams closed by the engine",
        metrics.streams_closed.get(),
    );
    out.counter(
        "memory_waits",
        "times ingest waited for memory",
        metrics.memory_waits.get(),
    );
    out.counter(
        "queue_waits",
        "times ingest waited for the log's queue",
        metrics.queue_waits.get(),
    );
    out.latency(
        "ack_latency_seconds",
        "from a whole batch to its Ack",
        &metrics.ack_latency,
    );
    out.latency(
        "log_commit_seconds",
        "write and fdatasync of a group",
        &metrics.commit_latency,
    );
    out.counter("log_groups", "commit groups", metrics.commit_groups.get());
    out.counter(
        "log_bytes",
        "bytes of commit groups",
        metrics.log_bytes.get(),
    );
    out.counter(
        "log_failures",
        "commit groups that failed",
        metrics.commit_failures.get(),
    );
    out.counter(
        "derived_rows",
        "rows of nodes of the graph that entered the log",
        metrics.derived_rows.get(),
    );
    out.counter(
        "derived_again",
        "rows that nodes put out again after a start, and that were there already",
        metrics.derived_again.get(),
    );
    out.counter(
        "derived_refused",
        "rows of nodes that no stream could take",
        metrics.derived_refused.get(),
    );
    out.counter(
        "analysis_missed",
        "positions of the log that the graph has missed",
        metrics.analysis_missed.get(),
    );
    out.gauge(
        "log_size_bytes",
        "bytes of the log's segments",
        metrics.log_size.get(),
    );
    out.counter("flushes", "flushes committed", metrics.flushes.get());
    out.counter(
        "flush_failures",
        "flushes that failed and are tried again",
        metrics.flush_failures.get(),
    );
    out.counter(
        "checkpoints",
        "checkpoints written",
        metrics.checkpoints.get(),
    );
    out.counter(
        "checkpoint_failures",
        "checkpoints that failed",
        metrics.checkpoint_failures.get(),
    );
    if let Some(maintenance) = maintenance {
        out.maintenance(&maintenance.totals());
    }
    let damage = engine.control().damage.totals();
    out.gauge(
        "log_damaged_ranges",
        "damaged parts of the log with which something was lost",
        i64::try_from(damage.ranges).unwrap_or(i64::MAX),
    );
    out.gauge(
        "log_damaged_harmless_ranges",
        "damaged parts of the log that had been archived",
        i64::try_from(damage.harmless_ranges).unwrap_or(i64::MAX),
    );
    out.gauge(
        "log_damaged_batches",
        "batches known to be lost in damaged parts of the log",
        i64::try_from(damage.batches).unwrap_or(i64::MAX),
    );
    out.gauge(
        "disk_low",
        "1 while ingest is refused for lack of space",
        metrics.disk_low.get(),
    );
    let as_gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    out.gauge(
        "memory_cap_bytes",
        "memory that the process may take in all",
        i64::try_from(state.memory_cap).unwrap_or(i64::MAX),
    );
    out.gauge(
        "memory_used_bytes",
        "memory of queues and memtables",
        as_gauge(engine.budget().used(Share::Device)),
    );
    out.gauge(
        "memory_limit_bytes",
        "its limit",
        as_gauge(engine.budget().capacity(Share::Device)),
    );
    out.gauge(
        "receive_used_bytes",
        "memory of messages that are being received",
        as_gauge(engine.receive_budget().used()),
    );
    out.gauge(
        "receive_limit_bytes",
        "its limit",
        as_gauge(engine.receive_budget().capacity()),
    );
    out.gauge(
        "identities_enrolled",
        "identities in the registry, revoked ones included",
        as_gauge(engine.control().registry.len()),
    );
    out.gauge(
        "last_values_bytes",
        "memory of the last row of every device",
        as_gauge(engine.last_values().bytes()),
    );
    out.gauge(
        "committed_position",
        "last committed position",
        engine.progress().committed().get() as i64,
    );
    out.gauge(
        "applied_position",
        "position applied by every shard",
        engine.progress().applied_by_all().get() as i64,
    );
    streams(engine, &mut out);
    process(&mut out);
    out.0.push_str("# EOF\n");
    out.0
}

fn streams(engine: &Engine, out: &mut Exposition) {
    let tables = engine.tables().all();
    out.family("hot_rows", "gauge", "rows in memory, not archived");
    for table in &tables {
        let _ = writeln!(
            out.0,
            "quiver_hot_rows{{stream=\"{}\"}} {}",
            table.name(),
            table.stats().rows
        );
    }
    out.family("archived_rows", "gauge", "rows in the archive");
    for table in &tables {
        let rows = table.state().archived().rows();
        let _ = writeln!(
            out.0,
            "quiver_archived_rows{{stream=\"{}\"}} {rows}",
            table.name()
        );
    }
    out.family("archived_bytes", "gauge", "bytes of archived files");
    for table in &tables {
        let bytes = table.state().archived().bytes();
        let _ = writeln!(
            out.0,
            "quiver_archived_bytes{{stream=\"{}\"}} {bytes}",
            table.name()
        );
    }
}

/// Memory and processor time of the process, from `/proc`, as Prometheus names them.
fn process(out: &mut Exposition) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return;
    };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    // Fields 14 and 15 (ticks of 10 ms) of proc(5), counted from field 3.
    let seconds = (number(11) + number(12)) as f64 / 100.0;
    let _ = writeln!(
        out.0,
        "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total {seconds}"
    );
    let Some(resident) = resident_bytes() else {
        return;
    };
    let _ = writeln!(
        out.0,
        "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {resident}"
    );
}
