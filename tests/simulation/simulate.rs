//! Runs a simulation on this thread.

use std::future::Future;

use crate::watch::{Watch, start_clock};

/// Runs `scenario` under a paused clock, on an actix system of this thread alone. Afterwards
/// nothing may have panicked, and the engine may not have reported anything impossible.
pub fn simulate<T>(scenario: impl Future<Output = T>) -> T {
    let watch = Watch::new();
    let system = actix_rt::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    });
    let result = system.block_on(async {
        start_clock();
        scenario.await
    });
    watch.check();
    result
}
