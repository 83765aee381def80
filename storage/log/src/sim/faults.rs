//! Which calls of the simulated disk fail, and how.

use std::{collections::BTreeMap, io};

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SimOp {
    /// Creating a file.
    Create,
    /// Opening a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// `fdatasync`.
    SyncData,
    /// `fsync` of a file.
    SyncAll,
    /// Reserving space.
    Preallocate,
    /// Changing a file's size.
    SetLen,
    /// Renaming.
    Rename,
    /// Removing a name.
    Unlink,
    /// Listing a directory.
    List,
    /// Creating a directory.
    CreateDir,
    /// `fsync` of a directory.
    SyncDir,
    /// Asking for free space.
    FreeSpace,
    /// Locking.
    Lock,
}

impl SimOp {
    /// Whether such a call changes what is on the disk or in its cache.
    pub const fn is_mutating(self) -> bool {
        !matches!(
            self,
            Self::Open | Self::Read | Self::List | Self::FreeSpace | Self::Lock
        )
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An I/O error (EIO); the call may have had its effect, wholly, partly, or not at all.
    Io,
    /// No space left (ENOSPC); the call had no effect.
    NoSpace,
    /// A write stops after some of its sectors, then reports no space; other calls fail as with
    /// [`FaultKind::NoSpace`].
    ShortWrite,
}

impl FaultKind {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::from(rustix::io::Errno::IO),
            Self::NoSpace | Self::ShortWrite => io::Error::from(rustix::io::Errno::NOSPC),
        }
    }
}

#[derive(Clone, Debug)]
struct Planned {
    op: Option<SimOp>,
    /// Matching calls until it strikes, that one included.
    left: u64,
    kind: FaultKind,
    again: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Succeeds,
    Fails(FaultKind),
    /// The power goes off during it.
    PowerOff,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Planned>,
    counts: BTreeMap<SimOp, u64>,
    pub mutating_calls: u64,
    pub power_off_in: Option<u64>,
    pub is_off: bool,
}

impl Faults {
    pub fn plan(&mut self, op: Option<SimOp>, nth: u64, kind: FaultKind, again: bool) {
        self.planned.push(Planned {
            op,
            left: nth.max(1),
            kind,
            again,
        });
    }

    pub fn clear(&mut self) {
        self.planned.clear();
        self.power_off_in = None;
    }

    pub fn calls(&self, op: SimOp) -> u64 {
        self.counts.get(&op).copied().unwrap_or(0)
    }

    /// Counts a call and decides its fate; an error if the power is off.
    pub fn enter(&mut self, op: SimOp) -> io::Result<Fate> {
        if self.is_off {
            return Err(io::Error::other("simulated disk: the power is off"));
        }
        *self.counts.entry(op).or_default() += 1;
        if op.is_mutating() {
            self.mutating_calls += 1;
            if let Some(left) = &mut self.power_off_in {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.is_off = true;
                    self.power_off_in = None;
                    return Ok(Fate::PowerOff);
                }
            }
        }
        let mut fate = Fate::Succeeds;
        self.planned.retain_mut(|planned| {
            if planned.op.is_some_and(|wanted| wanted != op) {
                return true;
            }
            planned.left = planned.left.saturating_sub(1);
            if planned.left > 0 {
                return true;
            }
            fate = Fate::Fails(planned.kind);
            planned.again
        });
        Ok(fate)
    }
}
