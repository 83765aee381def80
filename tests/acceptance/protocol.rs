//! The Python client, written from `docs/protocol.md` alone, against the engine.

use crate::{python, server::Server};

