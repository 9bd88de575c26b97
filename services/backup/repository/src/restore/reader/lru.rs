//! A cache bounded in bytes that drops the least recently used values.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key, bounded by the bytes they take together; the least recently used go first.
pub(super) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by the time of their last use.
    order: BTreeMap<u64, K>,
    clock: u64,
    bytes: usize,
    bytes_max: usize,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Lru<K, V> {
    pub(super) fn new(bytes_max: usize) -> Lru<K, V> {
        Lru { entries: HashMap::new(), order: BTreeMap::new(), clock: 0, bytes: 0, bytes_max }
    }

    /// The value, which counts as used now.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        let value = entry.value.clone();
        let before = std::mem::replace(&mut entry.used, self.clock);
        let key = self.order.remove(&before).expect("every entry has its place in the order");
        self.order.insert(self.clock, key);
        self.clock += 1;
        Some(value)
    }

    /// Keeps a value; one that alone is larger than the bound is not kept.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        if let Some(old) = self.entries.remove(&key) {
            self.order.remove(&old.used);
            self.bytes -= old.bytes;
        }
        if bytes > self.bytes_max {
            return;
        }
        while self.bytes + bytes > self.bytes_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            let gone = self.entries.remove(&oldest).expect("what is in the order is an entry");
            self.bytes -= gone.bytes;
        }
        self.bytes += bytes;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { value, bytes, used: self.clock });
        self.clock += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_the_bound_holds() {
        let mut lru = Lru::new(10);
        for key in 0..3 {
            lru.insert(key, key, 3);
        }
        assert_eq!(lru.get(&0), Some(0));
        lru.insert(3, 3, 3);
        assert_eq!([0, 1, 2, 3].map(|key| lru.get(&key)), [Some(0), None, Some(2), Some(3)]);
        lru.insert(4, 4, 11);
        assert_eq!(lru.get(&4), None);
        lru.insert(5, 5, 10);
        assert_eq!((lru.bytes, lru.entries.len(), lru.order.len()), (10, 1, 1));
        lru.insert(5, 6, 1);
        assert_eq!((lru.get(&5), lru.bytes, lru.order.len()), (Some(6), 1, 1));
    }
}
