//! The result as text.

use super::numbers::{bytes, grouped, millis};
use crate::result::{Benchmark, Run};

/// The runs of a benchmark as lines.
pub(crate) fn table(benchmark: &Benchmark) -> String {
    let mut lines = vec![format!("scenario      {}", benchmark.name)];
    if !benchmark.machine.optimised {
        lines.push("note          built without optimisations: these figures are of no use but to see that it works".to_owned());
    }
    if benchmark.machine.data_in_memory == Some(true) {
        lines.push("note          the server's data are in memory (tmpfs): durable means nothing here; use --work-dir on a disk".to_owned());
    }
    for (number, run) in benchmark.runs.iter().enumerate() {
        if benchmark.runs.len() > 1 {
            lines.push(format!("\nrun {}", number + 1));
        }
        lines.extend(of_run(run));
    }
    lines.join("\n")
}

fn of_run(run: &Run) -> Vec<String> {
    let latency = &run.latency;
    let counts = &run.counts;
    let mut lines = vec![
        format!(
            "offered       {:>14} rows/s over {:.1} s",
            grouped(run.offered_rows_per_second),
            run.seconds
        ),
        format!(
            "achieved      {:>14} rows/s   {} points/s, {} acknowledged/s",
            grouped(run.acked_rows_per_second),
            grouped(run.acked_points_per_second),
            grouped(run.acked_per_second)
        ),
        format!(
            "latency       p50 {}   p90 {}   p99 {}   p99.9 {}   max {}   (from due to acknowledged, {} values)",
            millis(latency.p50),
            millis(latency.p90),
            millis(latency.p99),
            millis(latency.p999),
            millis(latency.max),
            grouped(latency.count as f64)
        ),
        format!(
            "  of it       p50 {}   p99 {}   max {}   until QUIC took it (generator, window and flow control)",
            millis(run.lag.p50),
            millis(run.lag.p99),
            millis(run.lag.max)
        ),
        format!(
            "connect       p50 {}   p99 {}   max {}   ({} times)",
            millis(run.connect.p50),
            millis(run.connect.p99),
            millis(run.connect.max),
            grouped(run.connect.count as f64)
        ),
        format!(
            "server        {:.2} cores, {:.3} s a million points, at most {} of memory",
            run.server_cores,
            run.server_cpu_per_million,
            bytes(run.server_bytes_max)
        ),
        format!(
            "disk          commit p50 {:.2} ms, p99 {:.2} ms (write and fdatasync of a group, since the server's start)",
            run.server.commit_p50 * 1e3,
            run.server.commit_p99 * 1e3
        ),
        format!(
            "generator     {:.2} cores; {:.2} bytes a point on the wire before encryption",
            run.client_cores, run.bytes_per_point
        ),
        format!(
            "sent          {} batches, {} again, {} changes of address, {} connections",
            grouped(counts.sent as f64),
            grouped(counts.resent as f64),
            grouped(counts.rebinds as f64),
            grouped(counts.connects as f64)
        ),
    ];
    if counts.errors() + run.unsent > 0 {
        lines.push(format!(
            "errors        {} batches rejected, {} attempts to connect failed, {} connections lost, {} streams closed, {} not encoded, {} never sent{}",
            counts.rejected,
            counts.connect_failures,
            counts.disconnects,
            counts.streams_closed,
            counts.encode_failures,
            run.unsent,
            run.last_error.as_ref().map_or_else(String::new, |error| format!("; last: {error}"))
        ));
    }
    if let Some(proxy) = &run.proxy {
        lines.push(format!(
            "network       {} packets passed, {} lost on purpose, {} lost to full queues, {} client addresses",
            grouped(proxy.passed as f64),
            grouped(proxy.lost as f64),
            grouped(proxy.overflowed as f64),
            proxy.clients
        ));
    }
    lines.push(audit_line(run));
    lines
}

fn audit_line(run: &Run) -> String {
    let audit = &run.audit;
    if let Some(why) = &audit.not_made {
        return format!("audit         NOT MADE: {why}");
    }
    let mut line = format!(
        "audit         {} rows acknowledged = {} stored + {} in rejects",
        grouped(audit.acked_rows as f64),
        grouped(audit.stored_rows as f64),
        grouped(audit.rejects_rows as f64)
    );
    if audit.expected_quarantined > 0 {
        line.push_str(&format!(
            " ({} expected there)",
            grouped(audit.expected_quarantined as f64)
        ));
    }
    if audit.unsettled_rows > 0 {
        line.push_str(&format!(
            "; {} sent and never acknowledged",
            grouped(audit.unsettled_rows as f64)
        ));
    }
    if audit.holds() {
        line.push_str(": holds");
        return line;
    }
    line.push_str(&format!(
        ": DOES NOT HOLD for {} devices",
        audit.faulty_devices
    ));
    if audit.server_audit == Some(false) {
        line.push_str(", nor does the server's own audit");
    }
    for fault in &audit.faults {
        line.push_str(&format!("\n              {fault}"));
    }
    line
}
