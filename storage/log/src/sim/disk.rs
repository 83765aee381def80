//! State of the simulated disk: inodes, cached and durable names.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::{
    faults::{Fate, FaultKind, Faults, SimOp},
    inode::{Inode, Random, SECTOR},
};
use crate::vfs::parent_of;

/// Free space of a disk without limit.
const UNLIMITED: u64 = 1 << 50;

fn not_found() -> io::Error {
    io::Error::from(rustix::io::Errno::NOENT)
}

fn no_space() -> io::Error {
    FaultKind::NoSpace.error()
}

/// A name's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    File(u64),
    Dir,
}

/// A change of names that no sync has covered yet.
#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, Target),
    Remove(PathBuf),
    Move(PathBuf, PathBuf),
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Set(path, _) | Self::Remove(path) => parent_of(path) == dir,
            Self::Move(from, to) => parent_of(from) == dir || parent_of(to) == dir,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Target>) {
        match self {
            Self::Set(path, target) => {
                names.insert(path.clone(), *target);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Move(from, to) => {
                if let Some(target) = names.remove(from) {
                    names.insert(to.clone(), target);
                }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    random: Random,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, Target>,
    durable_names: BTreeMap<PathBuf, Target>,
    unsynced: Vec<NameChange>,
    pub faults: Faults,
    pub capacity: Option<u64>,
    pub locks: BTreeSet<PathBuf>,
    /// Rises with every crash and restart.
    pub boot: u64,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        let names: BTreeMap<_, _> = [
            (PathBuf::from("/"), Target::Dir),
            (PathBuf::from("."), Target::Dir),
        ]
        .into();
        Self {
            random: Random(seed),
            inodes: BTreeMap::new(),
            next_inode: 1,
            durable_names: names.clone(),
            names,
            unsynced: Vec::new(),
            faults: Faults::default(),
            capacity: None,
            locks: BTreeSet::new(),
            boot: 0,
        }
    }

    pub fn fork(&self, seed: u64) -> Self {
        let mut inodes = self.inodes.clone();
        for inode in inodes.values_mut() {
            inode.handles = 0;
        }
        Self {
            random: Random(seed),
            inodes,
            next_inode: self.next_inode,
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            unsynced: self.unsynced.clone(),
            faults: Faults::default(),
            capacity: self.capacity,
            locks: BTreeSet::new(),
            boot: 0,
        }
    }

    pub fn crash(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.write_back_some(&mut self.random);
            inode.fall_back_to_durable();
        }
        // A journal keeps its order: some first part of the changes survives.
        let survive = self.random.below(self.unsynced.len() as u64 + 1) as usize;
        for change in std::mem::take(&mut self.unsynced).into_iter().take(survive) {
            change.apply(&mut self.durable_names);
        }
        // What lay in a directory that is gone is gone.
        let durable = self.durable_names.clone();
        self.durable_names.retain(|path, _| {
            let parent = parent_of(path);
            path.parent().is_none() || *path == parent || durable.get(&parent) == Some(&Target::Dir)
        });
        self.names = self.durable_names.clone();
        self.restart();
        self.faults.is_off = false;
    }

    pub fn restart(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.handles = 0;
        }
        self.locks.clear();
        self.faults.clear();
        self.boot += 1;
        self.forget_unreachable();
    }

    /// Inodes that no name, no handle and no crash can bring back.
    fn forget_unreachable(&mut self) {
        let reachable: BTreeSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .chain(self.unsynced.iter().filter_map(|change| match change {
                NameChange::Set(_, target) => Some(target),
                _ => None,
            }))
            .filter_map(|target| match target {
                Target::File(inode) => Some(*inode),
                Target::Dir => None,
            })
            .collect();
        self.inodes
            .retain(|number, inode| inode.handles > 0 || reachable.contains(number));
    }

    pub fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self
            .names
            .values()
            .filter_map(|target| match target {
                Target::File(inode) => Some(*inode),
                Target::Dir => None,
            })
            .collect();
        self.inodes
            .iter()
            .filter(|(number, inode)| inode.handles > 0 || named.contains(number))
            .map(|(_, inode)| inode.reserved)
            .sum()
    }

    fn free(&self) -> u64 {
        self.capacity
            .map_or(UNLIMITED, |capacity| capacity.saturating_sub(self.used()))
    }

    pub fn free_space(&mut self) -> io::Result<u64> {
        match self.faults.enter(SimOp::FreeSpace)? {
            Fate::Fails(kind) => Err(kind.error()),
            _ => Ok(self.free()),
        }
    }

    fn file(&self, path: &Path) -> Option<u64> {
        match self.names.get(path) {
            Some(Target::File(inode)) => Some(*inode),
            _ => None,
        }
    }

    fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(not_found)
    }

    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.inodes.get(&self.file(path)?)?;
        let mut content = vec![0; inode.cached_len as usize];
        inode.read(&mut content, 0);
        Some(content)
    }

    pub fn put(&mut self, path: &Path, content: &[u8]) {
        let number = self.next_inode;
        self.next_inode += 1;
        let mut inode = Inode::default();
        inode.write(content, 0);
        inode.sync();
        self.inodes.insert(number, inode);
        self.names.insert(path.to_path_buf(), Target::File(number));
        self.durable_names
            .insert(path.to_path_buf(), Target::File(number));
    }

    /// Runs a call that changes names or content: `effect` happens wholly or not at all.
    fn change<T>(
        &mut self,
        op: SimOp,
        effect: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.faults.enter(op)? {
            Fate::Succeeds => effect(self),
            Fate::Fails(FaultKind::Io) => {
                if self.random.coin() {
                    effect(self)?;
                }
                Err(FaultKind::Io.error())
            }
            Fate::Fails(kind) => Err(kind.error()),
            Fate::PowerOff => {
                if self.random.coin() {
                    effect(self)?;
                }
                Err(FaultKind::Io.error())
            }
        }
    }

    fn rename_in_cache(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    pub fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.change(SimOp::Create, |disk| {
            if disk.names.get(&parent_of(path)) != Some(&Target::Dir) {
                return Err(not_found());
            }
            if let Some(number) = disk.file(path) {
                let inode = disk.inode(number)?;
                inode.set_cached_len(0);
                inode.reserved = 0;
                inode.handles += 1;
                return Ok(number);
            }
            let number = disk.next_inode;
            disk.next_inode += 1;
            let mut inode = Inode::default();
            inode.handles = 1;
            disk.inodes.insert(number, inode);
            disk.rename_in_cache(NameChange::Set(path.to_path_buf(), Target::File(number)));
            Ok(number)
        })
    }

    pub fn open(&mut self, path: &Path) -> io::Result<u64> {
        if let Fate::Fails(kind) = self.faults.enter(SimOp::Open)? {
            return Err(kind.error());
        }
        let number = self.file(path).ok_or_else(not_found)?;
        self.inode(number)?.handles += 1;
        Ok(number)
    }

    pub fn close(&mut self, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.handles = inode.handles.saturating_sub(1);
            if inode.handles == 0 {
                self.forget_unreachable();
            }
        }
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(SimOp::Rename, |disk| {
            disk.file(from).ok_or_else(not_found)?;
            disk.rename_in_cache(NameChange::Move(from.to_path_buf(), to.to_path_buf()));
            Ok(())
        })
    }

    pub fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.change(SimOp::Unlink, |disk| {
            disk.file(path).ok_or_else(not_found)?;
            disk.rename_in_cache(NameChange::Remove(path.to_path_buf()));
            Ok(())
        })
    }

    pub fn list(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        if let Fate::Fails(kind) = self.faults.enter(SimOp::List)? {
            return Err(kind.error());
        }
        if self.names.get(dir) != Some(&Target::Dir) {
            return Err(not_found());
        }
        let mut names: Vec<String> = self
            .names
            .iter()
            .filter(|(path, target)| matches!(target, Target::File(_)) && parent_of(path) == dir)
            .filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    pub fn create_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.change(SimOp::CreateDir, |disk| match disk.names.get(dir) {
            Some(Target::Dir) => Ok(()),
            Some(Target::File(_)) => Err(io::Error::from(rustix::io::Errno::EXIST)),
            None if disk.names.get(&parent_of(dir)) != Some(&Target::Dir) => Err(not_found()),
            None => {
                disk.rename_in_cache(NameChange::Set(dir.to_path_buf(), Target::Dir));
                Ok(())
            }
        })
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.change(SimOp::SyncDir, |disk| {
            if disk.names.get(dir) != Some(&Target::Dir) {
                return Err(not_found());
            }
            // Journal order: whatever came before the directory's last change goes with it.
            let covered = disk.unsynced.iter().rposition(|change| change.touches(dir));
            for change in disk.unsynced.drain(..covered.map_or(0, |last| last + 1)) {
                change.apply(&mut disk.durable_names);
            }
            Ok(())
        })
    }

    pub fn lock(&mut self, path: &Path, owner: &str) -> io::Result<Option<String>> {
        if let Fate::Fails(kind) = self.faults.enter(SimOp::Lock)? {
            return Err(kind.error());
        }
        if self.locks.contains(path) {
            let note = self.content(path).unwrap_or_default();
            return Ok(Some(String::from_utf8_lossy(&note).into_owned()));
        }
        if self.names.get(&parent_of(path)) != Some(&Target::Dir) {
            return Err(not_found());
        }
        self.put(path, owner.as_bytes());
        self.locks.insert(path.to_path_buf());
        Ok(None)
    }

    pub fn read_at(&mut self, number: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Fate::Fails(kind) = self.faults.enter(SimOp::Read)? {
            return Err(kind.error());
        }
        Ok(self.inode(number)?.read(buffer, offset))
    }

    pub fn write_at(&mut self, number: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let fate = self.faults.enter(SimOp::Write)?;
        let end = offset.saturating_add(bytes.len() as u64);
        let sectors = bytes.len().div_ceil(SECTOR) as u64;
        let some = self.random.below(sectors + 1) as usize * SECTOR;
        let (written, error) = match fate {
            Fate::Succeeds => (bytes.len(), None),
            Fate::Fails(FaultKind::NoSpace) => (0, Some(no_space())),
            Fate::Fails(FaultKind::ShortWrite) => {
                (some.min(bytes.len().saturating_sub(1)), Some(no_space()))
            }
            Fate::Fails(FaultKind::Io) | Fate::PowerOff => {
                (some.min(bytes.len()), Some(FaultKind::Io.error()))
            }
        };
        let free = self.free();
        let inode = self.inode(number)?;
        let grows = end
            .next_multiple_of(SECTOR as u64)
            .saturating_sub(inode.reserved);
        if grows > free {
            // As much as fits, as a real file system does.
            let fits = (inode.reserved + free)
                .saturating_sub(offset)
                .min(bytes.len() as u64);
            let fits = (fits as usize).min(written);
            if fits > 0 {
                inode.write(&bytes[..fits], offset);
            }
            return Err(no_space());
        }
        if written > 0 {
            inode.write(&bytes[..written], offset);
        }
        error.map_or(Ok(()), Err)
    }

    pub fn sync(&mut self, number: u64, op: SimOp) -> io::Result<()> {
        let fate = self.faults.enter(op)?;
        let mut random = self.random.clone();
        let inode = self.inode(number)?;
        let result = match fate {
            Fate::Succeeds => {
                inode.sync();
                Ok(())
            }
            // What was written back is durable, the rest is lost, and all of it is clean.
            Fate::Fails(kind) => {
                inode.write_back_some(&mut random);
                Err(kind.error())
            }
            // Dirty data meets its fate at the crash.
            Fate::PowerOff => Err(FaultKind::Io.error()),
        };
        random.next();
        self.random = random;
        result
    }

    pub fn preallocate(&mut self, number: u64, size: u64) -> io::Result<()> {
        self.change(SimOp::Preallocate, |disk| {
            let free = disk.free();
            let inode = disk.inode(number)?;
            let wanted = size.next_multiple_of(SECTOR as u64).max(inode.reserved);
            if wanted - inode.reserved > free {
                return Err(no_space());
            }
            inode.reserved = wanted;
            inode.cached_len = inode.cached_len.max(size);
            Ok(())
        })
    }

    pub fn set_len(&mut self, number: u64, size: u64) -> io::Result<()> {
        self.change(SimOp::SetLen, |disk| {
            disk.inode(number)?.set_cached_len(size);
            Ok(())
        })
    }

    pub fn size(&mut self, number: u64) -> io::Result<u64> {
        Ok(self.inode(number)?.cached_len)
    }
}
