//! Checkpoints, cursors, the lock.

use std::{path::Path, sync::Arc};

use quiver_log::{
    CheckpointError, CheckpointStore, CursorError, Cursors, DirLock, FaultKind, LockError, OsVfs,
    SimVfs,
};
use quiver_model::Position;

fn store(disk: &SimVfs) -> CheckpointStore {
    CheckpointStore::open(Arc::new(disk.clone()), Path::new("/data/checkpoints")).unwrap()
}

#[test]
fn the_two_newest_checkpoints_are_kept() {
    let disk = SimVfs::new(1);
    let mut checkpoints = store(&disk);
    assert_eq!(checkpoints.load_newest().unwrap(), None);
    for position in [10, 20, 30] {
        checkpoints
            .save(Position(position), &[position as u8; 1000])
            .unwrap();
    }
    assert_eq!(checkpoints.positions(), [Position(20), Position(30)]);
    disk.crash();
    let mut checkpoints = store(&disk);
    assert_eq!(*checkpoints.positions().last().unwrap(), Position(30));
    let newest = checkpoints.load_newest().unwrap().unwrap();
    assert_eq!(
        (newest.position, newest.payload),
        (Position(30), vec![30; 1000])
    );
    assert!(newest.passed_over.is_empty());
}

#[test]
fn a_checkpoint_that_is_written_in_pieces_is_the_same_and_a_broken_off_one_is_none() {
    let disk = SimVfs::new(1);
    let whole: Vec<u8> = (0..1_500_000_u32).map(|at| (at / 7) as u8).collect();
    let mut checkpoints = store(&disk);
    checkpoints.save(Position(10), &whole).unwrap();
    let sizes = [1, 0, 30, 300_000, 5, 600_000, 100];
    checkpoints
        .save_with(Position(20), &mut |writer| {
            let mut rest = &whole[..];
            for size in sizes.into_iter().cycle() {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                writer.write(piece)?;
                rest = after;
                if rest.is_empty() {
                    return Ok(());
                }
            }
            Ok(())
        })
        .unwrap();
    let broken_off = checkpoints.save_with(Position(30), &mut |writer| {
        writer.write(&whole)?;
        Err(std::io::Error::other("no more"))
    });
    assert!(broken_off.unwrap_err().to_string().contains("no more"));
    disk.crash();
    let mut checkpoints = store(&disk);
    assert_eq!(checkpoints.positions(), [Position(10), Position(20)]);
    let newest = checkpoints.load_newest().unwrap().unwrap();
    assert!(newest.passed_over.is_empty() && newest.payload == whole);
}

#[test]
fn a_damaged_newest_checkpoint_falls_back_to_the_older_and_says_so() {
    let disk = SimVfs::new(1);
    let mut checkpoints = store(&disk);
    checkpoints.save(Position(10), b"ten").unwrap();
    checkpoints.save(Position(20), b"twenty").unwrap();
    let path = Path::new("/data/checkpoints").join(format!("checkpoint-{:020}", 20));
    let image = disk.content(&path).unwrap();
    let mutations = (0..image.len() * 8)
        .map(|bit| {
            let mut flipped = image.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
        .chain((0..image.len()).map(|length| image[..length].to_vec()));
    for mutated in mutations {
        let copy = disk.fork(0);
        copy.put(&path, &mutated);
        let mut checkpoints = store(&copy);
        let newest = checkpoints.load_newest().unwrap().unwrap();
        assert_eq!(
            (newest.position, &*newest.payload),
            (Position(10), &b"ten"[..])
        );
        assert_eq!(newest.passed_over.len(), 1);
        assert_eq!(newest.passed_over[0].path, path);
        // The damaged one does not count as one of the two.
        checkpoints.save(Position(30), b"thirty").unwrap();
        assert_eq!(checkpoints.positions(), [Position(10), Position(30)]);
    }
}

#[test]
fn checkpoints_that_are_all_damaged_are_an_error_and_stay() {
    let disk = SimVfs::new(1);
    store(&disk).save(Position(10), b"ten").unwrap();
    let path = Path::new("/data/checkpoints").join(format!("checkpoint-{:020}", 10));
    disk.put(&path, b"rubbish");
    let error = store(&disk).load_newest().unwrap_err();
    assert!(
        matches!(error, CheckpointError::AllDamaged { .. }),
        "{error}"
    );
    assert_eq!(disk.content(&path).unwrap(), b"rubbish");
}

#[test]
fn a_checkpoint_interrupted_at_any_call_leaves_the_one_before() {
    for nth in 1..=8 {
        for seed in 0..8 {
            let disk = SimVfs::new(seed);
            let mut checkpoints = store(&disk);
            checkpoints.save(Position(10), &[1; 3000]).unwrap();
            disk.power_off_at(nth);
            let saved = checkpoints.save(Position(20), &[2; 3000]).is_ok();
            disk.crash();
            let newest = store(&disk).load_newest().unwrap().unwrap();
            assert!(newest.passed_over.is_empty());
            match newest.position.get() {
                10 => assert!(!saved && newest.payload == [1; 3000]),
                20 => assert_eq!(newest.payload, [2; 3000]),
                other => panic!("{other}"),
            }
        }
    }
}

fn cursors(disk: &SimVfs) -> Cursors {
    Cursors::open(Arc::new(disk.clone()), Path::new("/")).unwrap()
}

#[test]
fn saved_cursors_survive_and_overtaken_ones_are_moved_and_counted() {
    let disk = SimVfs::new(1);
    let mut all = cursors(&disk);
    all.set("alert", Position(5)).unwrap();
    all.set("export", Position(50)).unwrap();
    all.save().unwrap();
    all.set("alert", Position(9)).unwrap();
    disk.crash();
    let mut all = cursors(&disk);
    assert_eq!(all.get("alert").unwrap().position, Position(5), "not saved");
    assert_eq!(all.lowest(), Some(Position(5)));
    let overtaken = all.overtake(Position(20)).unwrap();
    assert_eq!(overtaken.len(), 1);
    assert_eq!(
        (
            overtaken[0].name.as_str(),
            overtaken[0].from,
            overtaken[0].to
        ),
        ("alert", Position(5), Position(20))
    );
    disk.crash();
    let mut all = cursors(&disk);
    let alert = all.get("alert").unwrap();
    assert_eq!((alert.position, alert.missed), (Position(20), 15));
    assert_eq!(all.get("export").unwrap().missed, 0);
    assert!(all.remove("alert").unwrap());
    disk.crash();
    assert_eq!(cursors(&disk).iter().count(), 1);
}

#[test]
fn a_damaged_cursors_file_is_refused_and_bad_names_are() {
    let disk = SimVfs::new(1);
    let mut all = cursors(&disk);
    assert!(matches!(
        all.set("", Position(1)),
        Err(CursorError::Name(0))
    ));
    assert!(matches!(
        all.set(&"x".repeat(129), Position(1)),
        Err(CursorError::Name(129))
    ));
    all.set("one", Position(1)).unwrap();
    all.save().unwrap();
    let image = disk.content(Path::new("/cursors")).unwrap();
    for bit in 0..image.len() * 8 {
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        disk.put(Path::new("/cursors"), &flipped);
        let error = Cursors::open(Arc::new(disk.clone()), Path::new("/")).unwrap_err();
        assert!(matches!(error, CursorError::Damaged { .. }), "{error}");
    }
}

#[test]
fn cursors_fail_to_save_without_losing_the_saved_ones() {
    for nth in 1..=5 {
        let disk = SimVfs::new(nth);
        let mut all = cursors(&disk);
        all.set("one", Position(1)).unwrap();
        all.save().unwrap();
        all.set("one", Position(2)).unwrap();
        disk.fail_nth(None, nth, FaultKind::Io);
        let failed = all.save().is_err();
        assert_eq!(failed, nth <= 5);
        disk.crash();
        let position = cursors(&disk).get("one").unwrap().position;
        assert!(position == Position(1) || position == Position(2));
    }
}

#[test]
fn a_locked_directory_names_the_process_that_holds_it() {
    let temporary = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(&OsVfs, temporary.path()).unwrap();
    let error = DirLock::acquire(&OsVfs, temporary.path()).unwrap_err();
    assert!(matches!(&error, LockError::Held { pid: Some(pid), .. } if *pid == std::process::id()));
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    drop(lock);
    DirLock::acquire(&OsVfs, temporary.path()).unwrap();

    let disk = SimVfs::new(1);
    let lock = DirLock::acquire(&disk, Path::new("/")).unwrap();
    assert!(matches!(
        DirLock::acquire(&disk, Path::new("/")),
        Err(LockError::Held { pid: Some(_), .. })
    ));
    // The lock dies with its process, and a dead process's handle frees nobody else's.
    disk.restart();
    let newer = DirLock::acquire(&disk, Path::new("/")).unwrap();
    drop(lock);
    assert!(DirLock::acquire(&disk, Path::new("/")).is_err());
    drop(newer);
    DirLock::acquire(&disk, Path::new("/")).unwrap();
}
