//! Values that do not fit into a word, by numbers that do. Number 0 is no value.

/// Values by number.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// The value with a number.
    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        self.values.get(index(number)?)?.as_ref()
    }

    /// The value with a number, to be changed.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.values.get_mut(index(number)?)?.as_mut()
    }

    /// Puts a value where `number` says, or if that is 0, where it then says.
    pub(crate) fn put(&mut self, number: &mut u64, value: T) {
        if let Some(place) = index(*number).and_then(|index| self.values.get_mut(index)) {
            *place = Some(value);
            return;
        }
        if let Some(free) = self.free.pop() {
            *number = u64::from(free) + 1;
            if let Some(place) = self.values.get_mut(free as usize) {
                *place = Some(value);
            }
            return;
        }
        self.values.push(Some(value));
        *number = self.values.len() as u64;
    }

    /// Takes a value out.
    pub(crate) fn take(&mut self, number: &mut u64) -> Option<T> {
        let index = index(*number)?;
        *number = 0;
        let value = self.values.get_mut(index)?.take()?;
        if let Ok(free) = u32::try_from(index) {
            self.free.push(free);
        }
        Some(value)
    }
}

fn index(number: u64) -> Option<usize> {
    usize::try_from(number.checked_sub(1)?).ok()
}
