//! The allocator of our programs, and how long it keeps memory that was freed.
//!
//! Rows live for seconds: received, held until they are flushed, freed all at once. Memory that the
//! allocator gives back to the operating system after a second, as mimalloc does by itself, comes
//! back a moment later, page by page, each a fault and zeroed: a tenth of the processor time of
//! ingest. So it is kept for longer than a flush lasts, and given back when the load is over.

use std::ffi::c_long;

pub use mimalloc::MiMalloc;

/// How long freed memory is kept, in milliseconds.
const KEPT_MS: c_long = 10_000;
/// The same while the program takes nearly all the memory that it may.
const KEPT_NEAR_CAP_MS: c_long = 100;

/// `mi_option_purge_delay` of mimalloc 3, whose binding does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Has the allocator keep freed memory for ten seconds, unless the environment variable
/// `MIMALLOC_PURGE_DELAY` (milliseconds) says otherwise. Call it first in `main`.
pub fn keep_freed_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        set_purge_delay(KEPT_MS);
    }
}

/// Gives freed memory back to the operating system: what there is, and from now on what comes, after
/// [`KEPT_NEAR_CAP_MS`], until [`keep_freed_memory`] is called again.
pub fn give_back_freed_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        set_purge_delay(KEPT_NEAR_CAP_MS);
    }
    #[expect(
        unsafe_code,
        reason = "the allocator is C, and this has no safe binding"
    )]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

fn set_purge_delay(milliseconds: c_long) {
    #[expect(
        unsafe_code,
        reason = "the allocator is C, and its options have no safe binding"
    )]
    // SAFETY: the option exists in the version that is linked, which the test below asks, and takes
    // any number; setting it has no other precondition.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: MiMalloc = MiMalloc;

    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reading an option has no precondition.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // The default of no other option: an update that moves it is noticed here.
        assert_eq!(get(), 1_000);
        keep_freed_memory();
        assert_eq!(get(), KEPT_MS);
        give_back_freed_memory();
        assert_eq!(get(), KEPT_NEAR_CAP_MS);
    }
}
