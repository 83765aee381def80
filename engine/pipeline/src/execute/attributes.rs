//! What is known of devices beside their rows: attributes, as of the record that is evaluated.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array as _, ArrayRef, DictionaryArray, StringArray, builder::StringBuilder, types::Int32Type,
};
use hashbrown::{HashMap, HashSet};

use crate::execute::state::Entries;

/// Attributes of devices.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    devices: HashMap<Box<str>, HashMap<Box<str>, Arc<str>>>,
    /// Devices of which something else is known since this was last asked.
    dirty: HashSet<Box<str>>,
}

impl Attributes {
    /// Sets what is known of a device; nothing, if there are none.
    pub fn set<'a>(
        &mut self,
        device: &str,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let attributes: HashMap<Box<str>, Arc<str>> = attributes
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        if self
            .devices
            .get(device)
            .map_or(attributes.is_empty(), |known| *known == attributes)
        {
            return;
        }
        self.dirty.insert(device.into());
        if attributes.is_empty() {
            self.devices.remove(device);
        } else {
            self.devices.insert(device.into(), attributes);
        }
    }

    /// An attribute of a device.
    pub fn get(&self, device: &str, key: &str) -> Option<&str> {
        self.devices.get(device)?.get(key).map(AsRef::as_ref)
    }

    /// What is known now of devices of which it has changed; of all, if `is_all`.
    pub(crate) fn changed(&mut self, is_all: bool, entries: &mut Entries) {
        if is_all {
            self.dirty = self.devices.keys().cloned().collect();
        }
        for device in std::mem::take(&mut self.dirty) {
            let known = self.devices.get(&device).map(|attributes| {
                let sorted: BTreeMap<&str, &str> = attributes
                    .iter()
                    .map(|(key, value)| (key.as_ref(), value.as_ref()))
                    .collect();
                // A map of texts always has a JSON form.
                serde_json::to_vec(&sorted).unwrap_or_default().into()
            });
            entries.insert(device.as_bytes().into(), known);
        }
    }

    /// Puts back what [`Self::changed`] gave.
    pub(crate) fn restore(&mut self, entries: &Entries) -> Result<(), String> {
        for (device, attributes) in entries {
            let (Some(attributes), true) =
                (attributes, device.first().is_some_and(|first| *first > 1))
            else {
                continue;
            };
            let device = std::str::from_utf8(device).map_err(|error| error.to_string())?;
            let attributes: BTreeMap<String, String> =
                serde_json::from_slice(attributes).map_err(|error| error.to_string())?;
            let attributes = attributes
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()));
            self.set(device, attributes);
            self.dirty.remove(device);
        }
        Ok(())
    }

    /// An attribute of the device of each row: text, null where a device has none.
    pub(crate) fn column(&self, device: &DictionaryArray<Int32Type>, key: &str) -> ArrayRef {
        let Some(devices) = device.values().as_any().downcast_ref::<StringArray>() else {
            return arrow_array::new_null_array(&arrow_schema::DataType::Utf8, device.len());
        };
        let values: Vec<Option<&str>> = devices
            .iter()
            .map(|device| self.get(device?, key))
            .collect();
        let mut column = StringBuilder::with_capacity(device.len(), device.len() * 8);
        for row in device.keys() {
            let value = row.and_then(|row| values.get(usize::try_from(row).ok()?).copied()?);
            column.append_option(value);
        }
        Arc::new(column.finish())
    }
}
