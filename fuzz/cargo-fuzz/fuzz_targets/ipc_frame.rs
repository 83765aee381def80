//! libFuzzer around [`quiver_fuzz::ipc_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quiver_fuzz::ipc_frame(data));
