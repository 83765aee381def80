//! The result as one page of HTML: figures, plots and the scenario, with nothing loaded from
//! anywhere else, in the light or dark scheme of whoever reads it.

use std::fmt::Write;

use super::{
    numbers::{bytes, grouped, millis, si},
    svg::{Line, Plot, Scale, escaped},
};
use crate::result::{Benchmark, Run, Sample};

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fff;--fg:#1c1f23;--dim:#68707a;--rule:#d9dde2;--grid:#e8ebee;--shade:#f1f3f5;--bad:#b42318;--good:#18794e;
--c0:#1f6feb;--c1:#d9480f;--c2:#2b8a3e;--c3:#8e44ad;--c4:#868e96}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e3e6e9;--dim:#98a1ab;--rule:#343a40;--grid:#272c31;--shade:#1d2125;--bad:#ff8a7a;--good:#6fd19c;
--c0:#6ea8fe;--c1:#ff9a5c;--c2:#69db7c;--c3:#d0a2f0;--c4:#adb5bd}}
body{background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid var(--rule);padding-bottom:.2rem}
p.dim,figcaption,td.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}tr+tr td{border-top:1px solid var(--grid)}
.wide{overflow-x:auto}
.bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.6rem;margin:1rem 0}
.tiles div{border:1px solid var(--rule);border-radius:.4rem;padding:.5rem .8rem}.tiles b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}
.tiles span{color:var(--dim);font-size:.85rem}
figure{margin:1.2rem 0}svg{width:100%;height:auto;display:block}
svg text{fill:var(--dim);font:11px system-ui,sans-serif}.grid{stroke:var(--grid);stroke-width:1}.shade{fill:var(--shade)}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.legend{margin:.2rem 0 0 4rem;font-size:.85rem}.legend span{margin-right:1.2rem}.legend span::before{content:'';display:inline-block;width:1.1em;height:.2em;vertical-align:middle;margin-right:.4em;background:currentColor}
.line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}.line.c4{stroke:var(--c4)}
.legend .c0{color:var(--c0)}.legend .c1{color:var(--c1)}.legend .c2{color:var(--c2)}.legend .c3{color:var(--c3)}.legend .c4{color:var(--c4)}
";

/// Samples shorter than this are not drawn.
const WHOLE_SECONDS: f64 = 0.3;
/// Bytes in a mebibyte, the unit of the memory plot.
const MIB: f64 = 1_048_576.0;

/// The page.
pub(crate) fn page(benchmark: &Benchmark) -> String {
    let mut out = String::with_capacity(64 * 1_024);
    let name = escaped(&benchmark.name);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>quiver bench: {name}</title><style>{STYLE}</style></head><body>\
         <h1>{name}</h1><p class=\"dim\">{}</p>",
        escaped(&benchmark.purpose)
    );
    notes(&mut out, benchmark);
    if benchmark.runs.len() > 1 {
        runs_table(&mut out, &benchmark.runs);
    }
    for (number, run) in benchmark.runs.iter().enumerate() {
        if benchmark.runs.len() > 1 {
            let _ = write!(out, "<h2>Run {}</h2>", number + 1);
        }
        of_run(&mut out, run);
    }
    scenario(&mut out, benchmark);
    out.push_str("</body></html>\n");
    out
}

fn notes(out: &mut String, benchmark: &Benchmark) {
    if !benchmark.machine.optimised {
        out.push_str(
            "<p class=\"bad\">Built without optimisations: these figures are of no use but to see that it works.</p>",
        );
    }
    if benchmark.machine.data_in_memory == Some(true) {
        out.push_str("<p class=\"bad\">The server's data are in memory (tmpfs): durable means nothing here.</p>");
    }
}

fn runs_table(out: &mut String, runs: &[Run]) {
    out.push_str("<h2>Runs</h2><div class=\"wide\"><table><tr><th>run</th><th class=\"n\">rows/s</th><th class=\"n\">points/s</th><th class=\"n\">p50</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">server CPU s/M points</th><th>audit</th></tr>");
    for (number, run) in runs.iter().enumerate() {
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td><td>{}</td></tr>",
            number + 1,
            grouped(run.acked_rows_per_second),
            grouped(run.acked_points_per_second),
            millis(run.latency.p50),
            millis(run.latency.p99),
            millis(run.latency.p999),
            run.server_cpu_per_million,
            verdict(run)
        );
    }
    out.push_str("</table></div>");
}

fn verdict(run: &Run) -> &'static str {
    if run.audit.holds() {
        "<span class=\"good\">holds</span>"
    } else {
        "<span class=\"bad\">does not hold</span>"
    }
}

fn of_run(out: &mut String, run: &Run) {
    let tiles = [
        (grouped(run.acked_rows_per_second), "rows/s achieved"),
        (grouped(run.offered_rows_per_second), "rows/s offered"),
        (grouped(run.acked_points_per_second), "points/s"),
        (millis(run.latency.p50), "median latency"),
        (millis(run.latency.p99), "99th percentile"),
        (millis(run.latency.p999), "99.9th percentile"),
        (format!("{:.2}", run.server_cores), "server cores"),
        (bytes(run.server_bytes_max), "server memory, at most"),
    ];
    out.push_str("<div class=\"tiles\">");
    for (value, label) in tiles {
        let _ = write!(out, "<div><b>{value}</b><span>{label}</span></div>");
    }
    out.push_str("</div>");
    let _ = write!(
        out,
        "<p>Loss audit: {} rows acknowledged, {} stored, {} in rejects ({} expected there), {} sent and never acknowledged: {}.</p>",
        grouped(run.audit.acked_rows as f64),
        grouped(run.audit.stored_rows as f64),
        grouped(run.audit.rejects_rows as f64),
        grouped(run.audit.expected_quarantined as f64),
        grouped(run.audit.unsettled_rows as f64),
        verdict(run)
    );
    for fault in run.audit.faults.iter().chain(&run.audit.not_made) {
        let _ = write!(out, "<p class=\"bad\">{}</p>", escaped(fault));
    }
    for plot in plots(run) {
        out.push_str(&plot.figure());
    }
    details(out, run);
}

fn over_time(run: &Run, label: &str, of: impl Fn(&Sample) -> f64) -> Line {
    // The rest of a second at the end of a run says little, and looks like a fall.
    let whole = |sample: &&Sample| sample.seconds >= WHOLE_SECONDS;
    Line {
        label: label.to_owned(),
        points: run
            .samples
            .iter()
            .filter(whole)
            .map(|sample| (sample.at, of(sample)))
            .collect(),
    }
}

fn shaded(run: &Run) -> Vec<(f64, f64)> {
    let not_measured = run.samples.iter().filter(|sample| !sample.measured);
    not_measured
        .map(|sample| (sample.at - sample.seconds, sample.at))
        .collect()
}

fn plots(run: &Run) -> Vec<Plot> {
    let plot = |title: &str, y_scale, y_text, lines| Plot {
        title: title.to_owned(),
        x_label: "seconds (shaded: not measured)".to_owned(),
        y_scale,
        y_text,
        x_marks: Vec::new(),
        shaded: shaded(run),
        lines,
    };
    // Where nothing was acknowledged there is no latency, and the line has a gap.
    let latency = |label: &str, of: fn(&Sample) -> u64| {
        over_time(run, label, move |sample| match of(sample) {
            0 => f64::NAN,
            micros => micros as f64 / 1_000.0,
        })
    };
    let in_millis: fn(f64) -> String = |value| match value {
        seconds if seconds >= 1_000.0 => format!("{} s", seconds / 1_000.0),
        millis if millis >= 1.0 => format!("{millis} ms"),
        micros => format!("{:.0} µs", micros * 1_000.0),
    };
    let mut plots = vec![
        plot(
            "Offered and achieved, rows a second",
            Scale::Linear,
            si,
            vec![
                over_time(run, "achieved", |sample| sample.acked_rows),
                over_time(run, "offered", |sample| sample.offered_rows),
            ],
        ),
        plot(
            "Latency over time, from due to acknowledged",
            Scale::Log,
            in_millis,
            vec![
                latency("p50", |sample| sample.latency.p50),
                latency("p90", |sample| sample.latency.p90),
                latency("p99", |sample| sample.latency.p99),
                latency("p99.9", |sample| sample.latency.p999),
                latency("max", |sample| sample.latency.max),
            ],
        ),
        by_percentile(run, in_millis),
        plot(
            "Processor, cores",
            Scale::Linear,
            si,
            vec![
                over_time(run, "server", |sample| sample.server_cores),
                over_time(run, "generator", |sample| sample.client_cores),
            ],
        ),
        plot(
            "Resident memory of the server",
            Scale::Linear,
            |value| format!("{value:.0} MiB"),
            vec![over_time(run, "server", |sample| {
                sample.server_bytes as f64 / MIB
            })],
        ),
        plot(
            "Rows due and not acknowledged",
            Scale::Linear,
            si,
            vec![over_time(run, "outstanding", |sample| {
                sample.outstanding_rows as f64
            })],
        ),
    ];
    plots.retain(|plot| plot.lines.iter().any(|line| !line.points.is_empty()));
    plots
}

/// As HdrHistogram's plotter draws it: each nine as wide as the one before.
fn by_percentile(run: &Run, y_text: fn(f64) -> String) -> Plot {
    let place = |quantile: f64| (1.0 / (1.0 - quantile)).log10();
    let points = run
        .distribution
        .iter()
        .filter(|(quantile, _)| *quantile < 1.0)
        .map(|(quantile, micros)| (place(*quantile), *micros as f64 / 1_000.0))
        .collect();
    let most = run.latency.count.max(1) as f64;
    let marks = [0.0, 0.9, 0.99, 0.999, 0.999_9, 0.999_99, 0.999_999];
    Plot {
        title: "Latency by percentile".to_owned(),
        x_label: "percentile".to_owned(),
        y_scale: Scale::Log,
        y_text,
        x_marks: marks
            .into_iter()
            .filter(|mark| place(*mark) <= most.log10().max(1.0))
            .map(|mark| (place(mark), format!("{} %", (mark * 1e6_f64).round() / 1e4)))
            .collect(),
        shaded: Vec::new(),
        lines: vec![Line {
            label: "all measured".to_owned(),
            points,
        }],
    }
}

fn details(out: &mut String, run: &Run) {
    let counts = &run.counts;
    let rows = [
        (
            "measured",
            format!("{:.1} s from {}", run.seconds, run.began),
        ),
        (
            "latency",
            format!(
                "mean {}, max {}, {} values",
                millis(run.latency.mean as u64),
                millis(run.latency.max),
                grouped(run.latency.count as f64)
            ),
        ),
        (
            "of it until QUIC took it",
            format!(
                "p50 {}, p99 {}, max {}",
                millis(run.lag.p50),
                millis(run.lag.p99),
                millis(run.lag.max)
            ),
        ),
        (
            "connecting",
            format!(
                "p50 {}, p99 {}, max {}, {} times",
                millis(run.connect.p50),
                millis(run.connect.p99),
                millis(run.connect.max),
                grouped(run.connect.count as f64)
            ),
        ),
        (
            "server",
            format!(
                "{:.3} CPU seconds a million points; commit p50 {:.2} ms, p99 {:.2} ms",
                run.server_cpu_per_million,
                run.server.commit_p50 * 1e3,
                run.server.commit_p99 * 1e3
            ),
        ),
        (
            "archive",
            format!(
                "{} in {} rows",
                bytes(run.server.archived_bytes),
                grouped(run.server.archived_rows as f64)
            ),
        ),
        (
            "generator",
            format!(
                "{:.2} cores; {:.2} bytes a point on the wire before encryption",
                run.client_cores, run.bytes_per_point
            ),
        ),
        (
            "batches",
            format!(
                "{} sent, {} sent again, {} duplicates seen by the server since its start",
                grouped(counts.sent as f64),
                grouped(counts.resent as f64),
                grouped(run.server.duplicate_batches as f64)
            ),
        ),
        (
            "errors",
            format!(
                "{} rejected, {} attempts to connect failed, {} connections lost, {} streams closed, {} not encoded, {} never sent",
                counts.rejected,
                counts.connect_failures,
                counts.disconnects,
                counts.streams_closed,
                counts.encode_failures,
                run.unsent
            ),
        ),
        (
            "last error",
            run.last_error.clone().unwrap_or_else(|| "none".to_owned()),
        ),
    ];
    out.push_str("<div class=\"wide\"><table>");
    for (label, text) in rows {
        let _ = write!(
            out,
            "<tr><td class=\"dim\">{label}</td><td>{}</td></tr>",
            escaped(&text)
        );
    }
    out.push_str("</table></div>");
}

fn scenario(out: &mut String, benchmark: &Benchmark) {
    let machine = &benchmark.machine;
    let _ = write!(
        out,
        "<h2>Where</h2><p>{}, {} cores, {} of memory, {}; harness {}, server {}.</p>\
         <h2>Scenario</h2><div class=\"wide\"><table>",
        escaped(&machine.processor),
        machine.cores,
        bytes(machine.memory_bytes),
        escaped(&machine.system),
        escaped(&benchmark.harness),
        escaped(&benchmark.server)
    );
    for (key, value) in benchmark.scenario.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(
            out,
            "<tr><td class=\"dim\">{}</td><td>{}</td></tr>",
            escaped(key),
            escaped(&text)
        );
    }
    out.push_str("</table></div>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_has_every_plot() {
        let sample = |at: f64| Sample {
            at,
            seconds: 1.0,
            measured: at > 1.0,
            offered_rows: 1_000.0,
            acked_rows: 990.0,
            latency: crate::result::Latency {
                p50: 500,
                p99: 3_000,
                max: 9_000,
                ..Default::default()
            },
            ..Sample::default()
        };
        let run = Run {
            samples: vec![sample(1.0), sample(2.0), sample(3.0)],
            distribution: vec![(0.0, 300), (0.5, 500), (0.99, 3_000), (1.0, 9_000)],
            last_error: Some("<script>".to_owned()),
            ..Run::default()
        };
        let benchmark = Benchmark {
            name: "x".to_owned(),
            runs: vec![run],
            ..Benchmark::default()
        };
        let page = page(&benchmark);
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(page.contains("prefers-color-scheme:dark"));
        for outside in ["http:", "https:", "src=", "@import", "url(", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
