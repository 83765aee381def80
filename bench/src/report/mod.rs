//! How a result is told: live on a terminal, as a table at the end, as a page of HTML.

mod html;
mod live;
mod numbers;
mod svg;
mod table;

pub(crate) use html::page;
pub(crate) use live::Live;
pub(crate) use numbers::{grouped, millis, si};
pub(crate) use table::table;
