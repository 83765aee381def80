//! What the log promises, as sentences.

mod crash;
mod damage;
mod failures;
mod fixture;
mod model;
mod reading;
mod stores;
mod support;
