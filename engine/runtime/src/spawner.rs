//! Where work runs. Production gives shards threads of their own; a simulation runs everything on
//! one thread, so that a seed decides all.

use std::{future::Future, pin::Pin, thread};

use actix::{Arbiter, ArbiterHandle};
use quiver_model::ShardId;

use crate::commit::CommitLoop;

/// A future that may move between threads.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Decides on which threads the engine's parts run.
pub trait Spawner: Send + Sync {
    /// The arbiter on which a shard and its actors live.
    fn shard_arbiter(&self, shard: ShardId) -> ArbiterHandle;
    /// Runs the commit loop until it ends.
    fn spawn_commit(&self, commit: CommitLoop) -> std::io::Result<()>;
    /// Runs I/O: the QUIC endpoint, its connections before they are identified, timers.
    fn spawn_io(&self, future: BoxFuture);
    /// Runs flushes and checkpoints, which may use a core for long.
    fn spawn_background(&self, future: BoxFuture);
    /// Runs the graph, which uses a core for as long as there are rows.
    fn spawn_analysis(&self, future: BoxFuture) -> std::io::Result<()>;
}

/// Threads of the machine: an arbiter per shard, a thread for commits, a runtime for QUIC and one
/// for background work.
pub struct ThreadSpawner {
    arbiters: Vec<Arbiter>,
    io: tokio::runtime::Handle,
    background: tokio::runtime::Handle,
}

impl ThreadSpawner {
    /// Starts the arbiters of `shard_count` shards. Must be called on a thread that runs an actix
    /// system. `io` and `background` must be multi-threaded runtimes that outlive the engine.
    pub fn new(
        shard_count: u16,
        io: tokio::runtime::Handle,
        background: tokio::runtime::Handle,
    ) -> Self {
        let arbiters = (0..shard_count).map(|_| Arbiter::new()).collect();
        Self {
            arbiters,
            io,
            background,
        }
    }

    /// Stops the arbiters and waits for their threads.
    pub fn join(self) {
        for arbiter in self.arbiters {
            arbiter.stop();
            // A panicked arbiter has already been reported by its panic message.
            let _ = arbiter.join();
        }
    }
}

impl Spawner for ThreadSpawner {
    fn shard_arbiter(&self, shard: ShardId) -> ArbiterHandle {
        self.arbiters[usize::from(shard.get()) % self.arbiters.len()].handle()
    }

    fn spawn_commit(&self, commit: CommitLoop) -> std::io::Result<()> {
        thread::Builder::new()
            .name("quiver-commit".into())
            .spawn(move || commit.run_blocking())?;
        Ok(())
    }

    fn spawn_io(&self, future: BoxFuture) {
        self.io.spawn(future);
    }

    fn spawn_background(&self, future: BoxFuture) {
        self.background.spawn(future);
    }

    fn spawn_analysis(&self, future: BoxFuture) -> std::io::Result<()> {
        let background = self.background.clone();
        // Polled on a thread of its own; timers and wakes are the runtime's.
        thread::Builder::new()
            .name("quiver-analyze".into())
            .spawn(move || background.block_on(future))?;
        Ok(())
    }
}

/// Everything on the thread that calls, for simulations: needs an actix system on it.
#[derive(Debug, Default, Clone, Copy)]
pub struct LocalSpawner;

impl Spawner for LocalSpawner {
    fn shard_arbiter(&self, _: ShardId) -> ArbiterHandle {
        Arbiter::current()
    }

    fn spawn_commit(&self, commit: CommitLoop) -> std::io::Result<()> {
        actix_rt::spawn(commit.run());
        Ok(())
    }

    fn spawn_io(&self, future: BoxFuture) {
        actix_rt::spawn(future);
    }

    fn spawn_background(&self, future: BoxFuture) {
        actix_rt::spawn(future);
    }

    fn spawn_analysis(&self, future: BoxFuture) -> std::io::Result<()> {
        actix_rt::spawn(future);
        Ok(())
    }
}
