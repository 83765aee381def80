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

/// What becomes of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It fails, and nothing is committed.
    Fails,
    /// It is committed, and reports that it does not know.
    CommitsAndFails,
    /// It never returns, and nothing is committed.
    Hangs,
    /// It is committed, and never returns.
    CommitsAndHangs,
    /// The engine dies before the commit.
    Dies,
    /// The engine dies when the commit is made, before it knows.
    CommitsAndDies,
}

/// One incarnation's view of the archive.
#[derive(Debug)]
pub struct SimArchive {
    archive: MemoryArchive,
    life: Arc<Life>,
    random: Mutex<Random>,
    fates: Arc<Mutex<VecDeque<Fate>>>,
}

impl SimArchive {
    pub fn new(archive: MemoryArchive, life: Arc<Life>, seed: u64) -> Self {
        Self {
            archive,
            life,
            random: Mutex::new(Random::new(seed)),
            fates: Arc::default(),
        }
    }

    /// What becomes of the next flushes; all after them succeed.
    pub fn fates(&self) -> Arc<Mutex<VecDeque<Fate>>> {
        self.fates.clone()
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
        let fate = self.fates.lock().unwrap().pop_front();
        let (stream, barrier) = (input.stream.clone(), input.barrier);
        let source = "simulated failure".into();
        match fate {
            Some(Fate::Fails) => {
                return Err(FlushError::NotCommitted {
                    stream,
                    barrier,
                    source,
                });
            }
            Some(Fate::Hangs) => return pending().await,
            Some(Fate::Dies) => self.life.end(),
            _ => {}
        }
        if self.life.is_over() {
            return pending().await;
        }
        let result = self.archive.flush(input).await;
        match fate {
            Some(Fate::CommitsAndFails) => {
                return Err(FlushError::Unknown {
                    stream,
                    barrier,
                    source,
                });
            }
            Some(Fate::CommitsAndHangs) => return pending().await,
            Some(Fate::CommitsAndDies) => {
                self.life.end();
                return pending().await;
            }
            _ => {}
        }
        self.pause().await;
        result
    }
}
