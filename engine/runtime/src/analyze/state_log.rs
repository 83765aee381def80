//! What nodes remember, on disk: a log of its own in which every entry of a node is written when it
//! has changed.
//!
//! ```text
//! group: portion, portion, …, last portion      of one checkpoint, as of one position of the log
//! portion: flags u8, position u64, record time i64, then nodes:
//!          u16 length, name, u64 generation, u32 entries: u32 length, key, u8 is there, u32 length, value
//! ```
//!
//! A checkpoint counts when its last portion is there. One that begins anew has everything; when it
//! is written, what was before it is trimmed. A begins-anew checkpoint is due when the log is several
//! times as large as the last one was.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use quiver_log::{Log, LogOptions, Record, RecordKind, RecoveryFloor, Vfs};
use quiver_model::{Entropy, Position, Timestamp};

use super::OperatorState;

/// Bytes of a portion, about.
const PORTION: usize = 1 << 20;
/// The first portion of a checkpoint that begins anew.
const ANEW: u8 = 1;
/// The last portion of a checkpoint.
const LAST: u8 = 2;
/// Least size of the log, in bytes, at which it begins anew.
const ANEW_BYTES_MIN: u64 = 64 << 20;
/// The log begins anew when it is so many times what it had in all then.
const ANEW_FACTOR: u64 = 4;

/// What nodes remember cannot be kept, or not be read.
#[derive(Debug, thiserror::Error)]
pub enum StateLogError {
    /// The log of states cannot be opened.
    #[error(transparent)]
    Open(#[from] quiver_log::OpenError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] quiver_log::ReplayError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] quiver_log::AppendError),
    /// Something else with its files.
    #[error("the graph's state: {0}")]
    Io(#[from] std::io::Error),
    /// What it holds is not what it should be.
    #[error("the graph's state in {path} is damaged at position {position}: {problem}; move the directory away to begin without it", path = .path.display())]
    Damaged {
        /// Its directory.
        path: std::path::PathBuf,
        /// Where.
        position: Position,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Everything that is kept, as of a position of the engine's log.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptState {
    /// The graph goes on behind this position.
    pub(crate) position: Position,
    /// Record time at that position.
    pub(crate) time: Timestamp,
    /// What nodes remember.
    pub(crate) nodes: Vec<OperatorState>,
    /// Of which graph.
    pub(crate) graph: KeptGraph,
}

/// What is kept of the graph itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptGraph {
    /// Name of the graph that the log was told of last.
    pub(crate) told: Option<String>,
    /// Nodes that put out new rows.
    pub(crate) nodes: BTreeMap<String, KeptNode>,
}

/// What is kept of how a node is defined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptNode {
    /// Names everything that its rows depend on, back to the log.
    pub(crate) lineage: u64,
    /// It sees nothing up to this position.
    pub(crate) held: Position,
}

/// Under this name, which no node can have, the log of states has the graph itself.
const GRAPH: &str = "the graph";
/// The key of the name of the graph that was told of.
const TOLD: &[u8] = b" told";

impl KeptGraph {
    fn entries(&self) -> OperatorState {
        let mut entries: BTreeMap<Box<[u8]>, Option<Box<[u8]>>> = BTreeMap::new();
        if let Some(told) = &self.told {
            entries.insert(TOLD.into(), Some(told.as_bytes().into()));
        }
        for (name, node) in &self.nodes {
            let value = [node.lineage.to_le_bytes(), node.held.get().to_le_bytes()].concat();
            entries.insert(name.as_bytes().into(), Some(value.into()));
        }
        OperatorState {
            node: GRAPH.to_owned(),
            generation: 0,
            entries,
        }
    }

    /// Takes what is kept of the graph out of what is kept of nodes. What it does not know is of a
    /// later version, and left out.
    fn take(nodes: &mut Nodes) -> Self {
        let mut graph = Self::default();
        let Some(state) = nodes.remove(&(GRAPH.to_owned(), 0)) else {
            return graph;
        };
        for (key, value) in state.entries {
            let (Ok(key), Some(value)) = (std::str::from_utf8(&key), value) else {
                continue;
            };
            if key.as_bytes() == TOLD {
                graph.told = String::from_utf8(value.into_vec()).ok();
                continue;
            }
            let mut reader = Reader(&value);
            if let (Ok(lineage), Ok(held)) = (reader.array(), reader.array()) {
                let node = KeptNode {
                    lineage: u64::from_le_bytes(lineage),
                    held: Position(u64::from_le_bytes(held)),
                };
                graph.nodes.insert(key.to_owned(), node);
            }
        }
        graph
    }
}

/// The log of states.
pub(crate) struct StateLog {
    log: Log,
    /// Bytes when it last began anew.
    base: u64,
    written: u64,
}

type Nodes = BTreeMap<(String, u64), OperatorState>;

impl StateLog {
    /// Opens the log in `dir`; what it holds, if anything was kept.
    pub(crate) fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Option<KeptState>), StateLogError> {
        let options = LogOptions {
            segment_bytes: 16 << 20,
            retention_bytes: 0,
            ..LogOptions::default()
        };
        let floor = RecoveryFloor {
            at_least: Position(0),
        };
        let (log, _) = Log::open(vfs, dir, options, entropy, floor)?;
        let mut kept: Option<KeptState> = None;
        let mut nodes = Nodes::new();
        let mut portions: Vec<Portion> = Vec::new();
        let (mut base, mut written) = (0, 0);
        for record in log.replay(Position(0))? {
            let record = record?;
            let damaged = |problem| StateLogError::Damaged {
                path: dir.to_owned(),
                position: record.position,
                problem,
            };
            let bytes = record.record.payload.len() as u64;
            let portion = Portion::read(&record.record.payload).map_err(damaged)?;
            if portion.flags & ANEW != 0 {
                portions.clear();
            }
            written += bytes;
            let is_last = portion.flags & LAST != 0;
            portions.push(portion);
            if !is_last {
                continue;
            }
            for portion in portions.drain(..) {
                if portion.flags & ANEW != 0 {
                    nodes.clear();
                    written = bytes;
                }
                kept = Some(KeptState {
                    position: portion.position,
                    time: portion.time,
                    ..KeptState::default()
                });
                for changed in portion.nodes {
                    apply(&mut nodes, changed);
                }
            }
            base = base.max(1);
        }
        if let Some(kept) = &mut kept {
            kept.graph = KeptGraph::take(&mut nodes);
            kept.nodes = nodes.into_values().collect();
            base = kept.nodes.iter().map(bytes_of).sum();
        }
        Ok((Self { log, base, written }, kept))
    }

    /// Whether the next checkpoint is to begin anew.
    pub(crate) fn is_large(&self) -> bool {
        self.written > ANEW_BYTES_MIN.max(self.base.saturating_mul(ANEW_FACTOR))
    }

    /// Keeps a checkpoint: what has changed since the last one, or everything.
    pub(crate) fn keep(&mut self, state: &KeptState, is_all: bool) -> Result<(), StateLogError> {
        let first = self.log.committed_end();
        let mut portions = written(state);
        let count = portions.len();
        let mut total = 0;
        for (number, portion) in portions.iter_mut().enumerate() {
            if let Some(flags) = portion.first_mut() {
                *flags = if number == 0 && is_all { ANEW } else { 0 }
                    | if number + 1 == count { LAST } else { 0 };
            }
            total += portion.len() as u64;
        }
        for portion in portions {
            let mut record = Record::control(RecordKind::Data, state.time);
            record.payload = Bytes::from(portion);
            self.log.append_group(&mut [record])?;
        }
        if is_all {
            self.log.trim(first)?;
            self.base = total;
            self.written = 0;
        }
        self.written += total;
        Ok(())
    }
}

fn bytes_of(state: &OperatorState) -> u64 {
    let entries = state.entries.iter();
    entries
        .map(|(key, value)| (key.len() + value.as_ref().map_or(0, |value| value.len()) + 9) as u64)
        .sum()
}

fn apply(nodes: &mut Nodes, changed: OperatorState) {
    let key = (changed.node.clone(), changed.generation);
    let node = nodes.entry(key).or_insert_with(|| OperatorState {
        node: changed.node.clone(),
        generation: changed.generation,
        entries: BTreeMap::new(),
    });
    for (key, value) in changed.entries {
        match value {
            Some(value) => node.entries.insert(key, Some(value)),
            None => node.entries.remove(&key),
        };
    }
}

struct Portion {
    flags: u8,
    position: Position,
    time: Timestamp,
    nodes: Vec<OperatorState>,
}

/// The portions of a checkpoint, at least one; their flags are still 0.
fn written(state: &KeptState) -> Vec<Vec<u8>> {
    let begin = || {
        let mut portion = vec![0_u8];
        portion.extend(state.position.get().to_le_bytes());
        portion.extend(state.time.as_micros().to_le_bytes());
        portion
    };
    let mut portions = Vec::new();
    let mut portion = begin();
    let graph = state.graph.entries();
    for node in state.nodes.iter().chain([&graph]) {
        let mut entries = node.entries.iter().peekable();
        while entries.peek().is_some() {
            let name = node.node.as_bytes();
            portion.extend((name.len() as u16).to_le_bytes());
            portion.extend(name);
            portion.extend(node.generation.to_le_bytes());
            let count_at = portion.len();
            portion.extend(0_u32.to_le_bytes());
            let mut count = 0_u32;
            while portion.len() < PORTION
                && let Some((key, value)) = entries.next()
            {
                portion.extend((key.len() as u32).to_le_bytes());
                portion.extend(key.iter());
                let value = value.as_deref();
                portion.push(u8::from(value.is_some()));
                let value = value.unwrap_or_default();
                portion.extend((value.len() as u32).to_le_bytes());
                portion.extend(value);
                count += 1;
            }
            if let Some(slot) = portion.get_mut(count_at..count_at + 4) {
                slot.copy_from_slice(&count.to_le_bytes());
            }
            if portion.len() >= PORTION {
                portions.push(std::mem::replace(&mut portion, begin()));
            }
        }
    }
    portions.push(portion);
    portions
}

impl Portion {
    fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader(bytes);
        let mut portion = Self {
            flags: reader.array::<1>()?[0],
            position: Position(u64::from_le_bytes(reader.array()?)),
            time: Timestamp(i64::from_le_bytes(reader.array()?)),
            nodes: Vec::new(),
        };
        while !reader.0.is_empty() {
            let length = usize::from(u16::from_le_bytes(reader.array()?));
            let name = std::str::from_utf8(reader.take(length)?).map_err(|_| "a name")?;
            let mut node = OperatorState {
                node: name.to_owned(),
                generation: u64::from_le_bytes(reader.array()?),
                entries: BTreeMap::new(),
            };
            for _ in 0..u32::from_le_bytes(reader.array()?) {
                let key = reader.bytes()?;
                let is_there = reader.array::<1>()?[0] != 0;
                let value = reader.bytes()?;
                node.entries.insert(key, is_there.then_some(value));
            }
            portion.nodes.push(node);
        }
        Ok(portion)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it ends too soon")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("it ends too soon")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn bytes(&mut self) -> Result<Box<[u8]>, &'static str> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        Ok(self.take(length)?.into())
    }
}

#[cfg(test)]
mod tests {
    use quiver_log::SimVfs;
    use quiver_model::OsEntropy;

    use super::*;

    fn state(node: &str, entries: &[(&str, Option<&str>)]) -> OperatorState {
        OperatorState {
            node: node.to_owned(),
            generation: 7,
            entries: entries
                .iter()
                .map(|(key, value)| {
                    let value = value.map(|value| value.as_bytes().into());
                    (key.as_bytes().into(), value)
                })
                .collect(),
        }
    }

    fn graph(position: u64) -> KeptGraph {
        let node = KeptNode {
            lineage: position + 1,
            held: Position(position + 2),
        };
        KeptGraph {
            told: Some(format!("graph {position}")),
            nodes: BTreeMap::from([("a".to_owned(), node)]),
        }
    }

    fn kept(position: u64, nodes: Vec<OperatorState>) -> KeptState {
        KeptState {
            position: Position(position),
            time: Timestamp(position as i64),
            nodes,
            graph: graph(position),
        }
    }

    #[test]
    fn what_was_kept_last_is_there_after_a_start() {
        let vfs: Arc<dyn Vfs> = Arc::new(SimVfs::new(1));
        let dir = Path::new("/state");
        let open = || StateLog::open(vfs.clone(), dir, &OsEntropy).unwrap();
        let (mut log, none) = open();
        assert!(none.is_none());
        let large = "v".repeat(PORTION);
        let first = kept(
            5,
            vec![state("a", &[("x", Some("1")), ("y", Some(&large))])],
        );
        log.keep(&first, false).unwrap();
        let second = kept(
            9,
            vec![
                state("a", &[("x", None), ("z", Some("3"))]),
                state("b", &[("k", Some(""))]),
            ],
        );
        log.keep(&second, false).unwrap();
        drop(log);
        let (mut log, found) = open();
        let found = found.unwrap();
        assert_eq!((found.position, found.time), (Position(9), Timestamp(9)));
        assert_eq!(found.graph, graph(9));
        assert_eq!(
            found.nodes,
            [
                state("a", &[("y", Some(&large)), ("z", Some("3"))]),
                state("b", &[("k", Some(""))])
            ]
        );
        log.keep(&kept(12, vec![state("b", &[("k", Some("2"))])]), true)
            .unwrap();
        drop(log);
        let (_, found) = open();
        assert_eq!(found.unwrap().nodes, [state("b", &[("k", Some("2"))])]);
    }

    #[test]
    fn bytes_that_are_none_of_a_portion_are_refused() {
        let mut state = kept(5, vec![state("a", &[("x", Some("1"))])]);
        state.graph = KeptGraph::default();
        let good = written(&state).remove(0);
        assert!(Portion::read(&good).is_ok());
        for end in (0..good.len()).filter(|end| *end != 17) {
            assert!(Portion::read(&good[..end]).is_err(), "{end}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = Portion::read(&bad);
        }
    }
}
