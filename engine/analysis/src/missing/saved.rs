//! A watch in checkpoints: an entry for each device, under its name. Only entries that changed are
//! written; restoring takes the last one of each device, in any order.
//!
//! ```text
//! version ┬ number of series ┬ for each: field (less the one before) ┬ missing? ┬ last seen
//! ```

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Missing, Watch,
    device::{Device, Series},
};
use crate::bytes::{ReadBytes, SavedError, WriteBytes};

const VERSION: u8 = 1;
/// Fewest bytes of a series.
const SERIES_BYTES: usize = 3;

impl Missing {
    /// What changed since this was called last: the device's name, and its entry, or `None` if it is
    /// to be removed. In order of the names.
    pub fn changed(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut changed: BTreeMap<Arc<str>, Option<Vec<u8>>> =
            self.gone.drain(..).map(|name| (name, None)).collect();
        for slot in self.listed.drain(..) {
            let Some(place) = self.slots.get_mut(slot as usize) else {
                continue;
            };
            place.is_listed = false;
            if let Some(device) = &mut place.device {
                device.is_saved = true;
                changed.insert(Arc::clone(&device.name), Some(write(device)));
            }
        }
        let bytes = |(name, entry): (Arc<str>, _)| (name.as_bytes().to_vec(), entry);
        changed.into_iter().map(bytes).collect()
    }

    /// Counts everything as changed: the next [`Self::changed`] has all there is.
    pub fn change_all(&mut self) {
        for slot in 0..self.slots.len() {
            if let Ok(slot) = u32::try_from(slot) {
                self.list(slot);
            }
        }
    }

    /// Takes an entry that [`Missing::changed`] gave for a device that this watch has not seen.
    /// There may be more series than the limit by them, if it was lowered; no new one is then
    /// watched until there are fewer. After an error the watch is as it was.
    pub fn restore(&mut self, name: &[u8], entry: &[u8]) -> Result<(), SavedError> {
        let name = std::str::from_utf8(name)
            .map_err(|_| SavedError::Invalid("the name of a device is UTF-8"))?;
        if self.find(name).is_some() {
            return Err(SavedError::Invalid("each device has one entry"));
        }
        let fields = match self.spec.watch {
            Watch::Device => 1,
            Watch::Fields(count) => count,
        };
        let mut device = read(name, entry, fields)?;
        device.is_saved = true;
        let watched = device.series().len();
        let missing = device.series().iter().filter(|series| series.is_missing);
        let missing = missing.count();
        let slot = self
            .occupy(device)
            .ok_or(SavedError::Invalid("there are fewer than 2³² devices"))?;
        self.counters.watched += watched;
        self.counters.missing += missing;
        if let Some(place) = self.slots.get_mut(slot as usize) {
            for series in place.device.iter_mut().flat_map(Device::series_mut) {
                self.deadlines.schedule(slot, series, &self.spec);
            }
        }
        Ok(())
    }
}

fn write(device: &Device) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_byte(VERSION);
    out.put_count(device.series().len());
    let mut before = 0;
    for series in device.series() {
        out.put_varint(u64::from(series.field - before));
        out.put_byte(u8::from(series.is_missing));
        out.put_signed(series.seen);
        before = series.field;
    }
    out
}

fn read(name: &str, mut from: &[u8], fields: u32) -> Result<Device, SavedError> {
    const FIELDS: SavedError =
        SavedError::Invalid("a device has series of fields that are watched, each once");
    match from.byte()? {
        VERSION => {}
        other => return Err(SavedError::Version(other)),
    }
    let mut device = Device::new(name);
    let count = from.count(SERIES_BYTES)?;
    let mut before: Option<u32> = None;
    for _ in 0..count {
        let step = from.varint()?;
        if before.is_some() && step == 0 {
            return Err(FIELDS);
        }
        let field = u64::from(before.unwrap_or(0)).saturating_add(step);
        let field = u32::try_from(field).map_err(|_| FIELDS)?;
        if field >= fields {
            return Err(FIELDS);
        }
        let is_missing = match from.byte()? {
            0 => false,
            1 => true,
            _ => return Err(SavedError::Invalid("a series is missing or not")),
        };
        device.insert(Series {
            is_missing,
            ..Series::new(field, from.signed()?)
        });
        before = Some(field);
    }
    if device.is_empty() {
        return Err(FIELDS);
    }
    from.end()?;
    Ok(device)
}
