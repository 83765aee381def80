//! What is known of a device: its series, and when each had data last.

use std::sync::Arc;

/// A field of a device, or the device itself as field 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    pub field: u32,
    /// When there was data last, in record time.
    pub seen: i64,
    pub is_missing: bool,
    /// Its deadline among [`super::Deadlines`]: not later than what is to become of it.
    pub scheduled: Option<i64>,
}

impl Series {
    pub const fn new(field: u32, seen: i64) -> Self {
        Self {
            field,
            seen,
            is_missing: false,
            scheduled: None,
        }
    }
}

/// A device that has a series.
#[derive(Debug)]
pub(super) struct Device {
    pub name: Arc<str>,
    /// Whether a checkpoint may know it.
    pub is_saved: bool,
    /// In order of their fields.
    series: Vec<Series>,
}

impl Device {
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            is_saved: false,
            series: Vec::new(),
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub fn series(&self) -> &[Series] {
        &self.series
    }

    pub fn series_mut(&mut self) -> &mut [Series] {
        &mut self.series
    }

    fn place(&self, field: u32) -> Result<usize, usize> {
        self.series
            .binary_search_by_key(&field, |other| other.field)
    }

    pub fn get(&self, field: u32) -> Option<&Series> {
        self.series.get(self.place(field).ok()?)
    }

    pub fn get_mut(&mut self, field: u32) -> Option<&mut Series> {
        let place = self.place(field).ok()?;
        self.series.get_mut(place)
    }

    /// Adds a series that is not there.
    pub fn insert(&mut self, series: Series) {
        if let Err(place) = self.place(series.field) {
            self.series.insert(place, series);
        }
    }

    /// Whether there was such a series.
    pub fn remove(&mut self, field: u32) -> bool {
        let place = self.place(field);
        if let Ok(place) = place {
            self.series.remove(place);
        }
        place.is_ok()
    }
}
