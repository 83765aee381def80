//! A simulated fleet of trucks, in the shape of the Time Series Benchmark Suite's iot case: each
//! truck sends readings (seven floats) and diagnostics (two floats and an integer), as random
//! walks with the suite's steps and rounding. Every truck is a real client with a connection and
//! an identity of its own.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use hdrhistogram::Histogram;
use quiver_client::{Client, ClientEvent, ClientOptions, ClientStream, Observer, Settled};
use quiver_model::{Clock, DeviceId, Entropy, OsEntropy, SenderId, SystemClock};
use quiver_pki::{ClientTls, Request, Validity, rustls_client_config};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    access,
    exit::{CONFIG, Failure, UNAVAILABLE},
};

/// Rows a second that one truck may send when nothing limits it: one batch after the other.
const FLAT_OUT_ROWS: usize = 1_000;
/// Time between two batches of a truck, when a rate is given.
const BATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Most trucks that connect at once.
const CONNECTING_MAX: usize = 64;
/// Batches of a stream that may be unsettled per truck, flat out.
const UNSETTLED_MAX: usize = 4;

/// For so long the engine may take nothing before it is said to: short causes pass by themselves.
const REFUSED_PATIENCE: Duration = Duration::from_secs(5);
/// A truck that cannot settle within this time has lost its server.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// What the fleet did so far.
#[derive(Debug)]
pub struct FleetCounts {
    /// Trucks whose connection was welcomed.
    pub connected: AtomicU64,
    /// Rows sent.
    pub sent_rows: AtomicU64,
    /// Points sent.
    pub sent_points: AtomicU64,
    /// Rows of batches that are settled.
    pub settled_rows: AtomicU64,
    /// Batches that were not stored.
    pub failed_batches: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    clock: Arc<dyn Clock>,
    refusal: Mutex<Option<Refusal>>,
}

/// The engine takes nothing.
#[derive(Debug)]
struct Refusal {
    /// The newest reason it gave.
    reason: String,
    /// When it gave the first since it last took something.
    since: Duration,
}

impl FleetCounts {
    fn new(clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3)
            .map_err(|error| Failure::new(CONFIG, error.to_string()))?;
        Ok(Self {
            connected: AtomicU64::new(0),
            sent_rows: AtomicU64::new(0),
            sent_points: AtomicU64::new(0),
            settled_rows: AtomicU64::new(0),
            failed_batches: AtomicU64::new(0),
            latency: Mutex::new(latency),
            clock,
            refusal: Mutex::new(None),
        })
    }

    fn refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, reason: String) {
        let mut refusal = self.refusal();
        let since = match &*refusal {
            Some(refusal) => refusal.since,
            None => self.clock.monotonic(),
        };
        *refusal = Some(Refusal { reason, since });
    }

    /// Why the engine takes nothing, if it has given reasons for a while and settled nothing
    /// meanwhile.
    pub fn refusal_reason(&self) -> Option<String> {
        let now = self.clock.monotonic();
        self.refusal()
            .as_ref()
            .filter(|refusal| now.saturating_sub(refusal.since) >= REFUSED_PATIENCE)
            .map(|refusal| refusal.reason.clone())
    }

    /// Like [`Self::refusal_reason`], for a fleet that has stored nothing at all.
    pub fn never_stored_reason(&self) -> Option<String> {
        let stored = self.settled_rows.load(Ordering::Relaxed);
        self.refusal_reason().filter(|_| stored == 0)
    }

    /// Time from handing a batch to the client until it was settled, in microseconds.
    pub fn latency(&self) -> Histogram<u64> {
        self.latency
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn settled(&self, rows: u64, latency: Duration) {
        self.settled_rows.fetch_add(rows, Ordering::Relaxed);
        *self.refusal() = None;
        let micros = u64::try_from(latency.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        self.latency
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .saturating_record(micros);
    }
}

impl Observer for FleetCounts {
    fn on_event(&self, event: &ClientEvent) {
        match event {
            ClientEvent::StreamPaused {
                stream, message, ..
            }
            | ClientEvent::StreamRefused {
                stream, message, ..
            } => self.refused(format!("it closes stream {stream}: {message}")),
            ClientEvent::Rejected {
                stream, message, ..
            } => self.refused(format!("it rejects batches of stream {stream}: {message}")),
            ClientEvent::Disconnected { reason, .. } => self.refused(reason.to_string()),
            _ => {}
        }
    }
}

/// A fleet at work.
pub struct Fleet {
    /// What it did so far.
    pub counts: Arc<FleetCounts>,
    stop: Arc<AtomicBool>,
    runtime: Option<tokio::runtime::Runtime>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Fleet {
    /// Makes certificates for the trucks and starts them. `rate` is rows a second of the whole
    /// fleet; 0: as fast as it goes.
    pub fn start(
        devices: u32,
        rate: u64,
        server: std::net::SocketAddr,
        data_dir: &Path,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fleet")
            .enable_all()
            .build()
            .map_err(Failure::with(UNAVAILABLE))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let counts = Arc::new(FleetCounts::new(clock.clone())?);
        let stop = Arc::new(AtomicBool::new(false));
        let connecting = Arc::new(tokio::sync::Semaphore::new(CONNECTING_MAX));
        let ca = access::development_ca(data_dir)?;
        let validity = Validity::starting_now(&*clock, Duration::from_secs(7 * 86_400));
        let mut tasks = Vec::new();
        for index in 0..devices {
            let id = DeviceId::new(&format!("truck_{index}")).map_err(Failure::with(CONFIG))?;
            let request = Request::client(SenderId::device(id), validity);
            let credential = ca
                .issue(&request, &OsEntropy)
                .map_err(Failure::with(CONFIG))?;
            let tls = rustls_client_config(ClientTls::new(credential), clock.clone())
                .map_err(Failure::with(CONFIG))?;
            let mut options = ClientOptions::new(server, "localhost", tls);
            options.software = concat!("quiver-demo/", env!("CARGO_PKG_VERSION")).to_owned();
            options.observer = Some(counts.clone());
            let pace = Pace::of(rate, devices);
            let driver = Driver {
                pace,
                counts: counts.clone(),
                stop: stop.clone(),
                clock: clock.clone(),
                connecting: connecting.clone(),
                truck: Truck::new(OsEntropy.next_u64()),
            };
            tasks.push(runtime.spawn(driver.run(options)));
        }
        Ok(Self {
            counts,
            stop,
            runtime: Some(runtime),
            tasks,
        })
    }

    /// Stops sending, waits until everything sent is settled, and disconnects. The error says why
    /// it is not settled.
    pub async fn stop(mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::SeqCst);
        let all = futures::future::join_all(std::mem::take(&mut self.tasks));
        let unsettled = tokio::select! {
            _ = all => self.counts.never_stored_reason(),
            reason = refused(&self.counts) => Some(reason),
            () = tokio::time::sleep(SETTLE_PATIENCE) => {
                Some(format!("it did not settle within {} s", SETTLE_PATIENCE.as_secs()))
            }
        };
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        unsettled.map_or(Ok(()), Err)
    }
}

/// Waits until the engine has taken nothing for a while; why.
async fn refused(counts: &FleetCounts) -> String {
    loop {
        if let Some(reason) = counts.refusal_reason() {
            return reason;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How many rows a truck sends in a batch, and how often.
#[derive(Clone, Copy, Debug)]
struct Pace {
    rows: usize,
    interval: Option<Duration>,
}

impl Pace {
    fn of(rate: u64, devices: u32) -> Self {
        if rate == 0 {
            return Self {
                rows: FLAT_OUT_ROWS,
                interval: None,
            };
        }
        // Both streams count.
        let per_stream = rate as f64 / 2.0 / f64::from(devices.max(1));
        let rows = (per_stream * BATCH_INTERVAL.as_secs_f64()).round().max(1.0);
        Self {
            rows: rows as usize,
            interval: Some(Duration::from_secs_f64(rows / per_stream)),
        }
    }
}

struct Driver {
    pace: Pace,
    counts: Arc<FleetCounts>,
    stop: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    connecting: Arc<tokio::sync::Semaphore>,
    truck: Truck,
}

impl Driver {
    async fn run(mut self, options: ClientOptions) {
        let client = {
            // An error means that the semaphore is closed, which never happens.
            let _turn = self.connecting.acquire().await;
            match Client::connect(options).await {
                Ok(client) => {
                    if let Err(error) = client.connected().await {
                        tracing::warn!(%error, "a truck cannot connect");
                        return;
                    }
                    client
                }
                Err(error) => {
                    tracing::warn!(%error, "a truck cannot start");
                    return;
                }
            }
        };
        self.counts.connected.fetch_add(1, Ordering::Relaxed);
        let streams = (client.stream("readings"), client.stream("diagnostics"));
        if let (Ok(readings), Ok(diagnostics)) = streams {
            self.drive(&readings, &diagnostics).await;
        }
        if let Err(error) = client.flush().await {
            tracing::warn!(%error, "a truck could not settle what it sent");
        }
        client.close().await;
        self.counts.connected.fetch_sub(1, Ordering::Relaxed);
    }

    async fn drive(&mut self, readings: &ClientStream, diagnostics: &ClientStream) {
        let unsettled = Arc::new(tokio::sync::Semaphore::new(2 * UNSETTLED_MAX));
        let mut next = tokio::time::Instant::now();
        if let Some(interval) = self.pace.interval {
            // Trucks do not all send at the same moment.
            next += interval.mul_f64(self.truck.random.random::<f64>());
        }
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(interval) = self.pace.interval {
                tokio::time::sleep_until(next).await;
                next += interval;
            }
            let span = self.pace.interval.unwrap_or(BATCH_INTERVAL);
            let (first, second) =
                self.truck
                    .drive(self.pace.rows, self.clock.wall().as_micros(), span);
            for (stream, batch) in [(readings, first), (diagnostics, second)] {
                let Some(batch) = batch else { continue };
                // Never closed.
                let Ok(permit) = unsettled.clone().acquire_owned().await else {
                    return;
                };
                if !self.send(stream, &batch, permit).await {
                    return;
                }
            }
        }
    }

    async fn send(
        &self,
        stream: &ClientStream,
        batch: &RecordBatch,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> bool {
        let rows = batch.num_rows() as u64;
        let points = rows * (batch.num_columns() as u64 - 1);
        let begun = self.clock.monotonic();
        let handle = match stream.send(batch).await {
            Ok(handle) => handle,
            Err(error) => {
                tracing::warn!(%error, "a truck cannot send");
                return false;
            }
        };
        self.counts.sent_rows.fetch_add(rows, Ordering::Relaxed);
        self.counts.sent_points.fetch_add(points, Ordering::Relaxed);
        let (counts, clock) = (self.counts.clone(), self.clock.clone());
        tokio::spawn(async move {
            match handle.await {
                Ok(Settled::Stored) => {
                    counts.settled(rows, clock.monotonic().saturating_sub(begun))
                }
                _ => {
                    counts.failed_batches.fetch_add(1, Ordering::Relaxed);
                }
            }
            drop(permit);
        });
        true
    }
}

/// State of a truck.
struct Truck {
    random: SmallRng,
    latitude: f64,
    longitude: f64,
    elevation: f64,
    velocity: f64,
    heading: f64,
    grade: f64,
    consumption: f64,
    fuel: f64,
    load: f64,
    status: f64,
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

impl Truck {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        Self {
            latitude: random.random::<f64>() * 90.0,
            longitude: random.random::<f64>() * 180.0,
            elevation: random.random::<f64>() * 500.0,
            velocity: 0.0,
            heading: random.random::<f64>() * 360.0,
            grade: 0.0,
            consumption: 25.0,
            fuel: 1.0,
            load: random.random::<f64>() * 5_000.0,
            status: 0.0,
            random,
        }
    }

    fn walk(random: &mut SmallRng, value: &mut f64, step: f64, low: f64, high: f64) -> f64 {
        *value = (*value + (random.random::<f64>() * 2.0 - 1.0) * step).clamp(low, high);
        *value
    }

    /// Readings and diagnostics of the `span` before `now_us`.
    fn drive(
        &mut self,
        rows: usize,
        now_us: i64,
        span: Duration,
    ) -> (Option<RecordBatch>, Option<RecordBatch>) {
        let mut readings: [Vec<f64>; 7] = std::array::from_fn(|_| Vec::with_capacity(rows));
        let mut diagnostics: [Vec<f64>; 2] = std::array::from_fn(|_| Vec::with_capacity(rows));
        let mut status = Vec::with_capacity(rows);
        let random = &mut self.random;
        for _ in 0..rows {
            let values = [
                rounded(
                    Self::walk(random, &mut self.latitude, 0.005, -90.0, 90.0),
                    5,
                ),
                rounded(
                    Self::walk(random, &mut self.longitude, 0.005, -180.0, 180.0),
                    5,
                ),
                Self::walk(random, &mut self.elevation, 10.0, 0.0, 5_000.0).round(),
                Self::walk(random, &mut self.velocity, 10.0, 0.0, 100.0).round(),
                Self::walk(random, &mut self.heading, 5.0, 0.0, 360.0).round(),
                Self::walk(random, &mut self.grade, 5.0, 0.0, 100.0).round(),
                rounded(Self::walk(random, &mut self.consumption, 5.0, 0.0, 50.0), 1),
            ];
            for (column, value) in readings.iter_mut().zip(values) {
                column.push(value);
            }
            self.fuel -= random.random::<f64>() * 0.001;
            if self.fuel <= 0.0 {
                self.fuel = 1.0;
            }
            if random.random::<f64>() < 0.05 {
                self.load = random.random::<f64>() * 5_000.0;
            }
            diagnostics[0].push(rounded(self.fuel, 1));
            diagnostics[1].push(self.load.round());
            status.push(Self::walk(random, &mut self.status, 1.5, 0.0, 5.0) as i64);
        }
        let step =
            i64::try_from(span.as_micros()).unwrap_or(0) / i64::try_from(rows.max(1)).unwrap_or(1);
        let times: Vec<i64> = (0..rows as i64)
            .rev()
            .map(|back| now_us - back * step.max(1))
            .collect();
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        const READINGS: [&str; 7] = [
            "latitude",
            "longitude",
            "elevation",
            "velocity",
            "heading",
            "grade",
            "fuel_consumption",
        ];
        let mut columns = vec![("ts", time.clone())];
        for (name, values) in READINGS.into_iter().zip(readings) {
            columns.push((name, Arc::new(Float64Array::from(values)) as ArrayRef));
        }
        let [fuel, load] = diagnostics;
        let second: Vec<(&str, ArrayRef)> = vec![
            ("ts", time),
            ("fuel_state", Arc::new(Float64Array::from(fuel))),
            ("current_load", Arc::new(Float64Array::from(load))),
            ("status", Arc::new(Int64Array::from(status))),
        ];
        (
            RecordBatch::try_from_iter(columns).ok(),
            RecordBatch::try_from_iter(second).ok(),
        )
    }
}
