//! The server's side as the harness sees it: a process of its own that it may start, and its HTTP
//! door, for metrics, enrolment and the audit.

mod child;
mod http;

pub(crate) use child::Child;
pub use http::ServerSample;
pub(crate) use http::{Enrolment, Http};
