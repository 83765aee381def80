//! How much each connection may have under way unread: its part of what all connections may.
//!
//! QUIC lets a peer send as much as it was promised, whether anybody reads it or not. A fixed
//! promise is either too little for one busy gateway or too much for ten thousand devices; so it
//! shrinks as connections become more, and grows as they become fewer.

use std::cell::Cell;

use quinn::{Connection, VarInt};

/// Promised before a connection is identified, and never less than this: a `Hello` fits, and small
/// batches flow.
pub(crate) const WINDOW_MIN: u32 = 32 << 10;
/// Never more than this: 64 MB/s over a path of 30 ms.
pub(crate) const WINDOW_MAX: u32 = 2 << 20;

/// The receive window of one connection.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    connection: Connection,
    present: Cell<u32>,
}

impl ReceiveWindow {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            present: Cell::new(WINDOW_MIN),
        }
    }

    /// Fits it to a part of `total` bytes among `connections`.
    pub(crate) fn fit(&self, total: usize, connections: i64) {
        let window = window(total, connections);
        if self.present.replace(window) != window {
            self.connection.set_receive_window(VarInt::from_u32(window));
        }
    }
}

/// A power of two, so that it seldom changes.
fn window(total: usize, connections: i64) -> u32 {
    let connections = usize::try_from(connections).unwrap_or(0).max(1);
    let part = u32::try_from(total / connections).unwrap_or(u32::MAX);
    let rounded = part.checked_ilog2().map_or(0, |power| 1 << power);
    rounded.clamp(WINDOW_MIN, WINDOW_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_windows_together_are_what_there_is_until_each_is_the_least() {
        let total = 128 << 20;
        assert_eq!(window(total, 0), WINDOW_MAX);
        assert_eq!(window(total, 64), WINDOW_MAX);
        for connections in [65, 100, 1_000, 4_096] {
            let all = window(total, connections) as usize * connections as usize;
            assert!(all <= total && all > total / 2, "{connections}: {all}");
        }
        assert_eq!(window(total, 10_000), WINDOW_MIN);
        assert_eq!(window(0, 1), WINDOW_MIN);
    }
}
