//! The streams that packed senders refer to, by number. A stream is forgotten when nobody refers to
//! it any more: senders may name streams that never come into being.

use std::collections::HashMap;

use quiver_model::StreamName;

/// Streams by number, with how often each is referred to.
#[derive(Debug, Default)]
pub(super) struct StreamSet {
    streams: Vec<Option<(StreamName, u64)>>,
    numbers: HashMap<StreamName, u32>,
    free: Vec<u32>,
}

impl StreamSet {
    /// The number of a stream, which is referred to once more. `None` if all are given away.
    pub(super) fn refer(&mut self, stream: &StreamName) -> Option<u32> {
        if let Some(number) = self.numbers.get(stream) {
            if let Some((_, uses)) = self.streams.get_mut(*number as usize)?.as_mut() {
                *uses += 1;
            }
            return Some(*number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.streams.len()).ok()?;
                self.streams.push(None);
                number
            }
        };
        *self.streams.get_mut(number as usize)? = Some((stream.clone(), 1));
        self.numbers.insert(stream.clone(), number);
        Some(number)
    }

    /// The stream with a number.
    pub(super) fn get(&self, number: u32) -> Option<&StreamName> {
        let (stream, _) = self.streams.get(number as usize)?.as_ref()?;
        Some(stream)
    }

    /// One reference less.
    pub(super) fn release(&mut self, number: u32) {
        let Some(held) = self.streams.get_mut(number as usize) else {
            return;
        };
        let Some((stream, uses)) = held else { return };
        *uses -= 1;
        if *uses == 0 {
            self.numbers.remove(stream);
            *held = None;
            self.free.push(number);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_there_as_long_as_somebody_refers_to_it() {
        let name = |name: &str| StreamName::new(name).unwrap();
        let mut set = StreamSet::default();
        assert_eq!(set.refer(&name("a")), Some(0));
        assert_eq!(set.refer(&name("b")), Some(1));
        assert_eq!(set.refer(&name("a")), Some(0));
        set.release(0);
        assert_eq!(set.get(0), Some(&name("a")));
        set.release(0);
        assert_eq!((set.get(0), set.len()), (None, 1));
        assert_eq!(set.refer(&name("c")), Some(0));
        assert_eq!(set.get(1), Some(&name("b")));
    }
}
