//! Who sends what on which thread: deals devices out to connections, connections to workers, and
//! makes every source's generator and schedule before the clock runs.

use std::{sync::Arc, time::Duration};

use quiver_model::{Clock, StreamName};
use tokio::sync::watch;

use crate::{
    error::BenchError,
    load::{ConnectionPlan, Signal, SourcePlan, WorkerPlan},
    pacer::{Inbox, Paced},
    record::Recorder,
    scenario::{Arrivals, Identity, Scenario, Values},
    schedule::Schedule,
    values::{Generator, Recorded, SourceSpec},
};

/// Most UDP sockets unless asked for more: each is a file descriptor.
const SOCKETS: u32 = 256;

/// Everything that the threads need.
pub(crate) struct Plan {
    pub workers: Vec<WorkerPlan>,
    pub paced: Vec<Paced>,
}

/// What all workers share.
pub(crate) struct Shared {
    pub scenario: Arc<Scenario>,
    pub clock: Arc<dyn Clock>,
    pub signal: watch::Receiver<Signal>,
    pub server: std::net::SocketAddr,
    pub server_name: String,
}

/// The devices that a connection speaks for.
fn devices_of(scenario: &Scenario, connection: u32) -> Vec<u32> {
    match scenario.identity {
        Identity::Device => vec![connection],
        _ => (connection..scenario.devices)
            .step_by(scenario.connection_count().max(1) as usize)
            .collect(),
    }
}

/// When a connection is first made, from the start.
fn delay_of(scenario: &Scenario, connection: u32) -> Duration {
    if scenario.connect_rate == 0.0 {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(f64::from(connection) / scenario.connect_rate)
}

/// Deals everything out.
pub(crate) fn plan(shared: &Shared, configs: Vec<quinn::ClientConfig>) -> Result<Plan, BenchError> {
    let scenario = &shared.scenario;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let connections = scenario.connection_count();
    let threads = match scenario.threads {
        0 => cores,
        threads => threads,
    }
    .clamp(1, connections.max(1));
    let sockets = match scenario.sockets {
        0 => connections.min(SOCKETS),
        sockets => sockets.min(connections),
    };
    let streams: Vec<StreamName> = scenario
        .stream_names()
        .iter()
        .map(|name| {
            StreamName::for_sender(name).map_err(|error| BenchError::Usage(error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    let recorded = if scenario.values == Values::File {
        Some(Arc::new(Recorded::load(
            &scenario.file,
            scenario.rows as usize,
        )?))
    } else {
        None
    };
    let mut workers: Vec<WorkerPlan> = (0..threads)
        .map(|_| WorkerPlan {
            scenario: scenario.clone(),
            clock: shared.clock.clone(),
            signal: shared.signal.clone(),
            recorder: Arc::new(Recorder::new()),
            inbox: Arc::new(Inbox::default()),
            server: shared.server,
            server_name: shared.server_name.clone(),
            sockets: sockets.div_ceil(threads) as usize,
            connections: Vec::new(),
        })
        .collect();
    let mut paced = Vec::new();
    let mut sources_of_worker = vec![0; workers.len()];
    let count = scenario.source_count();
    for (connection, config) in configs.into_iter().enumerate() {
        let number = connection as u32;
        let worker = connection % workers.len();
        let mut sources = Vec::with_capacity(streams.len());
        for (stream_index, stream) in streams.iter().enumerate() {
            let index = connection * streams.len() + stream_index;
            let mut schedule = Schedule::of(scenario, index, count);
            let recorded = match &recorded {
                Some(recorded) if scenario.arrivals == Arrivals::Replay => {
                    let rows = scenario.rows as usize;
                    let (source, times) = recorded.replayed(index, count, rows, scenario.speed)?;
                    schedule = Some(times);
                    Some(source)
                }
                Some(recorded) => Some(recorded.repeated(index, count)),
                None => None,
            };
            let spec = SourceSpec {
                index,
                stream: stream_index,
                devices: devices_of(scenario, number),
                recorded,
            };
            paced.extend(schedule.map(|schedule| Paced {
                worker,
                source: sources_of_worker.get(worker).copied().unwrap_or(0),
                schedule,
            }));
            if let Some(sources) = sources_of_worker.get_mut(worker) {
                *sources += 1;
            }
            sources.push(SourcePlan {
                stream: stream.clone(),
                stream_index,
                generator: Generator::new(scenario, spec),
            });
        }
        if let Some(worker) = workers.get_mut(worker) {
            worker.connections.push(ConnectionPlan {
                config,
                delay: delay_of(scenario, number),
                sources,
            });
        }
    }
    Ok(Plan { workers, paced })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Knobs;

    #[test]
    fn every_device_has_one_connection_that_speaks_for_it() {
        let scenario = Knobs {
            identity: Some(Identity::Gateway),
            devices: Some(10),
            connections: Some(3),
            ..Knobs::default()
        }
        .resolve();
        let mut all: Vec<u32> = (0..3)
            .flat_map(|number| devices_of(&scenario, number))
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert_eq!(devices_of(&scenario, 1), [1, 4, 7]);
        let delayed = Scenario {
            connect_rate: 2.0,
            ..scenario
        };
        assert_eq!(delay_of(&delayed, 3), Duration::from_millis(1_500));
    }
}
