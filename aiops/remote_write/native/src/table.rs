//! From the hash of a series to its number: open addressing with linear probing. What is dropped is dropped by rebuilding.

/// No entry.
pub const UNKNOWN: i32 = i32::MIN;

#[derive(Clone, Copy)]
struct Entry {
    hash: u128,
    born: u64,
    number: i32,
}

const EMPTY: Entry = Entry { hash: 0, born: 0, number: UNKNOWN };

pub struct Table {
    slots: Vec<Entry>,
    births: u64,
    /// Entries with a number, and those with a reason why they have none.
    counts: [usize; 2],
    most: [usize; 2],
}

#[inline]
fn place(hash: u128) -> usize {
    let mut x = (hash as u64) ^ ((hash >> 64) as u64).rotate_left(32);
    x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (x ^ (x >> 32)) as usize
}

impl Table {
    pub fn new(watched: usize, others: usize) -> Table {
        Table { slots: vec![EMPTY; 1024], births: 0, counts: [0, 0], most: [watched, others] }
    }

    pub fn len(&self) -> usize {
        self.counts[0] + self.counts[1]
    }

    /// The number of a series, a code below 0, or UNKNOWN.
    #[inline]
    pub fn get(&self, hash: u128) -> i32 {
        let mask = self.slots.len() - 1;
        let mut at = place(hash) & mask;
        loop {
            let entry = &self.slots[at];
            if entry.hash == hash || entry.number == UNKNOWN {
                return entry.number;
            }
            at = (at + 1) & mask;
        }
    }

    /// Remembers the number of a hash that is unknown. Beyond the limit of its kind the oldest eighth gives way.
    pub fn put(&mut self, hash: u128, number: i32) {
        self.births += 1;
        self.insert(Entry { hash, born: self.births, number });
        let kind = usize::from(number < 0);
        if self.counts[kind] > self.most[kind] {
            self.drop_oldest(kind, (self.most[kind] / 8).max(1));
        }
        if self.len() * 2 > self.slots.len() {
            self.rebuild(self.slots.len() * 2, |_| true);
        }
    }

    /// How many entries had one of these numbers; they are gone.
    pub fn forget(&mut self, numbers: &std::collections::HashSet<i32>) -> usize {
        let before = self.len();
        self.rebuild(self.slots.len(), |entry| !numbers.contains(&entry.number));
        before - self.len()
    }

    fn insert(&mut self, entry: Entry) {
        let mask = self.slots.len() - 1;
        let mut at = place(entry.hash) & mask;
        while self.slots[at].number != UNKNOWN && self.slots[at].hash != entry.hash {
            at = (at + 1) & mask;
        }
        if self.slots[at].number == UNKNOWN {
            self.counts[usize::from(entry.number < 0)] += 1;
            self.slots[at] = entry;
        }
    }

    fn drop_oldest(&mut self, kind: usize, n: usize) {
        let mut born: Vec<u64> =
            self.slots.iter().filter(|e| e.number != UNKNOWN && usize::from(e.number < 0) == kind).map(|e| e.born).collect();
        let n = n.min(born.len());
        let (_, &mut last, _) = born.select_nth_unstable(n - 1);
        self.rebuild(self.slots.len(), |e| usize::from(e.number < 0) != kind || e.born > last);
    }

    fn rebuild(&mut self, size: usize, keep: impl Fn(&Entry) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; size]);
        self.counts = [0, 0];
        for entry in old {
            if entry.number != UNKNOWN && keep(&entry) {
                self.insert(entry);
            }
        }
    }
}
