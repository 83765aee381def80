//! temporary
use crate::{
    config::WindowConfig,
    execute::{Attributes, Entries, Rows},
    graph::Columns,
};
use arrow_array::RecordBatch;
#[derive(Default)]
pub(crate) struct Pushed {
    pub(crate) new: Option<RecordBatch>,
    pub(crate) late: Vec<Rows>,
    pub(crate) errors: Vec<Rows>,
}
pub(crate) struct WindowNode;
impl WindowNode {
    pub(crate) fn new(_: &str, _: &WindowConfig, _: &[Columns]) -> Self {
        Self
    }
    pub(crate) fn tick(&mut self, _: i64) -> Option<RecordBatch> {
        None
    }
    pub(crate) fn push(&mut self, _: Vec<(usize, Rows)>, _: i64, _: &Attributes) -> Pushed {
        Pushed::default()
    }
    pub(crate) fn changed(&mut self, _: &mut Entries) {}
    pub(crate) fn restore(&mut self, _: &[u8], _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}
