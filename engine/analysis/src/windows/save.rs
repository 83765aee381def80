//! State as bytes, for checkpoints: an entry for each device and key, and what all have in common.
//! Only what changed is written again.

use crate::{
    bytes::{ReadBytes, SavedError, WriteBytes},
    cells::Mark,
    spec::Key,
    windows::{
        Windows,
        keys::read_text,
        panes::{FLAGS, NONE, Pane, REVISED},
    },
};

/// First byte of every value.
const VERSION: u8 = 1;
/// First byte of the key of a device's entry.
const DEVICE: u8 = 0;
/// First byte of the key of an entry of another key.
const KEY: u8 = 1;
/// Fewest bytes of a pane.
const PANE_MIN: usize = 6;

/// What changed since the state was saved last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// What all have in common: replaces what was saved of it.
    pub common: Vec<u8>,
    /// Entries by key, in the order of the keys: the new value, or `None` if there is none any
    /// more.
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Windows {
    /// What changed since the last call, or since [`Windows::new`] or [`Windows::restore`].
    pub fn changed(&mut self) -> Changed {
        let mut entries = Vec::new();
        for device in std::mem::take(&mut self.dirty_devices) {
            self.clocks[device as usize].is_dirty = false;
            let mut value = vec![VERSION];
            self.write_clock(device, &mut value);
            entries.push((entry(DEVICE, self.devices.text(device)), Some(value)));
        }
        for key in std::mem::take(&mut self.dirty_keys) {
            let state = &mut self.keys[key as usize];
            if !std::mem::take(&mut state.is_dirty) {
                continue;
            }
            state.is_saved = true;
            let mut value = vec![VERSION];
            let tag = if self.spec.key == Key::Device {
                self.write_clock(key, &mut value);
                DEVICE
            } else {
                KEY
            };
            self.write_panes(key, &mut value);
            entries.push((entry(tag, self.key_text(key)), Some(value)));
        }
        for text in std::mem::take(&mut self.gone) {
            if self.texts.find(&text).is_none() {
                entries.push((entry(KEY, &text), None));
            }
        }
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|(one, _), (other, _)| one == other);
        let mut common = vec![VERSION];
        common.put_u64(self.mark());
        common.put_i64(self.record_time);
        common.put_i64(self.floor);
        Changed { common, entries }
    }

    /// Counts everything as changed: the next [`Self::changed`] has all there is.
    pub fn change_all(&mut self) {
        for device in 0..self.devices.len() {
            self.touch_device(u32::try_from(device).unwrap_or(NONE));
        }
        for key in 0..self.keys.len() {
            let tracks = self.tracks.len();
            let opens = self.opens.iter().skip(key * tracks).take(tracks);
            if opens.map(|open| open.count).sum::<u32>() > 0 {
                self.touch_key(u32::try_from(key).unwrap_or(NONE));
            }
        }
    }

    /// Takes back what was saved: the last `common`, and of each key the last entry that was not
    /// `None`. To be called once, on windows of the same definition that took no rows.
    ///
    /// # Errors
    /// The bytes are not those that were saved; then these windows must not be used.
    pub fn restore<'a>(
        &mut self,
        common: &[u8],
        entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), SavedError> {
        let mut input = versioned(common)?;
        if input.u64()? != self.mark() {
            return Err(SavedError::Invalid("the windows were defined otherwise"));
        }
        self.record_time = input.i64()?;
        self.floor = input.i64()?;
        input.end()?;
        for (key, value) in entries {
            self.restore_entry(key, value)?;
        }
        // Revised windows are put out by the next tick; devices' windows are due as they were.
        for key in 0..self.keys.len() {
            self.resume(u32::try_from(key).unwrap_or(NONE));
        }
        Ok(())
    }

    /// Tells apart definitions whose states do not fit each other.
    fn mark(&self) -> u64 {
        let mut mark = Mark::default();
        mark.add(self.layout.mark());
        let spec = &self.spec;
        // The text that derives from a definition is all of it.
        let words = format!(
            "{:?} {:?} {:?} {:?}",
            spec.kinds, spec.key, spec.emit, spec.zone
        );
        for byte in words.bytes() {
            mark.add(u64::from(byte));
        }
        mark.0
    }

    fn write_clock(&self, device: u32, out: &mut Vec<u8>) {
        let clock = &self.clocks[device as usize];
        out.put_i64(clock.latest);
        out.put_i64(clock.seen);
        out.put_i64(clock.floor);
    }

    fn write_panes(&self, key: u32, out: &mut Vec<u8>) {
        let tracks = self.tracks.len();
        for (number, track) in self.tracks.iter().enumerate() {
            let open = &self.opens[key as usize * tracks + number];
            out.put_count(open.count as usize);
            let mut panes: Vec<_> = track.panes.list(open).collect();
            panes.reverse();
            for pane in panes.into_iter().filter_map(|pane| track.panes.get(pane)) {
                out.put_signed(pane.start);
                out.put_signed(pane.end);
                out.put_signed(pane.last);
                out.put_varint(u64::from(pane.revision));
                out.put_byte(pane.flags);
                track.blocks.write(pane.block, out);
            }
        }
    }

    fn restore_entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), SavedError> {
        let mut input = versioned(value)?;
        let (tag, text) = key.split_first().ok_or(SavedError::Short)?;
        match *tag {
            DEVICE => {
                let device = self.restored_device(text)?;
                let clock = &mut self.clocks[device as usize];
                clock.latest = input.i64()?;
                clock.seen = input.i64()?;
                clock.floor = input.i64()?;
                if self.spec.key == Key::Device {
                    self.read_panes(device, &mut input)?;
                }
            }
            KEY if self.spec.key != Key::Device => {
                let device = self.device_of(text)?;
                if self.texts.find(text).is_some() {
                    return Err(SavedError::Invalid("there is one entry of a key"));
                }
                let key = self.add_key(text, device);
                self.read_panes(key, &mut input)?;
            }
            _ => return Err(SavedError::Invalid("an entry is of a device or of a key")),
        }
        input.end()
    }

    fn restored_device(&mut self, name: &[u8]) -> Result<u32, SavedError> {
        if std::str::from_utf8(name).is_err() {
            return Err(SavedError::Invalid("a device's name is UTF-8"));
        }
        Ok(match self.devices.find(name) {
            Some(device) => device,
            None => self.add_device(name),
        })
    }

    /// The device of a key's text, which is checked.
    fn device_of(&mut self, text: &[u8]) -> Result<u32, SavedError> {
        let wrong = SavedError::Invalid("a key has as many texts as columns");
        let mut rest = text;
        let mut device = NONE;
        for column in 0..self.spec.key.texts() {
            let text = read_text(&mut rest).ok_or(wrong)?;
            if column == 0 && self.spec.key.has_device() {
                device = self.restored_device(text.ok_or(wrong)?.as_bytes())?;
            }
        }
        if rest.is_empty() {
            Ok(device)
        } else {
            Err(wrong)
        }
    }

    fn read_panes(&mut self, key: u32, input: &mut &[u8]) -> Result<(), SavedError> {
        let tracks = self.tracks.len();
        for number in 0..tracks {
            let place = key as usize * tracks + number;
            let mut open = self.opens[place];
            if open.count > 0 {
                return Err(SavedError::Invalid("there is one entry of a key"));
            }
            let mut before = i64::MIN;
            for _ in 0..input.count(PANE_MIN)? {
                let (start, end) = (input.signed()?, input.signed()?);
                let last = input.signed()?;
                let revision = u32::try_from(input.varint()?);
                let flags = input.byte()?;
                if start < before || end < start || flags & !FLAGS != 0 {
                    return Err(SavedError::Invalid("panes follow each other in time"));
                }
                before = start;
                let revision = revision
                    .map_err(|_| SavedError::Invalid("revisions are counted in 32 bits"))?;
                let track = &mut self.tracks[number];
                let block = track.blocks.read(input)?;
                let pane = Pane {
                    last,
                    revision,
                    flags,
                    ..Pane::new(start, end, block)
                };
                track.panes.insert(&mut open, pane);
                if pane.is(REVISED) {
                    self.revised.push((key, number, start));
                }
                self.opens[place] = open;
                self.gain_pane(key);
            }
        }
        self.keys[key as usize].is_saved = true;
        Ok(())
    }

    /// Sees to it that what was restored of a key goes on.
    fn resume(&mut self, key: u32) {
        let tracks = self.tracks.len();
        let device = self.keys[key as usize].device;
        let horizon = self.horizon(device);
        let mut due = i64::MAX;
        for number in 0..tracks {
            let open = &mut self.opens[key as usize * tracks + number];
            open.due = self.tracks[number].due(open, horizon);
            due = due.min(open.due);
        }
        let mut from = due;
        if let Some(clock) = self.clocks.get_mut(device as usize) {
            clock.due = clock.due.min(due);
            from = from.max(clock.seen);
        }
        if due != i64::MAX {
            self.note_deadline(key, from);
        }
    }
}

fn entry(tag: u8, text: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + text.len());
    key.push(tag);
    key.extend_from_slice(text);
    key
}

fn versioned(mut bytes: &[u8]) -> Result<&[u8], SavedError> {
    match bytes.byte()? {
        VERSION => Ok(bytes),
        other => Err(SavedError::Version(other)),
    }
}
