//! Truncation, bit rot, stale and forged bytes.

use quiver_log::{SimVfs, replay_bytes};
use quiver_model::Position;

use crate::support::*;

#[test]
fn a_log_cut_at_any_byte_is_the_groups_before_the_cut() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 6, 200));
    let path = dir().join(format!("{:020}.seg", 1));
    let image = file(&disk, &path);
    for length in 0..=6 * 512 + 10 {
        let copy = disk.fork(0);
        copy.put(&path, &image[..length]);
        let (log, report) = open(&copy);
        // A group is there if all of its covered bytes are; padding does not matter.
        let whole =
            (0..6).take_while(|group| group * 512 + 80 + body_bytes(&image, group * 512) <= length);
        let expected = &all[..whole.count()];
        assert_eq!(contents(&log), expected, "cut at {length}");
        assert_eq!(report.damaged, [], "cut at {length}");
        assert_eq!(
            report.next,
            expected.last().map_or(Position(1), |last| last.end())
        );
    }
}

#[test]
fn any_flipped_bit_costs_its_group_and_nothing_else() {
    let mut all = Vec::new();
    let mut paths = Vec::new();
    // Two groups of two sectors fill half a segment each: two segments of four, one of one.
    let disk = disk_with(|disk| {
        all = written(disk, 5, 700);
        let (log, _) = open(&disk.fork(0));
        paths = segment_paths(&log);
        paths.truncate(2);
    });
    let mut group = 0;
    for path in &paths {
        let image = file(&disk, path);
        for offset in (0..image.len()).step_by(1024) {
            if image[offset] == 0 {
                break;
            }
            let covered = 80 + body_bytes(&image, offset);
            // Every bit of the header and of the record's header, every 13th of the payload.
            let bits = (0..180 * 8).chain((180 * 8..1024 * 8).step_by(13));
            for bit in bits {
                let copy = disk.fork(0);
                let mut flipped = image.clone();
                flipped[offset + bit / 8] ^= 1 << (bit % 8);
                copy.put(path, &flipped);
                let (log, report) = open(&copy);
                let (records, damaged) = drain(&mut log.replay(Position(0)).unwrap());
                let context = format!("bit {bit} of group {group}");
                if bit / 8 >= covered {
                    assert_eq!(records, all, "{context}");
                    continue;
                }
                let mut rest = all.clone();
                let lost = rest.remove(group);
                assert_eq!(records, rest, "{context}");
                if group + 1 < all.len() {
                    assert_eq!(report.damaged.len(), 1, "{context}");
                    assert_eq!(report.damaged, damaged, "{context}");
                    assert_eq!(
                        report.damaged[0].positions,
                        lost.position..lost.end(),
                        "{context}"
                    );
                    assert_eq!(report.next, all[all.len() - 1].end(), "{context}");
                    let named = &report.damaged[0].records;
                    assert!(
                        named
                            .iter()
                            .all(|record| record.sequence == lost.record.sequence)
                    );
                    // Only a hit in the record's own header makes it unreadable.
                    if bit / 8 < 80 || bit / 8 >= 180 {
                        assert_eq!(named.len(), 1, "{context}");
                    }
                    assert_eq!(
                        report.damaged[0].complete,
                        bit / 8 >= 80 && named.len() == 1
                    );
                } else {
                    assert_eq!((damaged, report.damaged), (vec![], vec![]), "{context}");
                }
            }
            group += 1;
        }
    }
    assert_eq!(group, all.len());
}

#[test]
fn any_flipped_bit_of_the_id_file_is_mended_from_the_segments() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 3, 100));
    let path = dir().join("log-id");
    let image = file(&disk, &path);
    let id = open(&disk.fork(0)).0.id();
    for bit in 0..image.len() * 8 {
        let copy = disk.fork(0);
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        copy.put(&path, &flipped);
        let (log, report) = open(&copy);
        assert!(report.id_restored && !report.created);
        assert_eq!(log.id(), id);
        assert_eq!(contents(&log), all);
        assert_eq!(file(&copy, &path), image);
    }
}

#[test]
fn a_damaged_group_before_a_torn_one_is_not_forgotten() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 4, 200));
    let path = dir().join(format!("{:020}.seg", 1));
    let mut image = file(&disk, &path);
    // Bit rot in the payload of the third, and the fourth has its header but not its records.
    image[2 * 512 + 300] ^= 1;
    image[3 * 512 + 300] ^= 1;
    disk.put(&path, &image);
    let (mut log, report) = open(&disk);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].positions, all[2].position..all[2].end());
    assert_eq!(
        report.damaged[0].records[0].sequence,
        all[2].record.sequence
    );
    assert!(report.damaged[0].complete);
    assert!(report.cut_bytes > 0);
    // Its positions had been given: they are not given again.
    let after = append(&mut log, &[batch(9, 3, 10)]);
    assert_eq!(after[0].position, all[2].end());
    assert_eq!(sequences(&contents(&log)), [0, 1, 9]);
    drop(log);
    disk.restart();
    assert_eq!(sequences(&contents(&open(&disk).0)), [0, 1, 9]);
}

#[test]
fn a_group_of_another_history_does_not_continue_this_one() {
    // Two copies of one log went on by themselves, and one's group got behind the other's.
    let mut start = Vec::new();
    let disk = disk_with(|disk| start = written(disk, 1, 200));
    let path = dir().join(format!("{:020}.seg", 1));
    let go_on = |sequence| {
        let copy = disk.fork(0);
        let (mut log, _) = open(&copy);
        let records = [sequence, sequence + 1].map(|next| append(&mut log, &[batch(next, 3, 200)]));
        (records.concat(), file(&copy, &path))
    };
    let (records, mut image) = go_on(10);
    let (_, other) = go_on(20);
    image[1024..].copy_from_slice(&other[1024..]);
    disk.put(&path, &image);
    let (log, report) = open(&disk);
    assert_eq!(contents(&log), [&start[..], &records[..1]].concat());
    // The stranger's header proves nothing but that something was written there: no position
    // that was given is given again.
    assert!(report.next >= records[0].end());
}

#[test]
fn a_lost_segment_is_reported_as_damaged_positions() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 12, 700));
    let paths = segment_paths(&open(&disk.fork(0)).0);
    assert!(paths.len() >= 3);
    let copy = disk.fork(0);
    quiver_log::Vfs::unlink(&copy, &paths[1]).unwrap();
    let (log, report) = open(&copy);
    let lost = &all[4..8];
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].positions, lost[0].position..lost[3].end());
    assert!(!report.damaged[0].complete);
    let (records, damaged) = drain(&mut log.replay(Position(0)).unwrap());
    assert_eq!(damaged.len(), 1);
    assert_eq!(sequences(&records), [0, 1, 2, 3, 8, 9, 10, 11]);
}

#[test]
fn stale_groups_of_a_reused_segment_never_come_back() {
    let disk = SimVfs::new(3);
    let (mut log, _) = open(&disk);
    let mut all = Vec::new();
    for sequence in 0..8 {
        all.extend(append(&mut log, &[batch(sequence, 1, 700)]));
    }
    let trimmed = log.trim(log.committed_end()).unwrap();
    assert_eq!((trimmed.segments, trimmed.recycled), (1, 1));
    // Ends in the reused file, in front of three whole stale groups.
    let last = append(&mut log, &[batch(8, 1, 700)]);
    let reused = segment_paths(&log).pop().unwrap();
    let image = file(&disk, &reused);
    assert_eq!(
        &image[1024..1032],
        b"QUIVRLOG",
        "nothing stale to be tested with"
    );
    drop(log);
    disk.restart();
    let (mut log, report) = open(&disk);
    assert_eq!(report.damaged, []);
    assert_eq!(report.cut_bytes, 0);
    all.drain(..4);
    all.extend(last);
    assert_eq!(contents(&log), all);
    all.extend(append(&mut log, &[batch(9, 1, 700)]));
    assert_eq!(contents(&log), all);
}

#[test]
fn a_payload_that_imitates_groups_of_this_log_is_only_a_payload() {
    // As if a device that knows the log's id, which is public, sent us groups, aligned as groups
    // are, and the group that holds them were then damaged, so that recovery searches through it.
    let other = disk_with(|disk| {
        written(disk, 3, 200);
    });
    let mut forged = file(&other, &dir().join(format!("{:020}.seg", 1)));
    let disk = SimVfs::new(4);
    let options = quiver_log::LogOptions {
        segment_bytes: 64 << 10,
        ..small()
    };
    let (mut log, _) = Log::open(
        std::sync::Arc::new(disk.clone()),
        &dir(),
        options.clone(),
        &quiver_model::OsEntropy,
        quiver_log::RecoveryFloor::default(),
    )
    .unwrap();
    let id = &file(&disk, &dir().join("log-id"))[16..32];
    for group in [0, 512, 1024] {
        let header = &mut forged[group..group + 80];
        header[16..32].copy_from_slice(id);
        // A position to come, too.
        header[40..48].copy_from_slice(&(2 + group as u64).to_le_bytes());
        header[48..56].copy_from_slice(&(5 + group as u64).to_le_bytes());
        let crc = crc32c::crc32c(&header[..76]);
        header[76..].copy_from_slice(&crc.to_le_bytes());
    }
    let mut carrier = batch(0, 1, 0);
    let header_bytes = 512 - 80 - {
        let mut probe = vec![carrier.clone()];
        let group = log.append_group(&mut probe).unwrap();
        assert_eq!(group.bytes, 512);
        body_bytes(&file(&disk, &segment_paths(&log)[0]), 0)
    };
    carrier.payload = [vec![0; header_bytes], forged].concat().into();
    append(&mut log, &[carrier]);
    let after = append(&mut log, &[batch(2, 1, 10)]);
    let path = segment_paths(&log).remove(0);
    drop(log);
    let mut image = file(&disk, &path);
    assert_eq!(
        &image[1024..1032],
        b"QUIVRLOG",
        "the forged group is not aligned"
    );
    image[520] ^= 1;
    disk.put(&path, &image);
    disk.restart();
    let (log, report) = try_open(&disk, options, 0).unwrap();
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].positions.end, after[0].position);
    let (records, _) = drain(&mut log.replay(Position(0)).unwrap());
    assert_eq!(sequences(&records), [0, 2]);
}

#[test]
fn a_segment_image_parses_like_the_file_and_mutations_never_panic() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 6, 200));
    let image = file(&disk, &dir().join(format!("{:020}.seg", 1)));
    let parsed = replay_bytes(&image);
    assert_eq!(parsed.records, all);
    assert!(parsed.damaged.is_empty());
    for byte in 0..image.len() {
        let mut mutated = image.clone();
        mutated[byte] ^= 0x55;
        let parsed = replay_bytes(&mutated);
        assert!(parsed.records.iter().all(|record| all.contains(record)));
        assert!(parsed.records.len() + 1 >= all.len());
        replay_bytes(&image[byte..]);
    }
    assert_eq!(replay_bytes(&[]).records, []);
}

#[test]
fn segments_of_another_log_are_refused_and_left_alone() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 3, 200));
    let segment = dir().join(format!("{:020}.seg", 1));
    let image = file(&disk, &segment);
    let other = SimVfs::new(9);
    Log::open(
        std::sync::Arc::new(other.clone()),
        &dir(),
        small(),
        &quiver_model::OsEntropy,
        quiver_log::RecoveryFloor::default(),
    )
    .unwrap();
    other.put(&segment, &image);
    let error = try_open(&other, small(), 0).unwrap_err();
    assert!(
        matches!(error, quiver_log::OpenError::ForeignSegment { .. }),
        "{error}"
    );
    assert_eq!(file(&other, &segment), image);
}

use quiver_log::Log;
