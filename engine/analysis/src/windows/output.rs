//! What comes out: results of windows, and rows that were late.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray, UInt32Array,
    builder::StringBuilder,
};

use crate::{
    cells::{Blocks, Layout, Results},
    spec::Key,
    time::LateReason,
    windows::keys::read_text,
};

/// A row that is not in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Its number among the rows that were pushed.
    pub row: u32,
    /// The kind of windows: its number in the definition.
    pub kind: u32,
    /// Why.
    pub reason: LateReason,
    /// Where the window that it missed starts. Of hopping windows that is the last one it missed;
    /// of sessions, the row's time; of sliding and state windows, too.
    pub start: i64,
    /// Where that window ends: of sessions, a gap later; of sliding and state windows, a
    /// microsecond.
    pub end: i64,
}

/// Collects results. Rows are in the order in which windows closed; of those that closed at once,
/// by end, kind, start and key. This order depends on rows, ticks and their order only.
#[derive(Debug)]
pub struct Output {
    key: Key,
    pub(crate) starts: Vec<i64>,
    pub(crate) ends: Vec<i64>,
    pub(crate) kinds: Vec<u32>,
    pub(crate) revisions: Vec<u32>,
    texts: Vec<StringBuilder>,
    pub(crate) results: Results,
    /// The late rows of what was pushed, by row and kind.
    pub late: Vec<Late>,
}

/// Results of windows, a row each.
#[derive(Clone, Debug)]
pub struct Closed {
    /// `window_start`, microseconds UTC.
    pub start: TimestampMicrosecondArray,
    /// `window_end`, which is not in the window.
    pub end: TimestampMicrosecondArray,
    /// The kind of window: its number in the definition.
    pub kind: UInt32Array,
    /// 0 for the first result of a window, 1 for the next, …
    pub revision: Int64Array,
    /// The device, if windows are of one.
    pub device: Option<StringArray>,
    /// The key columns.
    pub keys: Vec<StringArray>,
    /// The aggregates' results, in the order of the definition.
    pub results: Vec<ArrayRef>,
}

impl Output {
    pub(crate) fn new(key: Key, layout: &Layout) -> Self {
        Self {
            key,
            starts: Vec::new(),
            ends: Vec::new(),
            kinds: Vec::new(),
            revisions: Vec::new(),
            texts: (0..key.texts()).map(|_| StringBuilder::new()).collect(),
            results: Results::new(layout),
            late: Vec::new(),
        }
    }

    /// How many results there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is neither a result nor a late row.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.late.is_empty()
    }

    /// Takes the results out.
    pub fn take(&mut self) -> Closed {
        let times = |times: &mut Vec<i64>| {
            TimestampMicrosecondArray::from(std::mem::take(times)).with_timezone("UTC")
        };
        let mut texts = self.texts.iter_mut().map(StringBuilder::finish);
        let device = if self.key.has_device() {
            texts.next()
        } else {
            None
        };
        let revisions = std::mem::take(&mut self.revisions).into_iter();
        Closed {
            start: times(&mut self.starts),
            end: times(&mut self.ends),
            kind: std::mem::take(&mut self.kinds).into(),
            revision: revisions.map(i64::from).collect::<Vec<_>>().into(),
            device,
            keys: texts.collect(),
            results: self.results.finish(),
        }
    }

    /// Takes the late rows out.
    pub fn take_late(&mut self) -> Vec<Late> {
        std::mem::take(&mut self.late)
    }

    /// Adds a result; `key` is as the table of keys has it.
    pub(crate) fn push(&mut self, bounds: (i64, i64), kind: usize, revision: u32, key: &[u8]) {
        self.starts.push(bounds.0);
        self.ends.push(bounds.1);
        // There are at most a thousand kinds.
        self.kinds.push(u32::try_from(kind).unwrap_or(u32::MAX));
        self.revisions.push(revision);
        if self.key == Key::Device {
            if let Some(device) = self.texts.first_mut() {
                device.append_option(std::str::from_utf8(key).ok());
            }
            return;
        }
        let mut key = key;
        for column in &mut self.texts {
            column.append_option(read_text(&mut key).flatten());
        }
    }

    pub(crate) fn push_results(&mut self, blocks: &Blocks, block: u32, end: i64) {
        self.results.push(blocks, block, end);
    }
}

impl Closed {
    /// How many results there are.
    pub fn len(&self) -> usize {
        self.kind.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All columns in their order: device, keys, start, end, results. Kind and revision are not
    /// among them.
    pub fn columns(&self) -> Vec<ArrayRef> {
        let device = self.device.iter().cloned();
        let mut columns: Vec<ArrayRef> = device
            .chain(self.keys.iter().cloned())
            .map(|texts| Arc::new(texts) as ArrayRef)
            .collect();
        columns.push(Arc::new(self.start.clone()));
        columns.push(Arc::new(self.end.clone()));
        columns.extend(self.results.iter().cloned());
        columns
    }
}
