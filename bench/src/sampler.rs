//! Follows a run from its first connection to its last acknowledgement, on the main thread: moves
//! it from phase to phase, and takes a sample once a second.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quiver_model::Clock;
use tokio::sync::watch;

use crate::{
    error::BenchError,
    hgrm::IntervalLog,
    load::{Phase, Signal, WorkerResult},
    record::{Counts, Recorder, histogram, merge, take_interval},
    result::{Latency, Run, Sample},
    run::{Outcome, View},
    scenario::Scenario,
    server::{Http, ServerSample},
};

/// Time between samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether everything is settled.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Lead that threads have before the first batch is due.
const LEAD: Duration = Duration::from_millis(50);

/// What the last sample saw.
#[derive(Default)]
struct Last {
    at: Duration,
    counts: Counts,
    server: ServerSample,
    server_at: Duration,
    server_cores: f64,
    client_cpu: f64,
}

/// Follows a run from connecting to the end, on the main thread.
pub(crate) struct Sampler {
    scenario: Arc<Scenario>,
    clock: Arc<dyn Clock>,
    signal: watch::Sender<Signal>,
    recorders: Vec<Arc<Recorder>>,
    http: Http,
    stop: Arc<AtomicBool>,
    run: Run,
    log: IntervalLog,
    last: Last,
    /// The load is over: what is sampled now is not measured.
    is_draining: bool,
}

impl Sampler {
    pub(crate) fn new(
        scenario: &Arc<Scenario>,
        clock: &Arc<dyn Clock>,
        signal: watch::Sender<Signal>,
        recorders: Vec<Arc<Recorder>>,
        http: &Http,
        stop: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            scenario: scenario.clone(),
            clock: clock.clone(),
            signal,
            recorders,
            http: http.clone(),
            stop: stop.clone(),
            run: Run::default(),
            log: IntervalLog::new(),
            last: Last::default(),
            is_draining: false,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.signal.send_modify(|signal| signal.phase = phase);
    }

    fn now(&self) -> Duration {
        self.clock
            .monotonic()
            .saturating_sub(self.signal.borrow().origin)
    }

    fn totals(&self) -> (Counts, u64, Option<String>) {
        let mut counts = Counts::default();
        let (mut connected, mut error) = (0, None);
        for recorder in &self.recorders {
            let recording = recorder.lock();
            counts.add(&recording.counts);
            connected += recording.connected;
            error = recording.last_error.clone().or(error);
        }
        (counts, connected, error)
    }

    pub(crate) fn wait_for_connections(&self) -> Result<(), BenchError> {
        let wanted = u64::from(self.scenario.connection_count());
        let rate = self.scenario.connect_rate;
        let ramp = if rate > 0.0 {
            wanted as f64 / rate
        } else {
            0.0
        };
        let patience = self.scenario.connect_within.0 + Duration::from_secs_f64(ramp);
        loop {
            let (_, connected, error) = self.totals();
            if connected >= wanted || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.now() > patience {
                self.set_phase(Phase::Stop);
                let why = error.unwrap_or_else(|| "the server does not answer".to_owned());
                return Err(BenchError::Unavailable(format!(
                    "{connected} of {wanted} connections were made in {} s: {why}; a lower --connect-rate or a longer --connect-within may help",
                    patience.as_secs()
                )));
            }
            std::thread::sleep(DRAIN_LOOK);
        }
    }

    /// Starts the clock of the load; its origin, and the same as wall time in microseconds.
    pub(crate) fn begin(&mut self) -> Result<(Duration, i64), BenchError> {
        self.last.server_at = self.clock.monotonic();
        self.last.server = self.http.sample()?;
        self.last.client_cpu = client_cpu_seconds();
        self.last.counts = self.totals().0;
        let origin = self.clock.monotonic() + LEAD;
        let wall = self.clock.wall().plus(LEAD);
        self.run.began = wall.to_string();
        std::thread::sleep(LEAD);
        self.signal.send_replace(Signal {
            phase: Phase::Load,
            origin,
            origin_wall_us: wall.as_micros(),
        });
        Ok((origin, wall.as_micros()))
    }

    /// Samples until the load's time is over.
    pub(crate) fn follow(&mut self, end: Duration, view: &mut dyn View) {
        let metrics = Metrics::start(self.http.clone(), self.clock.clone());
        let mut next = INTERVAL;
        while self.last.at < end && !self.stop.load(Ordering::Relaxed) {
            let until = next.min(end);
            while self.now() < until && !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep((until - self.now().min(until)).min(DRAIN_LOOK));
            }
            self.sample(metrics.latest(), view);
            next =
                self.last.at.max(next) + INTERVAL.saturating_sub(self.last.at.saturating_sub(next));
        }
        self.set_phase(Phase::Drain);
        self.is_draining = true;
    }

    /// Waits until everything that was due is settled, and samples on.
    pub(crate) fn drain(&mut self, view: &mut dyn View) {
        let metrics = Metrics::start(self.http.clone(), self.clock.clone());
        // What was handed out last is taken by then, and counted.
        std::thread::sleep(LEAD);
        let end = self.now() + self.scenario.drain.0;
        let mut next = self.last.at + INTERVAL;
        loop {
            let (counts, ..) = self.totals();
            let outstanding = counts.offered_rows > counts.acked_rows + counts.rejected_rows;
            let now = self.now();
            if !outstanding || now >= end {
                break;
            }
            if now >= next {
                self.sample(metrics.latest(), view);
                next = self.last.at + INTERVAL;
            }
            std::thread::sleep(DRAIN_LOOK);
        }
        self.sample(metrics.latest(), view);
    }

    fn sample(&mut self, server: Option<(Duration, ServerSample)>, view: &mut dyn View) {
        let at = self.now();
        let seconds = at.saturating_sub(self.last.at).as_secs_f64().max(1e-6);
        let merged = take_interval(&self.recorders);
        let change = merged.counts.since(&self.last.counts);
        let (server_at, server) = server.unwrap_or((self.last.server_at, self.last.server));
        // Between the moments the two were taken, which are not those of the samples.
        let server_seconds = server_at.saturating_sub(self.last.server_at).as_secs_f64();
        let server_cores = if server_seconds > 0.0 {
            (server.cpu_seconds - self.last.server.cpu_seconds).max(0.0) / server_seconds
        } else {
            self.last.server_cores
        };
        let client_cpu = client_cpu_seconds();
        let warmup = self.scenario.warmup.0;
        let end = warmup + self.scenario.duration.0;
        let counts = &merged.counts;
        let sample = Sample {
            at: at.as_secs_f64(),
            seconds,
            // A tick may be late by the length of a look.
            measured: !self.is_draining
                && self.last.at + DRAIN_LOOK >= warmup
                && at <= end + 2 * DRAIN_LOOK,
            offered_rows: change.offered_rows as f64 / seconds,
            acked_rows: change.acked_rows as f64 / seconds,
            acked_points: change.acked_points as f64 / seconds,
            outstanding_rows: counts
                .offered_rows
                .saturating_sub(counts.acked_rows + counts.rejected_rows),
            errors: change.errors(),
            connected: merged.connected,
            latency: Latency::of(&merged.interval),
            server_cores,
            server_bytes: server.resident_bytes,
            client_cores: (client_cpu - self.last.client_cpu).max(0.0) / seconds,
        };
        view.sample(&sample, &merged.counts, merged.last_error.as_deref());
        let start = self.last.at;
        self.log
            .add(start, at.saturating_sub(start), merged.interval);
        self.run.samples.push(sample);
        self.run.last_error = merged.last_error;
        self.last = Last {
            at,
            counts: merged.counts,
            server,
            server_at,
            server_cores,
            client_cpu,
        };
    }

    pub(crate) fn finish(self, results: &[WorkerResult], began_us: i64) -> Outcome {
        let (mut latency, mut lag, mut connect) = (histogram(), histogram(), histogram());
        let mut counts = Counts::default();
        for recorder in &self.recorders {
            let recording = recorder.lock();
            counts.add(&recording.counts);
            merge(&mut latency, &recording.latency);
            merge(&mut lag, &recording.lag);
            merge(&mut connect, &recording.connect);
        }
        let mut run = self.run;
        run.counts = counts;
        run.set_latency(&latency);
        run.lag = Latency::of(&lag);
        run.connect = Latency::of(&connect);
        run.unsent = results.iter().map(|result| result.unsent).sum();
        let measured: Vec<&Sample> = run
            .samples
            .iter()
            .filter(|sample| sample.measured)
            .collect();
        let seconds: f64 = measured.iter().map(|sample| sample.seconds).sum();
        let mean = |of: fn(&Sample) -> f64| {
            let total: f64 = measured
                .iter()
                .map(|sample| of(sample) * sample.seconds)
                .sum();
            total / seconds.max(1e-6)
        };
        let offered = mean(|sample| sample.offered_rows);
        let acked = mean(|sample| sample.acked_rows);
        let points = mean(|sample| sample.acked_points);
        let server_cores = mean(|sample| sample.server_cores);
        let client_cores = mean(|sample| sample.client_cores);
        let rows_a_batch = counts.acked_rows as f64 / counts.acked.max(1) as f64;
        run.seconds = seconds;
        run.offered_rows_per_second = offered;
        run.acked_rows_per_second = acked;
        run.acked_points_per_second = points;
        run.acked_per_second = acked / rows_a_batch.max(1.0);
        run.server_cores = server_cores;
        run.client_cores = client_cores;
        run.server_cpu_per_million = if points > 0.0 {
            server_cores / points * 1e6
        } else {
            0.0
        };
        run.bytes_per_point = counts.sent_bytes as f64 / counts.acked_points.max(1) as f64;
        run.server_bytes_max = run
            .samples
            .iter()
            .map(|sample| sample.server_bytes)
            .max()
            .unwrap_or(0);
        Outcome {
            run,
            latency,
            log: self.log,
            began_us,
        }
    }
}

/// The server's metrics, fetched on a thread of their own so that a slow answer delays no sample.
struct Metrics {
    /// With when they were asked for, on the clock of the harness.
    latest: Arc<Mutex<Option<(Duration, ServerSample)>>>,
    stop: Arc<AtomicBool>,
}

impl Metrics {
    fn start(http: Http, clock: Arc<dyn Clock>) -> Self {
        let this = Self {
            latest: Arc::default(),
            stop: Arc::default(),
        };
        let (latest, stop) = (this.latest.clone(), this.stop.clone());
        // Ends within two intervals of being told; nobody waits for it.
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let asked = clock.monotonic();
                if let Ok(sample) = http.sample() {
                    let sample = Some((asked, sample));
                    *latest.lock().unwrap_or_else(PoisonError::into_inner) = sample;
                }
                std::thread::sleep(INTERVAL / 2);
            }
        });
        this
    }

    fn latest(&self) -> Option<(Duration, ServerSample)> {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Processor time of this process, in seconds.
fn client_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |index: usize| {
        let field = rest.split_whitespace().nth(index);
        field
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    // Fields 14 and 15 of proc(5), in ticks of 10 ms, counted from field 3.
    (ticks(11) + ticks(12)) / 100.0
}
