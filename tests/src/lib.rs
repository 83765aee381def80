//! Tests of Quiver as a whole. What they need is beside each of them:
//!
//! - `simulation/`: engine and clients on one thread, from one seed.
//! - `acceptance/`: the built binary, over real sockets and files, with real peers.
