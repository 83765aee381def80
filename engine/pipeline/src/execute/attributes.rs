//! What is known of devices beside their rows: attributes, as of the record that is evaluated.

use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, DictionaryArray, StringArray, builder::StringBuilder, types::Int32Type,
};
use hashbrown::HashMap;

/// Attributes of devices.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    devices: HashMap<Box<str>, HashMap<Box<str>, Arc<str>>>,
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
