//! libFuzzer around [`quiver_fuzz::control_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quiver_fuzz::control_frame(data));
