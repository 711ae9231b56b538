//! The decoder of Prometheus remote-write behind a C interface, for `native.py`. Only this file holds unsafe code.
//!
//! One `Codec` is used by one caller at a time. A panic never crosses the interface: it is answered with `PANIC`, and the
//! codec is not to be used after that.
#![deny(unsafe_code)]

mod hash;
mod scan;
mod table;
mod wire;

use std::collections::HashSet;
use std::panic::{catch_unwind, AssertUnwindSafe};

use hash::{Hasher, KEY_WORDS};
use scan::{Limits, Out, Scan, REASONS};
use table::Table;

const ABI: u32 = 1;
const PANIC: i64 = -99;

/// Table, key and the last message.
pub struct Codec {
    hasher: Hasher,
    table: Table,
    scan: Scan,
    limits: Limits,
}

/// What came of a scan. Pointers hold until the next call with the same codec.
#[repr(C)]
pub struct Found {
    /// Code of what is malformed, 0 for nothing, and where.
    pub code: i32,
    /// Series that the table does not know.
    pub fresh: u32,
    /// Offset of the field that is malformed.
    pub at: u64,
    /// Samples in the message, used or not.
    pub rows: u64,
    /// int32[fresh]: 0, or why the labels are unusable.
    pub codes: *const i32,
    /// int32[fresh]: type of the metric.
    pub kinds: *const i32,
    /// uint32[fresh]: labels up to and with series k.
    pub ends: *const u32,
    /// uint32[ends[-1]][4]: begin and end of the name, begin and end of the value.
    pub spans: *const u32,
}

/// Arrays of at least `rows` each, `skipped` of REASONS; `n` and `m` are set.
#[repr(C)]
pub struct Arrays {
    /// Numbers of the series of the samples.
    pub series: *mut i32,
    /// Seconds.
    pub time: *mut f64,
    /// Values.
    pub value: *mut f64,
    /// Numbers of the series that ended.
    pub ended: *mut i32,
    /// Seconds.
    pub ended_time: *mut f64,
    /// Samples that are not handed on, by reason.
    pub skipped: *mut i64,
    /// Samples.
    pub n: u64,
    /// Series that ended.
    pub m: u64,
}

/// The version of this interface.
#[no_mangle]
#[allow(unsafe_code)]
pub extern "C" fn rw_abi() -> u32 {
    ABI
}

/// Words of 64 bits that `rw_new` wants as key.
#[no_mangle]
#[allow(unsafe_code)]
pub extern "C" fn rw_key_words() -> u64 {
    KEY_WORDS as u64
}

/// A codec with an empty table.
///
/// # Safety
/// `key` points at `rw_key_words()` words.
#[no_mangle]
#[allow(unsafe_code)]
pub unsafe extern "C" fn rw_new(key: *const u64, labels: u64, watched: u64, others: u64) -> *mut Codec {
    // SAFETY: the caller's promise.
    let key = unsafe { std::slice::from_raw_parts(key, KEY_WORDS) };
    let limits = Limits { labels: labels as usize, lower_ms: 0, upper_ms: 0 };
    let codec = Codec {
        hasher: Hasher::new(key), table: Table::new(watched as usize, others as usize), scan: Scan::default(), limits,
    };
    Box::into_raw(Box::new(codec))
}

/// Frees a codec.
///
/// # Safety
/// `codec` is from `rw_new` and not used again.
#[no_mangle]
#[allow(unsafe_code)]
pub unsafe extern "C" fn rw_free(codec: *mut Codec) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(codec) });
}

/// Reads a message of version 1 or 2; 0, or PANIC. What came of it is in `found`.
///
/// # Safety
/// `codec` is from `rw_new` and used by nobody else, `data` has `size` bytes, `found` may be written.
#[no_mangle]
#[allow(unsafe_code)]
pub unsafe extern "C" fn rw_scan(codec: *mut Codec, data: *const u8, size: u64, version: u32, lower_ms: i64, upper_ms: i64,
                                 found: *mut Found) -> i64 {
    // SAFETY: the caller's promise.
    let (codec, found) = unsafe { (&mut *codec, &mut *found) };
    // SAFETY: the caller's promise; an empty message has no address.
    let data = if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, size as usize) } };
    guarded(|| {
        codec.limits.lower_ms = lower_ms;
        codec.limits.upper_ms = upper_ms;
        let read = codec.scan.read(data, version == 2, &codec.limits, &codec.hasher, &codec.table);
        let (code, at) = read.err().map_or((0, 0), |e| (e.code, e.at));
        let fresh = &codec.scan.fresh;
        *found = Found {
            code, at: at as u64, fresh: fresh.codes.len() as u32, rows: codec.scan.rows() as u64, codes: fresh.codes.as_ptr(),
            kinds: fresh.kinds.as_ptr(), ends: fresh.ends.as_ptr(), spans: fresh.spans.as_ptr(),
        };
        0
    })
}

/// Writes the samples of the last message; 0, or PANIC.
///
/// # Safety
/// `codec` is from `rw_new` and used by nobody else, its last scan found `rows`, and the arrays are that long.
#[no_mangle]
#[allow(unsafe_code)]
pub unsafe extern "C" fn rw_fill(codec: *mut Codec, arrays: *mut Arrays) -> i64 {
    // SAFETY: the caller's promise.
    let (codec, arrays) = unsafe { (&mut *codec, &mut *arrays) };
    let rows = codec.scan.rows();
    // SAFETY: the caller's promise.
    let (out, skipped) = unsafe {
        (Out {
            series: std::slice::from_raw_parts_mut(arrays.series, rows),
            time: std::slice::from_raw_parts_mut(arrays.time, rows),
            value: std::slice::from_raw_parts_mut(arrays.value, rows),
            ended: std::slice::from_raw_parts_mut(arrays.ended, rows),
            ended_time: std::slice::from_raw_parts_mut(arrays.ended_time, rows),
        }, std::slice::from_raw_parts_mut(arrays.skipped, REASONS))
    };
    guarded(|| {
        let (n, m) = codec.scan.fill(&codec.limits, out);
        (arrays.n, arrays.m) = (n as u64, m as u64);
        skipped.copy_from_slice(&codec.scan.skipped);
        0
    })
}

/// Remembers the numbers, or codes, of the fresh series of the last scan; 0, or PANIC.
///
/// # Safety
/// `codec` is from `rw_new` and used by nobody else; `numbers` holds one for each fresh series.
#[no_mangle]
#[allow(unsafe_code)]
pub unsafe extern "C" fn rw_intern(codec: *mut Codec, numbers: *const i32) -> i64 {
    // SAFETY: the caller's promise.
    let codec = unsafe { &mut *codec };
    let n = codec.scan.fresh.hashes.len();
    // SAFETY: the caller's promise; nothing is read where there are none.
    let numbers = if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(numbers, n) } };
    guarded(|| {
        for (&hash, &number) in codec.scan.fresh.hashes.iter().zip(numbers) {
            codec.table.put(hash, number);
        }
        codec.scan.fresh.hashes.clear();
        0
    })
}

/// Forgets all that stands for these numbers; how many entries that were, or PANIC.
///
/// # Safety
/// `codec` is from `rw_new` and used by nobody else; `numbers` holds `n`, at least one.
#[no_mangle]
#[allow(unsafe_code)]
pub unsafe extern "C" fn rw_forget(codec: *mut Codec, numbers: *const i32, n: u64) -> i64 {
    // SAFETY: the caller's promise.
    let (codec, numbers) = unsafe { (&mut *codec, std::slice::from_raw_parts(numbers, n as usize)) };
    guarded(|| codec.table.forget(&numbers.iter().copied().collect::<HashSet<i32>>()) as i64)
}

/// Entries of the table.
///
/// # Safety
/// `codec` is from `rw_new` and used by nobody else.
#[no_mangle]
#[allow(unsafe_code)]
pub unsafe extern "C" fn rw_len(codec: *const Codec) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*codec).table.len() as u64 }
}

fn guarded(work: impl FnOnce() -> i64) -> i64 {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANIC)
}
