//! A slab whose keys carry a generation, so that a key outliving its entry is a miss and never somebody else.
//!
//! Used by [`Driver`](crate::Driver) to name registrations: the key travels through the kernel as a 64-bit
//! token and may come back after the descriptor was closed and its number given away. Never drops an entry by
//! itself.

/// Names one entry of a [`Slots`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Which slot.
    pub index: u32,
    /// Which use of that slot.
    pub generation: u32,
}

impl Key {
    /// The key as the kernel carries it.
    #[inline]
    pub const fn to_token(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key that a token stands for.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "each half is a u32 by construction")]
    pub const fn from_token(token: u64) -> Self {
        Self { index: token as u32, generation: (token >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

/// Entries by [`Key`].
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// No entries.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// The key that the next [`insert`](Self::insert) will give.
    ///
    /// # Panics
    /// When four billion entries live at once.
    pub fn next_key(&self) -> Key {
        if let Some(&index) = self.free.last() {
            return Key { index, generation: self.slots[index as usize].generation };
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        assert!(index != u32::MAX, "more than four billion entries");
        Key { index, generation: 0 }
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// When four billion entries live at once.
    pub fn insert(&mut self, entry: T) -> Key {
        let key = self.next_key();
        if self.free.pop().is_some() {
            self.slots[key.index as usize].entry = Some(entry);
        } else {
            self.slots.push(Slot { generation: 0, entry: Some(entry) });
        }
        key
    }

    /// Takes an entry out; its key becomes a miss for good (until its generation comes round after 2³² uses).
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(entry)
    }

    /// The entry under `key`.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.entry.as_ref() } else { None }
    }

    /// The entry under `key`, to change.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.entry.as_mut() } else { None }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            slot.entry.as_ref().map(|entry| (Key { index, generation: slot.generation }, entry))
        })
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_misses_the_next_entry_in_its_slot() {
        let mut slots = Slots::new();
        let stale = slots.insert('a');
        assert_eq!(slots.remove(stale), Some('a'));
        let fresh = slots.insert('b');
        assert_eq!(fresh.index, stale.index);
        assert_eq!((slots.get(stale), slots.get(fresh)), (None, Some(&'b')));
        assert_eq!(slots.remove(stale), None);
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(fresh, &'b')]);
    }

    #[test]
    fn a_key_survives_the_kernel() {
        let key = Key { index: 0xdead_beef, generation: 0xcafe_f00d };
        assert_eq!(Key::from_token(key.to_token()), key);
    }
}
