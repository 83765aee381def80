//! temporary
use crate::{
    config::MissingConfig,
    execute::{Entries, Rows},
};
use arrow_array::RecordBatch;
pub(crate) struct MissingNode;
impl MissingNode {
    pub(crate) fn new(_: &MissingConfig) -> Self {
        Self
    }
    pub(crate) fn waits_for_time(&self) -> bool {
        false
    }
    pub(crate) fn tick(&mut self, _: i64) -> Option<RecordBatch> {
        None
    }
    pub(crate) fn push(&mut self, _: Vec<Rows>, _: i64) -> Option<RecordBatch> {
        None
    }
    pub(crate) fn changed(&mut self, _: bool, _: &mut Entries) {}
    pub(crate) fn restore(&mut self, _: &Entries) -> Result<(), String> {
        Ok(())
    }
}
