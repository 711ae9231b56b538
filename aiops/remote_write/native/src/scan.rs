//! One message of remote-write, 1.0 or 2.0: which series are in it, and their samples. Agrees with `reference.py` in everything.

use std::collections::HashMap;

use crate::hash::{Hasher, MOST, MOST_REFS};
use crate::table::{Table, UNKNOWN};
use crate::wire::{field, varint, Malformed, BYTES, FIXED64, TOO_MANY, VARINT};

pub const REASONS: usize = 13;
const LABELS_MALFORMED: i32 = -2;
const TOO_MANY_LABELS: i32 = -3;
const LABEL_TOO_LONG: i32 = -4;
const INVALID_UTF8: i32 = -5;
const DUPLICATE_LABEL: i32 = -6;
const NO_NAME: i32 = -7;
const TIME_OUT_OF_RANGE: usize = 8;
const NOT_A_NUMBER: usize = 9;
const STALE_UNKNOWN: usize = 10;
const HISTOGRAM: usize = 11;
const EXEMPLAR: usize = 12;
const UNHEARD: i32 = -32;
const FRESH: i32 = -64;

const STALE: u64 = 0x7FF0_0000_0000_0002;
const MAX_NAME: usize = 512;
const MAX_VALUE: usize = 4096;
const MAX_ROWS: usize = 1_000_000;

#[derive(Clone, Copy, Default)]
struct Sample {
    ms: i64,
    bits: u64,
}

impl Sample {
    #[inline]
    fn nan(self) -> bool {
        f64::from_bits(self.bits).is_nan()
    }
}

/// A series of the message: its samples are `samples[first..first + count]` of the scan; its bytes `begin..end` of the message.
struct Found {
    hash: u128,
    number: i32,
    first: u32,
    count: u32,
    begin: usize,
    end: usize,
    kind: (usize, usize),
}

/// Series that the table does not know. `spans`: offsets of name and value of each label, `ends[k]`: labels up to series k.
#[derive(Default)]
pub struct Fresh {
    pub hashes: Vec<u128>,
    pub codes: Vec<i32>,
    pub kinds: Vec<i32>,
    pub ends: Vec<u32>,
    pub spans: Vec<u32>,
    places: HashMap<u128, i32>,
}

#[derive(Clone, Copy)]
struct Symbol {
    hash: u128,
    begin: usize,
    end: usize,
}

pub struct Limits {
    pub labels: usize,
    pub lower_ms: i64,
    pub upper_ms: i64,
}

/// What the last message held. Its vectors are used again.
#[derive(Default)]
pub struct Scan {
    found: Vec<Found>,
    samples: Vec<Sample>,
    symbols: Vec<Symbol>,
    refs: Vec<u64>,
    scratch: Vec<u8>,
    pub fresh: Fresh,
    pub skipped: [i64; REASONS],
}

/// Where the samples go; all of them at least as long as `Scan::rows`.
pub struct Out<'a> {
    pub series: &'a mut [i32],
    pub time: &'a mut [f64],
    pub value: &'a mut [f64],
    pub ended: &'a mut [i32],
    pub ended_time: &'a mut [f64],
}

impl Scan {
    /// Reads a message. What it held is asked for with `rows`, `fill` and `fresh`.
    pub fn read(&mut self, data: &[u8], v2: bool, limits: &Limits, hasher: &Hasher, table: &Table) -> Result<(), Malformed> {
        self.clear();
        if v2 { self.read_v2(data, limits, hasher)? } else { self.read_v1(data, limits, hasher)? }
        for found in &mut self.found {
            if found.number == 0 {
                found.number = table.get(found.hash);
            }
        }
        self.ask(data, v2, limits);
        Ok(())
    }

    /// Samples in the message, used or not.
    pub fn rows(&self) -> usize {
        self.samples.len()
    }

    fn clear(&mut self) {
        self.found.clear();
        self.samples.clear();
        self.symbols.clear();
        self.skipped = [0; REASONS];
        let fresh = &mut self.fresh;
        fresh.hashes.clear();
        fresh.codes.clear();
        fresh.kinds.clear();
        fresh.ends.clear();
        fresh.spans.clear();
        fresh.places.clear();
    }

    // ------------------------------------------------------------------------------------------------------- 1.0
    fn read_v1(&mut self, data: &[u8], limits: &Limits, hasher: &Hasher) -> Result<(), Malformed> {
        let mut at = 0;
        while at < data.len() {
            let f = field(data, at)?;
            if f.number == 1 {
                f.expect(BYTES, at)?;
                self.begin_series(at)?;
                let found = self.series_v1(&data[..f.next], f.begin(), limits, hasher)?;
                self.found.push(found);
            }
            at = f.next;
        }
        Ok(())
    }

    fn series_v1(&mut self, data: &[u8], begin: usize, limits: &Limits, hasher: &Hasher) -> Result<Found, Malformed> {
        let (mut at, mut labels, first) = (begin, 0usize, self.samples.len());
        let (mut from, mut to, mut apart) = (begin, begin, false);
        while let Some(next) = next_label(data, at) {
            at = next;
            labels += 1;
        }
        to = if labels > 0 { at } else { to };
        while at < data.len() {
            let f = field(data, at)?;
            if (1..=4).contains(&f.number) {
                f.expect(BYTES, at)?;
            }
            match f.number {
                1 => {
                    apart |= labels > 0 && at != to;
                    from = if labels == 0 { at } else { from };
                    to = f.next;
                    labels += 1;
                }
                2 => {
                    self.add_sample(&data[..f.next], f.begin(), at)?;
                }
                3 => self.skipped[EXEMPLAR] += 1,
                4 => self.skipped[HISTOGRAM] += 1,
                _ => {}
            }
            at = f.next;
        }
        let mut found = Found {
            hash: 0, number: 0, first: first as u32, count: (self.samples.len() - first) as u32, begin, end: data.len(), kind: (0, 0),
        };
        if labels > limits.labels {
            found.number = TOO_MANY_LABELS;
            return Ok(found);
        }
        let key = if apart { self.gather(data, begin)? } else { &data[from..to] };
        if key.len() > MOST {
            found.number = LABEL_TOO_LONG;
        } else {
            found.hash = hasher.bytes(key);
        }
        Ok(found)
    }

    /// The fields of the labels of a series where something else stands between them.
    fn gather(&mut self, data: &[u8], begin: usize) -> Result<&[u8], Malformed> {
        self.scratch.clear();
        let mut at = begin;
        while at < data.len() {
            let f = field(data, at)?;
            if f.number == 1 {
                self.scratch.extend_from_slice(&data[at..f.next]);
            }
            at = f.next;
        }
        Ok(&self.scratch)
    }

    // ------------------------------------------------------------------------------------------------------- 2.0
    fn read_v2(&mut self, data: &[u8], limits: &Limits, hasher: &Hasher) -> Result<(), Malformed> {
        let (mut at, mut series) = (0, Vec::new());
        while at < data.len() {
            let f = field(data, at)?;
            if f.number == 4 || f.number == 5 {
                f.expect(BYTES, at)?;
                if (if f.number == 4 { self.symbols.len() } else { series.len() }) >= MAX_ROWS {
                    return Err(Malformed { code: TOO_MANY, at });
                }
            }
            if f.number == 4 {
                let text = &data[f.begin()..f.next];
                let hash = if text.len() > MOST { 0 } else { hasher.bytes(text) };
                self.symbols.push(Symbol { hash, begin: f.begin(), end: f.next });
            } else if f.number == 5 {
                series.push((at, f.begin(), f.next));
            }
            at = f.next;
        }
        for (at, begin, end) in series {
            self.begin_series(at)?;
            let found = self.series_v2(&data[..end], begin, limits, hasher)?;
            self.found.push(found);
        }
        Ok(())
    }

    fn series_v2(&mut self, data: &[u8], begin: usize, limits: &Limits, hasher: &Hasher) -> Result<Found, Malformed> {
        let (mut at, first, mut kind) = (begin, self.samples.len(), (0, 0));
        self.refs.clear();
        while at < data.len() {
            let f = field(data, at)?;
            if (2..=5).contains(&f.number) || f.number == 1 && f.wire != VARINT {
                f.expect(BYTES, at)?;
            }
            match f.number {
                1 => refs(&data[..f.next], &f, &mut self.refs)?,
                2 => {
                    self.add_sample(&data[..f.next], f.begin(), at)?;
                }
                3 => self.skipped[HISTOGRAM] += 1,
                4 => self.skipped[EXEMPLAR] += 1,
                5 => kind = (f.begin(), f.next),
                _ => {}
            }
            at = f.next;
        }
        let (hash, number) = self.key_v2(limits, hasher);
        let count = (self.samples.len() - first) as u32;
        Ok(Found { hash, number, first: first as u32, count, begin, end: data.len(), kind })
    }

    /// Hash and code of the labels in `refs`.
    fn key_v2(&self, limits: &Limits, hasher: &Hasher) -> (u128, i32) {
        if self.refs.len() > (2 * limits.labels).min(MOST_REFS) {
            return (0, TOO_MANY_LABELS);
        }
        if self.refs.len() % 2 == 1 || self.refs.iter().any(|&r| r >= self.symbols.len() as u64) {
            return (0, LABELS_MALFORMED);
        }
        let symbol = |&r: &u64| &self.symbols[r as usize];
        if self.refs.iter().map(symbol).map(|s| s.end - s.begin).sum::<usize>() > MOST {
            return (0, LABEL_TOO_LONG);
        }
        (hasher.sequence(self.refs.iter().map(|r| symbol(r).hash)), 0)
    }

    // ------------------------------------------------------------------------------------------------------ both
    fn begin_series(&mut self, at: usize) -> Result<(), Malformed> {
        if self.found.len() >= MAX_ROWS { Err(Malformed { code: TOO_MANY, at }) } else { Ok(()) }
    }

    #[inline]
    fn add_sample(&mut self, data: &[u8], begin: usize, at: usize) -> Result<(), Malformed> {
        if self.samples.len() >= MAX_ROWS {
            return Err(Malformed { code: TOO_MANY, at });
        }
        self.samples.push(sample(data, begin)?);
        Ok(())
    }

    /// Gives each unknown series with a usable sample a place among those to be asked for.
    fn ask(&mut self, data: &[u8], v2: bool, limits: &Limits) {
        for k in 0..self.found.len() {
            let found = &self.found[k];
            if found.number != UNKNOWN {
                continue;
            }
            let own = &self.samples[found.first as usize..(found.first + found.count) as usize];
            let usable = own.iter().any(|s| (limits.lower_ms..=limits.upper_ms).contains(&s.ms) && !s.nan());
            self.found[k].number = if usable { self.place(data, v2, k) } else { UNHEARD };
        }
    }

    fn place(&mut self, data: &[u8], v2: bool, k: usize) -> i32 {
        let hash = self.found[k].hash;
        if let Some(&number) = self.fresh.places.get(&hash) {
            return number;
        }
        let number = FRESH - self.fresh.hashes.len() as i32;
        let before = self.fresh.spans.len();
        let code = self.split(data, v2, k, before);
        if code != 0 {
            self.fresh.spans.truncate(before);
        }
        let (begin, end) = self.found[k].kind;
        self.fresh.places.insert(hash, number);
        self.fresh.hashes.push(hash);
        self.fresh.codes.push(code);
        self.fresh.kinds.push(kind(&data[..end], begin));
        self.fresh.ends.push((self.fresh.spans.len() / 4) as u32);
        number
    }

    /// Adds the labels of series k to the spans; 0, or the code of the first reason why they are unusable.
    fn split(&mut self, data: &[u8], v2: bool, k: usize, before: usize) -> i32 {
        let (begin, end) = (self.found[k].begin, self.found[k].end);
        let code = if v2 { self.split_v2(data, begin, end) } else { self.split_v1(&data[..end], begin) };
        if code != 0 {
            return code;
        }
        let spans = &self.fresh.spans[before..];
        let mut names: Vec<&[u8]> = spans.chunks_exact(4).map(|s| &data[s[0] as usize..s[1] as usize]).collect();
        names.sort_unstable();
        if names.windows(2).any(|w| w[0] == w[1]) {
            return DUPLICATE_LABEL;
        }
        let named = spans.chunks_exact(4).any(|s| &data[s[0] as usize..s[1] as usize] == b"__name__" && s[2] < s[3]);
        if named { 0 } else { NO_NAME }
    }

    fn split_v1(&mut self, data: &[u8], begin: usize) -> i32 {
        let mut at = begin;
        while at < data.len() {
            let Ok(f) = field(data, at) else { return LABELS_MALFORMED };
            if f.number == 1 {
                let Ok(pair) = label(&data[..f.next], f.begin()) else { return LABELS_MALFORMED };
                let code = self.add(data, pair);
                if code != 0 {
                    return code;
                }
            }
            at = f.next;
        }
        0
    }

    /// The symbols may stand behind the series: names and values are cut from the whole message.
    fn split_v2(&mut self, whole: &[u8], begin: usize, end: usize) -> i32 {
        let (data, mut at) = (&whole[..end], begin);
        self.refs.clear();
        while at < data.len() {
            let Ok(f) = field(data, at) else { return LABELS_MALFORMED };
            if f.number == 1 && refs(&data[..f.next], &f, &mut self.refs).is_err() {
                return LABELS_MALFORMED;
            }
            at = f.next;
        }
        for i in 0..self.refs.len() / 2 {
            let (name, value) = (self.symbols[self.refs[2 * i] as usize], self.symbols[self.refs[2 * i + 1] as usize]);
            let code = self.add(whole, (name.begin, name.end, value.begin, value.end));
            if code != 0 {
                return code;
            }
        }
        0
    }

    fn add(&mut self, data: &[u8], pair: (usize, usize, usize, usize)) -> i32 {
        let (name, value) = (&data[pair.0..pair.1], &data[pair.2..pair.3]);
        if name.is_empty() {
            return LABELS_MALFORMED;
        }
        if name.len() > MAX_NAME || value.len() > MAX_VALUE {
            return LABEL_TOO_LONG;
        }
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
            return INVALID_UTF8;
        }
        self.fresh.spans.extend([pair.0 as u32, pair.1 as u32, pair.2 as u32, pair.3 as u32]);
        0
    }

    /// Samples to be handed on and series that ended, each row one way; how many of both.
    pub fn fill(&mut self, limits: &Limits, out: Out<'_>) -> (usize, usize) {
        let (mut n, mut m) = (0, 0);
        for found in &self.found {
            let own = &self.samples[found.first as usize..(found.first + found.count) as usize];
            if found.number < 0 && found.number > UNHEARD {
                self.skipped[(-1 - found.number) as usize] += own.len() as i64;
                continue;
            }
            for sample in own {
                if sample.ms < limits.lower_ms || sample.ms > limits.upper_ms {
                    self.skipped[TIME_OUT_OF_RANGE] += 1;
                } else if sample.bits == STALE && found.number == UNHEARD {
                    self.skipped[STALE_UNKNOWN] += 1;
                } else if sample.bits == STALE {
                    out.ended[m] = found.number;
                    out.ended_time[m] = sample.ms as f64 / 1000.0;
                    m += 1;
                } else if sample.nan() {
                    self.skipped[NOT_A_NUMBER] += 1;
                } else {
                    out.series[n] = found.number;
                    out.time[n] = sample.ms as f64 / 1000.0;
                    out.value[n] = f64::from_bits(sample.bits);
                    n += 1;
                }
            }
        }
        (n, m)
    }
}

/// A value and a timestamp between 2004 and 2109, in this order, as they all come: read at once.
#[inline(always)]
fn usual_sample(content: &[u8]) -> Option<Sample> {
    let c: &[u8; 16] = content.try_into().ok()?;
    let low = u32::from_le_bytes([c[10], c[11], c[12], c[13]]);
    if c[0] != 0x09 || c[9] != 0x10 || low & 0x8080_8080 != 0x8080_8080 || c[14] < 0x80 || c[15] >= 0x80 {
        return None;
    }
    let mut bits = [0u8; 8];
    bits.copy_from_slice(&c[1..9]);
    let low = i64::from(low & 0x7F | (low & 0x7F00) >> 1 | (low & 0x007F_0000) >> 2 | (low & 0x7F00_0000) >> 3);
    let ms = low | i64::from(c[14] & 0x7F) << 28 | i64::from(c[15]) << 35;
    Some(Sample { ms, bits: u64::from_le_bytes(bits) })
}

/// One sample; what is left out is 0, and of what comes twice the last counts.
#[inline]
fn sample(data: &[u8], begin: usize) -> Result<Sample, Malformed> {
    if let Some(usual) = usual_sample(&data[begin..]) {
        return Ok(usual);
    }
    let (mut at, mut sample) = (begin, Sample::default());
    while at < data.len() {
        let f = field(data, at)?;
        if f.number == 1 {
            f.expect(FIXED64, at)?;
            let bytes = &data[f.begin()..f.next];
            sample.bits = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        } else if f.number == 2 {
            f.expect(VARINT, at)?;
            sample.ms = f.value as i64;
        }
        at = f.next;
    }
    Ok(sample)
}

/// Behind the label at `at`, where one of less than 16 KiB is there in its usual form.
#[inline(always)]
fn next_label(data: &[u8], at: usize) -> Option<usize> {
    let head = data.get(at..at + 3)?;
    if head[0] != 0x0A {
        return None;
    }
    let next = if head[1] < 0x80 {
        at + 2 + usize::from(head[1])
    } else if head[2] < 0x80 {
        at + 3 + usize::from(head[1] & 0x7F) + (usize::from(head[2]) << 7)
    } else {
        return None;
    };
    (next <= data.len()).then_some(next)
}

/// The references of one field: one number, or many in a packed field.
#[inline]
fn refs(data: &[u8], f: &crate::wire::Field, into: &mut Vec<u64>) -> Result<(), Malformed> {
    if f.wire == VARINT {
        into.push(f.value);
        return Ok(());
    }
    let mut at = f.begin();
    while at < data.len() {
        if into.len() >= MAX_ROWS {
            return Err(Malformed { code: TOO_MANY, at });
        }
        let (r, next) = varint(data, at, at)?;
        into.push(r);
        at = next;
    }
    Ok(())
}

/// Where name and value of a label of 1.0 stand.
fn label(data: &[u8], begin: usize) -> Result<(usize, usize, usize, usize), Malformed> {
    let (mut at, mut name, mut value) = (begin, (begin, begin), (begin, begin));
    while at < data.len() {
        let f = field(data, at)?;
        if f.number == 1 || f.number == 2 {
            f.expect(BYTES, at)?;
            *(if f.number == 1 { &mut name } else { &mut value }) = (f.begin(), f.next);
        }
        at = f.next;
    }
    Ok((name.0, name.1, value.0, value.1))
}

/// The type in a metric's metadata, 0 where none can be read.
fn kind(data: &[u8], begin: usize) -> i32 {
    let (mut at, mut kind) = (begin, 0);
    while at < data.len() {
        let Ok(f) = field(data, at) else { return 0 };
        if f.number == 1 && f.wire == VARINT {
            kind = if f.value < 256 { f.value as i32 } else { 0 };
        }
        at = f.next;
    }
    kind
}
