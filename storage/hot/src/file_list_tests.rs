use std::collections::BTreeMap;

use proptest::prelude::*;
use quiver_model::Timestamp;

use super::*;

fn file(day: i32, position: u64) -> Arc<ArchiveFile> {
    Arc::new(ArchiveFile {
        path: format!("quiver_day={day}/{position}"),
        day,
        bytes: position,
        rows: 2,
        min_ts: Timestamp(0),
        max_ts: Timestamp(0),
        min_position: Position(position),
        max_position: Position(position),
        min_device: String::new(),
        max_device: String::new(),
    })
}

/// Depth of the list, after a look at every node.
fn depth(child: &Child, is_root: bool) -> usize {
    assert_eq!(child.totals, child.node.totals());
    assert!(child.node.entries() <= WIDTH);
    assert!(is_root || child.node.entries() > 0);
    match &*child.node {
        Node::Leaf(_) => 1,
        Node::Inner(children) => {
            let depths: Vec<usize> = children.iter().map(|child| depth(child, false)).collect();
            assert!(depths.windows(2).all(|pair| pair[0] == pair[1]));
            1 + depths[0]
        }
    }
}

fn check(list: &FileList, expected: &BTreeMap<(i32, u64), Arc<ArchiveFile>>) {
    depth(&list.root, true);
    assert_eq!(list.len(), expected.len());
    assert_eq!(list.iter().len(), expected.len());
    assert!(list.iter().eq(expected.values()));
    assert_eq!(list.rows(), 2 * expected.len() as u64);
    let bytes: u64 = expected.values().map(|file| file.bytes).sum();
    assert_eq!(list.bytes(), bytes);
}

#[test]
fn files_that_come_in_order_fill_the_nodes() {
    let list: FileList = (0..10_000).map(|position| file(0, position)).collect();
    assert_eq!(depth(&list.root, true), 3);
    for index in [0, 63, 64, 4_095, 4_096, 9_999] {
        assert_eq!(list.get(index), Some(&file(0, index as u64)));
    }
    assert_eq!(list.get(10_000), None);
}

#[test]
fn a_change_shares_all_but_the_way_to_it() {
    let list: FileList = (0..10_000).map(|position| file(0, 2 * position)).collect();
    let mut changed = list.clone();
    changed.insert(file(0, 9_001));
    assert!(changed.remove(&file(0, 9_002)));
    assert!(!changed.remove(&file(0, 9_003)));
    assert_eq!((list.len(), changed.len()), (10_000, 10_000));
    assert_ne!(list, changed);
    fn leaves(child: &Child, into: &mut Vec<*const Node>) {
        match &*child.node {
            Node::Leaf(_) => into.push(Arc::as_ptr(&child.node)),
            Node::Inner(children) => children.iter().for_each(|child| leaves(child, into)),
        }
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    leaves(&list.root, &mut before);
    leaves(&changed.root, &mut after);
    let shared = after.iter().filter(|leaf| before.contains(leaf)).count();
    assert!(shared + 2 >= after.len(), "{shared} of {}", after.len());
}

proptest! {
    #[test]
    fn it_is_an_ordered_set(changes in prop::collection::vec((any::<bool>(), 0..3_i32, 0..600_u64), 1..3_000)) {
        let mut list = FileList::default();
        let mut expected = BTreeMap::new();
        // Full first, so that removing has something to do.
        for position in 0..400 {
            list.insert(file(1, position));
            expected.insert((1, position), file(1, position));
        }
        for (is_removed, day, position) in changes {
            let file = file(day, position);
            prop_assert_eq!(list.contains(&file), expected.contains_key(&(day, position)));
            if is_removed {
                let was_there = expected.remove(&(day, position)).is_some();
                prop_assert_eq!(list.remove(&file), was_there);
            } else if expected.insert((day, position), file.clone()).is_none() {
                list.insert(file);
            }
        }
        check(&list, &expected);
        while let Some((_, file)) = expected.pop_first() {
            prop_assert!(list.remove(&file));
        }
        check(&list, &expected);
    }
}
