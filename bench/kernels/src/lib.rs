//! The hot parts of the engine, each by itself, over the same data: what the Criterion benches
//! time, what the instruction counts count, and what the ordinary tests run once so that none rots.
//!
//! ```text
//! all() ─▶ Entry: a name and how to set it up ─▶ Kernel: prepare (not measured), run (measured)
//!            ▲ benches/kernels.rs (wall time)   ▲ examples/one_kernel.rs (instructions)   ▲ tests/once.rs
//! ```
//!
//! A kernel calls the code of the engine's crates and holds no copy of any of it. Some have a twin,
//! `…/by_hand`: a loop written for that one case, which is their limit.

mod actor;
mod compact;
pub mod data;
mod decode;
mod flush;
mod log;
mod memory_vfs;
mod memtable;
mod normalise;
#[cfg(feature = "expressions")]
mod predicate;
#[cfg(feature = "queries")]
mod query;
mod route;
mod windows;

pub use memory_vfs::MemoryVfs;

/// Why a kernel could not be set up or run.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A part of the engine, ready to be measured.
pub trait Kernel {
    /// Makes the input of the next run. Not measured.
    ///
    /// # Errors
    /// If the input cannot be made.
    fn prepare(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// What is measured. Returns how many items it saw, which must be the entry's.
    ///
    /// # Errors
    /// If the engine refuses what it was given.
    fn run(&mut self) -> Result<u64, Fault>;
}

/// A kernel that is not set up yet.
pub struct Entry {
    /// What part of the engine it is of.
    pub group: &'static str,
    /// Its name within the group.
    pub name: String,
    /// What one run goes through.
    pub items: u64,
    /// Whether a run waits for a disk, so that a bench must run it less often.
    pub is_slow: bool,
    setup: Box<dyn Fn() -> Result<Box<dyn Kernel>, Fault>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.full_name()).finish()
    }
}

impl Entry {
    fn new<K: Kernel + 'static>(
        group: &'static str,
        name: impl Into<String>,
        items: u64,
        setup: impl Fn() -> Result<K, Fault> + 'static,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            items,
            is_slow: false,
            setup: Box::new(move || Ok(Box::new(setup()?))),
        }
    }

    fn slow(self) -> Self {
        Self {
            is_slow: true,
            ..self
        }
    }

    /// `group/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Sets it up.
    ///
    /// # Errors
    /// If its data cannot be made.
    pub fn setup(&self) -> Result<Box<dyn Kernel>, Fault> {
        (self.setup)()
    }
}

/// Every kernel there is.
pub fn all() -> Vec<Entry> {
    [
        decode::entries(),
        compact::entries(),
        normalise::entries(),
        route::entries(),
        #[cfg(feature = "expressions")]
        predicate::entries(),
        actor::entries(),
        log::entries(),
        memtable::entries(),
        flush::entries(),
        windows::entries(),
        #[cfg(feature = "queries")]
        query::entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
