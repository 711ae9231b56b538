//! A keyed hash of label bytes: NH in two levels, as in UMAC (Black et al., CRYPTO 1999, and RFC 4418), with words of 64 bits.
//!
//! Who does not know the key finds two inputs with the same hash with a probability of about 2^-62 a pair, whatever they are.
//! The key is drawn anew in each process and never leaves it.

use std::convert::TryInto;

const BLOCK: usize = 1024;
/// The longest input.
pub const MOST: usize = 65_536;
/// Most references to symbols in one series.
pub const MOST_REFS: usize = 512;
const FIRST: usize = BLOCK / 8;
const SECOND: usize = 2 * MOST / BLOCK;
const FOLD: usize = 2 * MOST_REFS;
/// Words of the key.
pub const KEY_WORDS: usize = FIRST + SECOND + FOLD + 2;

pub struct Hasher {
    first: Vec<u64>,
    second: Vec<u64>,
    fold: Vec<u64>,
    length: u64,
    count: u64,
}

#[inline]
fn product(a: u64, b: u64, key: &[u64]) -> u128 {
    u128::from(a.wrapping_add(key[0])).wrapping_mul(u128::from(b.wrapping_add(key[1])))
}

impl Hasher {
    /// `key`: KEY_WORDS random words.
    pub fn new(key: &[u64]) -> Hasher {
        let (first, rest) = key.split_at(FIRST);
        let (second, rest) = rest.split_at(SECOND);
        let (fold, rest) = rest.split_at(FOLD);
        Hasher { first: first.to_vec(), second: second.to_vec(), fold: fold.to_vec(), length: rest[0], count: rest[1] }
    }

    /// Of at most MOST bytes; what is beyond is not looked at, so callers refuse longer inputs.
    #[inline]
    pub fn bytes(&self, data: &[u8]) -> u128 {
        let mut sum = u128::from(self.length).wrapping_mul(data.len() as u128);
        for (block, key) in data.chunks(BLOCK).zip(self.second.chunks_exact(2)) {
            let part = self.block(block);
            sum = sum.wrapping_add(product((part >> 64) as u64, part as u64, key));
        }
        sum
    }

    #[inline]
    fn block(&self, block: &[u8]) -> u128 {
        let (mut even, mut odd) = (0u128, 0u128);
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes"));
        let whole = block.len() & !31;
        for (c, k) in block[..whole].chunks_exact(32).zip(self.first.chunks_exact(4)) {
            even = even.wrapping_add(product(word(&c[..8]), word(&c[8..16]), &k[..2]));
            odd = odd.wrapping_add(product(word(&c[16..24]), word(&c[24..32]), &k[2..4]));
        }
        if whole < block.len() {
            let mut last = [0u8; 32];
            last[..block.len() - whole].copy_from_slice(&block[whole..]);
            let k = &self.first[whole / 8..whole / 8 + 4];
            even = even.wrapping_add(product(word(&last[..8]), word(&last[8..16]), &k[..2]));
            odd = odd.wrapping_add(product(word(&last[16..24]), word(&last[24..]), &k[2..]));
        }
        even.wrapping_add(odd)
    }

    /// Of a sequence of hashes, at most MOST_REFS of them; never the same as that of bytes, but by chance.
    #[inline]
    pub fn sequence(&self, hashes: impl Iterator<Item = u128>) -> u128 {
        let (mut sum, mut n) = (0u128, 0u64);
        for (hash, key) in hashes.zip(self.fold.chunks_exact(2)) {
            sum = sum.wrapping_add(product((hash >> 64) as u64, hash as u64, key));
            n += 1;
        }
        sum.wrapping_add(u128::from(self.count).wrapping_mul(u128::from(n + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> Hasher {
        let mut x = 0x9E37_79B9_7F4A_7C15u64;
        let key: Vec<u64> = (0..KEY_WORDS).map(|_| { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x }).collect();
        Hasher::new(&key)
    }

    #[test]
    fn every_byte_and_the_length_count() {
        let h = hasher();
        let mut seen = std::collections::HashSet::new();
        for size in 0..2100 {
            let mut data = vec![0u8; size];
            assert!(seen.insert(h.bytes(&data)), "length {size}");
            if size > 0 {
                data[size - 1] = 1;
                assert!(seen.insert(h.bytes(&data)), "last byte of {size}");
            }
        }
    }

    #[test]
    fn order_and_number_of_symbols_count() {
        let h = hasher();
        let of = |x: &[u128]| h.sequence(x.iter().copied());
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[0]), of(&[0, 0]));
        assert_ne!(of(&[]), h.bytes(b""));
    }
}
