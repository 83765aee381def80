//! Target `log_replay`: bytes that are said to be a segment of the log.

use quiver_log::replay_bytes;

/// Reads a segment as recovery does. Promises: no panic, no more memory than the input takes, and
/// what is read is in order: positions rise, and no record overlaps the next.
pub fn log_replay(input: &[u8]) {
    let image = replay_bytes(input);
    let mut end = 0;
    for committed in &image.records {
        let position = committed.position.get();
        assert!(position >= end, "records overlap at position {position}");
        end = committed.end().get();
        assert!(
            committed.record.payload.len() <= input.len(),
            "a payload is longer than the segment"
        );
    }
}
