//! libFuzzer around [`quiver_fuzz::log_replay`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quiver_fuzz::log_replay(data));
