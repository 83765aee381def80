//! A data directory that no engine is running on: recovered, read, and left as it was found.

use std::{path::Path, sync::Arc};

use quiver_archive::DeltaArchive;
use quiver_model::{Clock, SystemClock};
use quiver_runtime::{Metrics, Recovered, recover};

use crate::{
    exit::{Failure, IO, UNAVAILABLE},
    node::{environment, start_failure},
    settings::EngineArgs,
    sources::Sources,
};

/// An idle data directory, locked for as long as this lives.
pub struct Idle {
    /// Its state.
    pub recovered: Recovered,
    /// Its archive.
    pub archive: Arc<DeltaArchive>,
}

impl Idle {
    /// Recovers the directory.
    pub async fn open(data_dir: &Path, args: &EngineArgs) -> Result<Self, Failure> {
        if !data_dir.join("log").is_dir() && !data_dir.join("archive").is_dir() {
            return Err(Failure::new(
                UNAVAILABLE,
                format!(
                    "{} is no data directory of Quiver: there is no log in it",
                    data_dir.display()
                ),
            ));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (environment, archive) = environment(data_dir, clock);
        let options = args.options(data_dir, false);
        let recovered = recover(&options, environment, Arc::new(Metrics::default()))
            .await
            .map_err(start_failure)?;
        let archive = archive
            .get()
            .cloned()
            .ok_or_else(|| Failure::new(IO, "the archive was not opened"))?;
        Ok(Self { recovered, archive })
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
