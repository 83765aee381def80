//! The files of one version of a table, in order, as a list that versions share.
//!
//! ```text
//!            root ── up to 64 nodes, each with what its part holds in sum
//!           ╱    ╲
//!        node … node          a change copies the nodes on the way to it: at most 64 pointers
//!       ╱    ╲                for each level, and three levels are a quarter of a million files
//!    leaf … leaf ── up to 64 files
//! ```
//!
//! A list of pointers would be copied whole with each commit, and dropped whole with each version:
//! a commit would take longer the more files there are.

use std::sync::Arc;

use quiver_model::Position;

use crate::ArchiveFile;

/// Most entries of a node.
const WIDTH: usize = 64;
/// A node with fewer is joined with its neighbour, if both fit.
const JOINED: usize = WIDTH / 4;

/// Files in order of (day, least position, path). Cloning it is one reference more.
#[derive(Clone, Debug, Default)]
pub struct FileList {
    root: Child,
}

/// A part of a list, and what it holds.
#[derive(Clone, Debug, Default)]
struct Child {
    node: Arc<Node>,
    totals: Totals,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Vec<Arc<ArchiveFile>>),
    /// None of the children is empty, unless the whole list is.
    Inner(Vec<Child>),
}

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    files: usize,
    rows: u64,
    bytes: u64,
}

impl Totals {
    fn of(file: &ArchiveFile) -> Self {
        Self {
            files: 1,
            rows: file.rows,
            bytes: file.bytes,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// What files are ordered by; no two of a table are equal, as their paths differ.
type Order<'a> = (i32, Position, &'a str);

fn order(file: &ArchiveFile) -> Order<'_> {
    (file.day, file.min_position, &file.path)
}

impl Child {
    fn new(node: Node) -> Self {
        let totals = node.totals();
        Self {
            node: Arc::new(node),
            totals,
        }
    }

    /// Where the part begins; `None` if it is empty.
    fn begins(&self) -> Option<Order<'_>> {
        match &*self.node {
            Node::Leaf(files) => files.first().map(|file| order(file)),
            Node::Inner(children) => children.first().and_then(Self::begins),
        }
    }

    /// Inserts a file; what does not fit any more is in the result, to go behind this part.
    fn insert(&mut self, file: Arc<ArchiveFile>) -> Option<Self> {
        self.totals = self.totals.plus(Totals::of(&file));
        let behind = match Arc::make_mut(&mut self.node) {
            Node::Leaf(files) => {
                let at = files.partition_point(|known| order(known) <= order(&file));
                files.insert(at, file);
                split(files, at).map(Node::Leaf)
            }
            Node::Inner(children) => {
                let at = child_of(children, order(&file));
                let behind = children.get_mut(at).and_then(|child| child.insert(file));
                behind.and_then(|behind| {
                    children.insert(at + 1, behind);
                    split(children, at + 1).map(Node::Inner)
                })
            }
        };
        let behind = Self::new(behind?);
        self.totals = self.node.totals();
        Some(behind)
    }

    /// Removes a file that is there.
    fn remove(&mut self, file: Order<'_>) {
        match Arc::make_mut(&mut self.node) {
            Node::Leaf(files) => {
                if let Ok(at) = files.binary_search_by(|known| order(known).cmp(&file)) {
                    files.remove(at);
                }
            }
            Node::Inner(children) => {
                let at = child_of(children, file);
                if let Some(child) = children.get_mut(at) {
                    child.remove(file);
                }
                tidy(children, at);
            }
        }
        self.totals = self.node.totals();
    }
}

impl Node {
    fn totals(&self) -> Totals {
        match self {
            Self::Leaf(files) => files.iter().fold(Totals::default(), |totals, file| {
                totals.plus(Totals::of(file))
            }),
            Self::Inner(children) => children
                .iter()
                .fold(Totals::default(), |totals, child| totals.plus(child.totals)),
        }
    }

    fn entries(&self) -> usize {
        match self {
            Self::Leaf(files) => files.len(),
            Self::Inner(children) => children.len(),
        }
    }
}

/// The child in which a file is, or belongs.
fn child_of(children: &[Child], file: Order<'_>) -> usize {
    let begun = children.partition_point(|child| child.begins().is_some_and(|begin| begin <= file));
    begun.saturating_sub(1)
}

/// The entries that are too many after one was inserted at `at`. Files mostly come at the end:
/// what is before them then stays full.
fn split<T>(entries: &mut Vec<T>, at: usize) -> Option<Vec<T>> {
    if entries.len() <= WIDTH {
        return None;
    }
    let is_last = at + 1 == entries.len();
    Some(entries.split_off(if is_last { WIDTH } else { WIDTH / 2 }))
}

/// Removes the child at `at` if it is empty, and joins it with a neighbour if it is small.
fn tidy(children: &mut Vec<Child>, at: usize) {
    let entries =
        |children: &[Child], at: usize| children.get(at).map(|child| child.node.entries());
    let Some(child) = children.get(at) else {
        return;
    };
    if child.totals.files == 0 {
        // If it is the only one, this node is empty, too, and goes with the one above.
        if children.len() > 1 {
            children.remove(at);
        }
        return;
    }
    if child.node.entries() >= JOINED {
        return;
    }
    let left = if at + 1 < children.len() {
        at
    } else {
        at.saturating_sub(1)
    };
    let fits = match (entries(children, left), entries(children, left + 1)) {
        (Some(left), Some(right)) => left + right <= WIDTH - JOINED,
        _ => false,
    };
    if !fits {
        return;
    }
    let right = children.remove(left + 1);
    let Some(left) = children.get_mut(left) else {
        return;
    };
    match (
        Arc::make_mut(&mut left.node),
        Arc::unwrap_or_clone(right.node),
    ) {
        (Node::Leaf(left), Node::Leaf(right)) => left.extend(right),
        (Node::Inner(left), Node::Inner(right)) => left.extend(right),
        // All leaves are equally deep.
        _ => {}
    }
    left.totals = left.totals.plus(right.totals);
}

impl FileList {
    /// How many files there are.
    pub fn len(&self) -> usize {
        self.root.totals.files
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows in all of them.
    pub fn rows(&self) -> u64 {
        self.root.totals.rows
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.root.totals.bytes
    }

    /// The file at this place of the order.
    pub fn get(&self, mut index: usize) -> Option<&Arc<ArchiveFile>> {
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(files) => return files.get(index),
                Node::Inner(children) => {
                    node = &children
                        .iter()
                        .find(|child| {
                            let is_here = index < child.totals.files;
                            if !is_here {
                                index -= child.totals.files;
                            }
                            is_here
                        })?
                        .node;
                }
            }
        }
    }

    /// Whether this file is among them.
    pub fn contains(&self, file: &ArchiveFile) -> bool {
        let file = order(file);
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(files) => {
                    return files
                        .binary_search_by(|known| order(known).cmp(&file))
                        .is_ok();
                }
                Node::Inner(children) => match children.get(child_of(children, file)) {
                    Some(child) => node = &child.node,
                    None => return false,
                },
            }
        }
    }

    /// Inserts a file where it belongs. Other clones of the list stay as they are.
    pub fn insert(&mut self, file: Arc<ArchiveFile>) {
        if let Some(behind) = self.root.insert(file) {
            let before = std::mem::take(&mut self.root);
            self.root = Child::new(Node::Inner(vec![before, behind]));
        }
    }

    /// Removes a file; whether it was there. Other clones of the list stay as they are.
    pub fn remove(&mut self, file: &ArchiveFile) -> bool {
        // First, so that nothing is copied for nothing.
        if !self.contains(file) {
            return false;
        }
        self.root.remove(order(file));
        while let Node::Inner(children) = &*self.root.node
            && let [only] = children.as_slice()
        {
            self.root = only.clone();
        }
        true
    }

    /// The files, in order.
    pub fn iter(&self) -> Files<'_> {
        let mut files = Files {
            pending: Vec::new(),
            leaf: [].iter(),
            left: self.len(),
        };
        files.descend(&self.root.node);
        files
    }
}

impl FromIterator<Arc<ArchiveFile>> for FileList {
    fn from_iter<I: IntoIterator<Item = Arc<ArchiveFile>>>(files: I) -> Self {
        let mut list = Self::default();
        list.extend(files);
        list
    }
}

impl Extend<Arc<ArchiveFile>> for FileList {
    fn extend<I: IntoIterator<Item = Arc<ArchiveFile>>>(&mut self, files: I) {
        files.into_iter().for_each(|file| self.insert(file));
    }
}

impl PartialEq for FileList {
    fn eq(&self, other: &Self) -> bool {
        self.root.totals == other.root.totals && self.iter().eq(other.iter())
    }
}

impl<'a> IntoIterator for &'a FileList {
    type Item = &'a Arc<ArchiveFile>;
    type IntoIter = Files<'a>;

    fn into_iter(self) -> Files<'a> {
        self.iter()
    }
}

/// The files of a list, in order.
#[derive(Clone, Debug)]
pub struct Files<'a> {
    /// Parts that come behind `leaf`, the nearest last.
    pending: Vec<std::slice::Iter<'a, Child>>,
    leaf: std::slice::Iter<'a, Arc<ArchiveFile>>,
    left: usize,
}

impl<'a> Files<'a> {
    /// Goes to the first leaf of a node.
    fn descend(&mut self, mut node: &'a Node) {
        loop {
            match node {
                Node::Leaf(files) => {
                    self.leaf = files.iter();
                    return;
                }
                Node::Inner(children) => {
                    let mut children = children.iter();
                    let Some(first) = children.next() else {
                        return;
                    };
                    self.pending.push(children);
                    node = &first.node;
                }
            }
        }
    }
}

impl<'a> Iterator for Files<'a> {
    type Item = &'a Arc<ArchiveFile>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(file) = self.leaf.next() {
                self.left = self.left.saturating_sub(1);
                return Some(file);
            }
            match self.pending.last_mut()?.next() {
                Some(child) => self.descend(&child.node),
                None => {
                    self.pending.pop();
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Files<'_> {}

#[cfg(test)]
#[path = "file_list_tests.rs"]
mod tests;
