//! `quiver demo`: engine, fleet, and a live view of what happens.

use std::{
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use hdrhistogram::Histogram;
use quiver_model::{Clock, SystemClock};

use super::{
    fleet::{Fleet, FleetCounts},
    serve::{Signals, Told},
};
use crate::{
    cli::DemoArgs,
    exit::{Failure, IO, UNAVAILABLE},
    http::Status,
    node::Node,
    numbers::{bytes, grouped, milliseconds},
    say::say,
    settings::Doors,
};

/// How often the view is drawn on a terminal, and a line is written elsewhere.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Where it listens unless said otherwise; [`crate::cli::NodeArgs`] says so in its help.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runs the demonstration.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let doors = Doors {
        quic: args.node.quic.unwrap_or(ANY_PORT),
        http: args.node.http.unwrap_or(ANY_PORT),
        http_hosts: Vec::new(),
        certificates: None,
        tokens: false,
        enroll_unknown: true,
        config: args.config,
    };
    let mut signals = Signals::new()?;
    let data_dir = &args.node.data_dir;
    let mut engine_args = args.node.engine.clone();
    // A demonstration shows the archive too: it is flushed often.
    engine_args.flush_age = engine_args.flush_age.min(Duration::from_secs(5));
    let node = Node::start(data_dir, &engine_args, doors).await?;
    say!(
        "engine   quic {}   http http://{}   data {}",
        node.addresses.quic,
        node.addresses.http,
        data_dir.display()
    );
    say!(
        "fleet    {} trucks, {}",
        args.devices,
        if args.rate == 0 {
            "as fast as it goes".to_owned()
        } else {
            format!("{} rows/s", grouped(args.rate))
        }
    );
    let fleet = Fleet::start(args.devices, args.rate, node.addresses.quic, data_dir)?;
    let mut view = View::new(data_dir);
    let began = view.clock.monotonic();
    let end = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut tick = tokio::time::interval(view.interval());
    tick.tick().await;
    let failed = loop {
        tokio::select! {
            _ = tick.tick() => {
                view.draw(&Status::of(&node.engine, ""), &fleet.counts);
                // Without this it would show nothing happening until somebody ends it.
                if fleet.counts.never_stored_reason().is_some() { break None }
            }
            () = &mut end => break None,
            told = signals.next() => if matches!(told, Told::Stop) { break None },
            fatal = node.failed() => break Some(fatal),
        }
    };
    if let Some(fatal) = failed {
        return Err(Failure::new(IO, fatal.to_string()));
    }
    view.clear();
    let elapsed = view.clock.monotonic().saturating_sub(began);
    say!("\nstopping: the fleet settles what it sent, the engine flushes everything");
    let counts = fleet.counts.clone();
    let settled = fleet.stop().await;
    node.engine.flush_all().await.map_err(Failure::with(IO))?;
    let status = Status::of(&node.engine, "");
    let disk_low = node.engine.is_disk_low();
    node.stop().await?;
    if status.rows > 0 {
        summary(&status, &counts, elapsed, data_dir);
    }
    settled.map_err(|reason| not_settled(&counts, &reason, disk_low, data_dir))?;
    let lost = counts
        .failed_batches
        .load(std::sync::atomic::Ordering::Relaxed);
    if lost > 0 {
        return Err(Failure::new(
            IO,
            format!("{lost} batches were not stored; see the diagnostics above"),
        ));
    }
    Ok(())
}

/// The failure of a fleet whose rows the engine does not take.
fn not_settled(counts: &FleetCounts, reason: &str, disk_low: bool, data_dir: &Path) -> Failure {
    use std::sync::atomic::Ordering::Relaxed;
    let sent = counts.sent_rows.load(Relaxed);
    let settled = counts.settled_rows.load(Relaxed);
    let mut text = format!(
        "the engine does not take what the fleet sends: {reason} ({} rows are not stored)",
        grouped(sent.saturating_sub(settled))
    );
    if disk_low {
        text.push_str(&format!(
            "; free space on the disk of {}, or lower --disk-reserve",
            data_dir.display()
        ));
    }
    Failure::new(UNAVAILABLE, text)
}

struct View {
    clock: SystemClock,
    is_terminal: bool,
    drawn: bool,
    last: (Duration, u64, u64),
    last_latency: Option<Histogram<u64>>,
    data_dir: PathBuf,
}

impl View {
    fn new(data_dir: &Path) -> Self {
        let clock = SystemClock::new();
        let is_terminal = std::io::stdout().is_terminal();
        let last = (clock.monotonic(), 0, 0);
        Self {
            clock,
            is_terminal,
            drawn: false,
            last,
            last_latency: None,
            data_dir: data_dir.to_owned(),
        }
    }

    fn interval(&self) -> Duration {
        if self.is_terminal {
            TERMINAL_INTERVAL
        } else {
            PLAIN_INTERVAL
        }
    }

    fn draw(&mut self, status: &Status, counts: &FleetCounts) {
        let now = self.clock.monotonic();
        let seconds = now.saturating_sub(self.last.0).as_secs_f64().max(1e-3);
        let rows = (status.rows.saturating_sub(self.last.1)) as f64 / seconds;
        let points = (status.points.saturating_sub(self.last.2)) as f64 / seconds;
        self.last = (now, status.rows, status.points);
        let latency = counts.latency();
        let mut recent = latency.clone();
        if let Some(before) = &self.last_latency {
            // The same bounds on both sides: it cannot fail.
            let _ = recent.subtract(before);
        }
        self.last_latency = Some(latency);
        let connected = counts.connected.load(std::sync::atomic::Ordering::Relaxed);
        let (p50, p99) = (
            recent.value_at_quantile(0.5),
            recent.value_at_quantile(0.99),
        );
        if !self.is_terminal {
            say!(
                "devices {connected}  rows/s {}  points/s {}  ack p50 {} p99 {}  hot rows {}  archived files {} ({})",
                grouped(rows as u64),
                grouped(points as u64),
                milliseconds(p50),
                milliseconds(p99),
                grouped(status.hot_rows),
                status.archived_files,
                bytes(status.archived_bytes)
            );
            return;
        }
        self.clear();
        self.drawn = true;
        say!("devices connected  {:>14}", grouped(connected));
        say!(
            "rows/s             {:>14}      total {}",
            grouped(rows as u64),
            grouped(status.rows)
        );
        say!(
            "points/s           {:>14}      total {}",
            grouped(points as u64),
            grouped(status.points)
        );
        say!(
            "acknowledged       {:>14}      p99 {}",
            milliseconds(p50),
            milliseconds(p99)
        );
        say!("hot rows           {:>14}", grouped(status.hot_rows));
        say!(
            "archived           {:>14}      {} files, {}",
            grouped(status.archived_rows),
            status.archived_files,
            bytes(status.archived_bytes)
        );
        say!(
            "Ctrl-C ends; meanwhile: quiver sql --data-dir {} \"SELECT count(*) FROM readings\"",
            self.data_dir.display()
        );
        // A closed terminal shows nothing, and harms nothing.
        let _ = std::io::stdout().flush();
    }

    /// Goes back to where the view began.
    fn clear(&mut self) {
        if self.drawn {
            crate::say::part("\x1b[7A\x1b[J");
            self.drawn = false;
        }
    }
}

fn summary(status: &Status, counts: &FleetCounts, elapsed: Duration, data_dir: &Path) {
    let latency = counts.latency();
    let seconds = elapsed.as_secs_f64().max(1e-3);
    say!(
        "stored     {} rows, {} points in {seconds:.1} s: {} rows/s, {} points/s",
        grouped(status.rows),
        grouped(status.points),
        grouped((status.rows as f64 / seconds) as u64),
        grouped((status.points as f64 / seconds) as u64)
    );
    say!(
        "acks       p50 {}, p99 {}, max {} (from send to durable and settled)",
        milliseconds(latency.value_at_quantile(0.5)),
        milliseconds(latency.value_at_quantile(0.99)),
        milliseconds(latency.max())
    );
    say!(
        "archive    {} rows in {} files, {} ({:.2} bytes a point of this run)",
        grouped(status.archived_rows),
        status.archived_files,
        bytes(status.archived_bytes),
        status.archived_bytes as f64 / status.points.max(1) as f64
    );
    say!(
        "query it   quiver sql --data-dir {} \"SELECT device, count(*) FROM readings GROUP BY device LIMIT 5\"",
        data_dir.display()
    );
    say!(
        "or         SELECT * FROM delta_scan('{}')   in DuckDB, or any Delta reader",
        data_dir.join("archive/readings").display()
    );
    say!("prove it   quiver audit --data-dir {}", data_dir.display());
}
