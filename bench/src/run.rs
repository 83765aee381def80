//! One run: identities, connections, load, drain, audit.
//!
//! ```text
//! enroll ─▶ connect ─▶ warm-up ─▶ measure ─▶ drain ─▶ stop ─▶ audit ─▶ Run
//!                      └── sampled once a second, told to the view ──┘
//! ```

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use hdrhistogram::Histogram;
use quiver_model::{Clock, SystemClock};
use tokio::sync::watch;

use crate::{
    audit::{Claims, Stock, audit},
    error::BenchError,
    hgrm::IntervalLog,
    identity::{Credentials, client_configs, gateway_name, own_name},
    load::{Phase, Signal, WorkerResult, run_worker},
    pacer,
    plan::{Shared, plan},
    proxy::{Proxy, Weather},
    record::{Counts, Recorder},
    result::{AuditResult, Run, Sample},
    sampler::Sampler,
    scenario::{Identity, Scenario},
    server::{Enrolment, Http},
    values::{attributes, device_name},
};

/// The server that is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub quic: SocketAddr,
    pub http: SocketAddr,
    pub server_name: String,
    pub token: Option<String>,
    pub credentials: Credentials,
}

/// Who is told how it goes.
pub(crate) trait View {
    /// A step begins.
    fn step(&mut self, text: &str);
    /// A second went by.
    fn sample(&mut self, sample: &Sample, counts: &Counts, last_error: Option<&str>);
}

/// A run with its histograms.
pub(crate) struct Outcome {
    pub run: Run,
    pub latency: Histogram<u64>,
    pub log: IntervalLog,
    pub began_us: i64,
}

/// Runs a scenario against a server. `stop` ends it early, as if its time were over.
pub(crate) fn run(
    scenario: &Arc<Scenario>,
    target: &Target,
    stop: &Arc<AtomicBool>,
    view: &mut dyn View,
) -> Result<Outcome, BenchError> {
    let http = Http::new(target.http, target.token.clone());
    http.sample()?;
    view.step("identities");
    let configs = client_configs(scenario, &target.credentials)?;
    let before = if http.has_token() {
        enroll(scenario, &target.credentials, &http)?;
        Some(Stock::take(&http, scenario)?)
    } else {
        None
    };
    let proxy = if scenario.needs_proxy() {
        Some(Proxy::start(
            target.quic,
            Weather::of(scenario),
            scenario.seed,
        )?)
    } else {
        None
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (signal, receiver) = watch::channel(Signal {
        phase: Phase::Connecting,
        origin: clock.monotonic(),
        origin_wall_us: clock.wall().as_micros(),
    });
    let shared = Shared {
        scenario: scenario.clone(),
        clock: clock.clone(),
        signal: receiver,
        server: proxy.as_ref().map_or(target.quic, Proxy::address),
        server_name: target.server_name.clone(),
    };
    let plan = plan(&shared, configs)?;
    let recorders: Vec<Arc<Recorder>> = plan
        .workers
        .iter()
        .map(|worker| worker.recorder.clone())
        .collect();
    let inboxes: Vec<_> = plan
        .workers
        .iter()
        .map(|worker| worker.inbox.clone())
        .collect();
    view.step("connections");
    let mut threads = Vec::new();
    for worker in plan.workers {
        threads.push(spawn("bench-load", move || run_worker(worker))?);
    }
    let mut sampler = Sampler::new(scenario, &clock, signal, recorders, &http, stop);
    sampler.wait_for_connections()?;
    view.step("load");
    let (origin, began) = sampler.begin()?;
    let end = scenario.warmup.0 + scenario.duration.0;
    let pacer_stop = Arc::new(AtomicBool::new(false));
    let pacer = {
        let (clock, stop) = (clock.clone(), pacer_stop.clone());
        spawn("bench-pacer", move || {
            pacer::run(&*clock, origin, end, plan.paced, &inboxes, &stop);
        })?
    };
    sampler.follow(end, view);
    pacer_stop.store(true, Ordering::Relaxed);
    join(pacer)?;
    sampler.drain(view);
    sampler.set_phase(Phase::Stop);
    let mut results = Vec::new();
    for thread in threads {
        results.push(join(thread)??);
    }
    let mut outcome = sampler.finish(results.as_slice(), began);
    outcome.run.proxy = proxy.as_ref().map(Proxy::counts);
    drop(proxy);
    view.step("audit");
    outcome.run.audit = match before {
        None => AuditResult {
            not_made: Some(
                "there is no token for the server's HTTP door: name its --data-dir, or set QUIVER_HTTP_TOKEN"
                    .to_owned(),
            ),
            ..AuditResult::default()
        },
        Some(before) => audit_run(scenario, &http, &before, &results, &outcome.run)?,
    };
    outcome.run.server = http.sample()?;
    Ok(outcome)
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, BenchError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| BenchError::Io(format!("cannot start a thread: {error}")))
}

fn join<T>(thread: JoinHandle<T>) -> Result<T, BenchError> {
    thread.join().map_err(|_| {
        BenchError::Io("a thread of the load generator failed; its message is above".to_owned())
    })
}

fn enroll(scenario: &Scenario, credentials: &Credentials, http: &Http) -> Result<(), BenchError> {
    let own_gateway = own_name(credentials)?;
    let gateway = |connection: u32| match &own_gateway {
        Some(name) => name.clone(),
        None => gateway_name(scenario, connection),
    };
    let speaks_for = |device: u32| match scenario.identity {
        Identity::Gateway => vec![gateway(device % scenario.connection_count().max(1))],
        _ => Vec::new(),
    };
    let mut wanted: Vec<Enrolment> = (0..scenario.devices)
        .map(|device| Enrolment {
            id: device_name(scenario, device),
            kind: "device",
            gateways: speaks_for(device),
            attributes: attributes(scenario, device),
        })
        .collect();
    if scenario.identity == Identity::Gateway {
        wanted.extend(
            (0..scenario.connection_count()).map(|connection| Enrolment {
                id: gateway(connection),
                kind: "gateway",
                gateways: Vec::new(),
                attributes: BTreeMap::new(),
            }),
        );
    }
    http.enroll(wanted).map(drop)
}

fn audit_run(
    scenario: &Scenario,
    http: &Http,
    before: &Stock,
    results: &[WorkerResult],
    run: &Run,
) -> Result<AuditResult, BenchError> {
    let mut claims = Claims {
        rejected_rows: run.counts.rejected_rows,
        ..Claims::default()
    };
    for result in results {
        claims.unsettled_rows += result.unsettled_rows;
        for (device, rows) in &result.tally {
            *claims.acked.entry(*device).or_default() += rows;
        }
    }
    let after = Stock::take(http, scenario)?;
    let mut result = audit(scenario, &claims, before, &after);
    result.server_audit = Some(http.audit_holds()?);
    Ok(result)
}
