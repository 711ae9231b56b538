//! The whole C interface on arbitrary messages, with the address sanitiser: `cargo +nightly fuzz run interface`.
//!
//! The first byte says which version, whether the table forgets something, and how answers are given; the rest is the message.
#![no_main]

use std::cell::RefCell;

use aiops_remote_write::{rw_fill, rw_forget, rw_intern, rw_key_words, rw_len, rw_new, rw_scan, Arrays, Codec, Found};
use libfuzzer_sys::fuzz_target;

const REASONS: usize = 13;

thread_local! {
    static CODEC: RefCell<*mut Codec> = RefCell::new(new());
}

fn new() -> *mut Codec {
    let key: Vec<u64> = (1..=rw_key_words()).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    unsafe { rw_new(key.as_ptr(), 16, 200, 50) }
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, data)) = input.split_first() else { return };
    let codec = CODEC.with(|c| *c.borrow());
    let mut found = unsafe { std::mem::zeroed::<Found>() };
    let version = 1 + u32::from(how & 1);
    assert_eq!(unsafe { rw_scan(codec, data.as_ptr(), data.len() as u64, version, -1000, 2_000_000_000_000, &mut found) }, 0);
    if found.code != 0 {
        assert!(found.at <= data.len() as u64);
        return;
    }
    let (rows, fresh) = (found.rows as usize, found.fresh as usize);
    let mut labels = 0;
    for k in 0..fresh {
        labels = unsafe { *found.ends.add(k) } as usize;
    }
    for i in 0..2 * labels {
        let (a, b) = unsafe { (*found.spans.add(2 * i), *found.spans.add(2 * i + 1)) };
        assert!(a <= b && b as usize <= data.len());
        std::str::from_utf8(&data[a as usize..b as usize]).expect("what is handed out is text");
    }
    let (mut ids, mut floats, mut skipped) = (vec![0i32; 2 * rows], vec![0f64; 3 * rows], vec![0i64; REASONS]);
    let mut arrays = Arrays {
        series: ids.as_mut_ptr(), ended: ids.as_mut_ptr().wrapping_add(rows), time: floats.as_mut_ptr(),
        value: floats.as_mut_ptr().wrapping_add(rows), ended_time: floats.as_mut_ptr().wrapping_add(2 * rows),
        skipped: skipped.as_mut_ptr(), n: 0, m: 0,
    };
    assert_eq!(unsafe { rw_fill(codec, &mut arrays) }, 0);
    assert!((arrays.n + arrays.m) as usize <= rows);
    assert!(floats[rows..rows + arrays.n as usize].iter().all(|v| !v.is_nan()));
    let numbers: Vec<i32> = (0..fresh as i32).map(|k| if how & 2 == 0 { k } else { -1 - k % 8 }).collect();
    assert_eq!(unsafe { rw_intern(codec, numbers.as_ptr()) }, 0);
    if how & 4 != 0 {
        assert!(unsafe { rw_forget(codec, [0, 1, -1].as_ptr(), 3) } >= 0);
    }
    assert!(unsafe { rw_len(codec) } <= 250);
});
