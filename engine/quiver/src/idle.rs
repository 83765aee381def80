//! A data directory that no engine is running on: locked, recovered and read.
//!
//! No row is added, changed or removed, but the directory is not left as it was found: recovery
//! copies the last commit group into a fresh segment of the log, cuts off a group that was never
//! acknowledged, and reports damage in the log, as every start does.

use std::{path::Path, sync::Arc, time::Duration};

use quiver_archive::DeltaArchive;
use quiver_log::LockError;
use quiver_model::{Clock, SystemClock};
use quiver_runtime::{Metrics, Recovered, StartError, recover};
use tokio::time::{Instant, sleep};

use crate::{
    exit::{Failure, IO, UNAVAILABLE},
    holder::Holder,
    node::{environment, start_failure},
    remote::Remote,
    settings::EngineArgs,
    sources::Sources,
};

/// How long another process may keep the directory locked before that is said.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Time between two attempts.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// An idle data directory, locked for as long as this lives.
pub struct Idle {
    /// Its state.
    pub recovered: Recovered,
    /// Its archive.
    pub archive: Arc<DeltaArchive>,
}

/// What was found at a data directory.
pub enum Opened {
    /// It was idle.
    Idle(Box<Idle>),
    /// An engine was starting, and runs now.
    Running(Remote),
}

impl Idle {
    /// Recovers the directory, once other verbs are done with it.
    pub async fn open(data_dir: &Path, args: &EngineArgs) -> Result<Opened, Failure> {
        if !data_dir.join("log").is_dir() && !data_dir.join("archive").is_dir() {
            return Err(Failure::new(
                UNAVAILABLE,
                format!(
                    "{} is no data directory of Quiver: there is no log in it",
                    data_dir.display()
                ),
            ));
        }
        args.memory_shares().check()?;
        let begun = Instant::now();
        loop {
            match Self::try_open(data_dir, args).await {
                Ok(idle) => return idle.map(|idle| Opened::Idle(Box::new(idle))),
                Err(StartError::Lock(LockError::Held { dir, pid })) => {
                    if let Some(remote) = Remote::running_on(data_dir) {
                        return Ok(Opened::Running(remote));
                    }
                    if begun.elapsed() > LOCK_WAIT {
                        return Err(held(LockError::Held { dir, pid }, data_dir, pid));
                    }
                    sleep(LOCK_RETRY).await;
                }
                Err(error) => return Err(start_failure(error)),
            }
        }
    }

    async fn try_open(
        data_dir: &Path,
        args: &EngineArgs,
    ) -> Result<Result<Self, Failure>, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (environment, archive) = environment(data_dir, clock);
        let options = args.options(data_dir, false);
        let recovered = recover(&options, environment, Arc::new(Metrics::default())).await?;
        Ok(match archive.get().cloned() {
            Some(archive) => Ok(Self { recovered, archive }),
            None => Err(Failure::new(IO, "the archive was not opened")),
        })
    }

    /// What queries read.
    pub fn sources(&self) -> Sources {
        Sources {
            tables: self.recovered.tables().clone(),
            last_values: self.recovered.last_values().clone(),
            progress: self.recovered.progress().clone(),
            archive: self.archive.clone(),
        }
    }
}

/// Who keeps the directory locked, and what can be done.
fn held(error: LockError, data_dir: &Path, pid: Option<u32>) -> Failure {
    let process = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    let dir = data_dir.display();
    match Holder::of(pid) {
        Holder::Engine => Failure::new(
            UNAVAILABLE,
            format!("an engine{process} is starting or stopping on {dir}; ask again in a moment"),
        ),
        Holder::Verb(verb) => Failure::new(
            UNAVAILABLE,
            format!(
                "another quiver {verb}{process} is at work on {dir}, which one process at a time can open; ask again when it has ended, or start an engine, which answers many: quiver serve --data-dir {dir}"
            ),
        ),
        Holder::Gone | Holder::Other => start_failure(StartError::Lock(error)),
    }
}
