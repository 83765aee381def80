//! The archive: in memory, so it outlives the engine; slow; and a place to die at.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use quiver_hot::{
    Archive, ArchiveSnapshot, FlushError, FlushInput, MemoryArchive, OpenError, OpenedArchive,
};

use crate::{life::Life, seeded::Random};

/// At which side of a commit the engine dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    BeforeCommit,
    AfterCommit,
}

/// One incarnation's view of the archive.
#[derive(Debug)]
pub struct SimArchive {
    archive: MemoryArchive,
    life: Arc<Life>,
    random: Mutex<Random>,
    deaths: Arc<Mutex<VecDeque<Death>>>,
}

impl SimArchive {
    pub fn new(archive: MemoryArchive, life: Arc<Life>, seed: u64) -> Self {
        Self {
            archive,
            life,
            random: Mutex::new(Random::new(seed)),
            deaths: Arc::default(),
        }
    }

    /// Where deaths are planned: the next flush that has none takes it.
    pub fn deaths(&self) -> Arc<Mutex<VecDeque<Death>>> {
        self.deaths.clone()
    }

    async fn pause(&self) {
        let pause = self.random.lock().unwrap().millis(1, 150);
        tokio::time::sleep(pause).await;
    }
}

#[async_trait]
impl Archive for SimArchive {
    async fn open(&self) -> Result<OpenedArchive, OpenError> {
        self.archive.open().await
    }

    async fn flush(&self, input: FlushInput) -> Result<Arc<ArchiveSnapshot>, FlushError> {
        self.pause().await;
        let death = self.deaths.lock().unwrap().pop_front();
        if death == Some(Death::BeforeCommit) {
            self.life.end();
        }
        if self.life.is_over() {
            return pending().await;
        }
        let result = self.archive.flush(input).await;
        if death == Some(Death::AfterCommit) {
            self.life.end();
            return pending().await;
        }
        self.pause().await;
        result
    }
}
