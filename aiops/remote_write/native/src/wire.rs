//! The wire format of protobuf: https://protobuf.dev/programming-guides/encoding/. Agrees with `wire.py`.

pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const BYTES: u8 = 2;

pub const TRUNCATED: i32 = 1;
pub const OVERFLOW: i32 = 2;
pub const WRONG_TYPE: i32 = 3;
pub const BAD_TAG: i32 = 4;
pub const TOO_MANY: i32 = 5;

/// Why a message cannot be read, and at which byte the field begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    pub code: i32,
    pub at: usize,
}

/// A field: `value` is the number itself for VARINT, else the offset of its content; `next` the offset behind it.
#[derive(Clone, Copy)]
pub struct Field {
    pub number: u32,
    pub wire: u8,
    pub value: u64,
    pub next: usize,
}

impl Field {
    /// Where the content of a field that is not a number begins.
    #[inline]
    pub fn begin(&self) -> usize {
        self.value as usize
    }

    /// Fails where a known field has another wire type.
    #[inline]
    pub fn expect(&self, wanted: u8, at: usize) -> Result<(), Malformed> {
        if self.wire == wanted { Ok(()) } else { Err(Malformed { code: WRONG_TYPE, at }) }
    }
}

/// The number at `at`, and the offset behind it. `data` ends where the number must have ended.
#[inline]
pub fn varint(data: &[u8], at: usize, field_at: usize) -> Result<(u64, usize), Malformed> {
    match data.get(at) {
        Some(&byte) if byte < 0x80 => Ok((u64::from(byte), at + 1)),
        _ => long_varint(data, at, field_at),
    }
}

#[inline(never)]
fn long_varint(data: &[u8], at: usize, field_at: usize) -> Result<(u64, usize), Malformed> {
    let mut value = 0u64;
    for i in 0..10 {
        let Some(&byte) = data.get(at + i) else { return Err(Malformed { code: TRUNCATED, at: field_at }) };
        if i == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte < 0x80 {
            return Ok((value, at + i + 1));
        }
    }
    Err(Malformed { code: OVERFLOW, at: field_at })
}

/// The field at `at`; it must lie within `data`.
#[inline(always)]
pub fn field(data: &[u8], at: usize) -> Result<Field, Malformed> {
    match data.get(at..at + 2) {
        Some(&[tag @ 8..=0x7F, size @ 0..=0x7F]) if tag & 7 == BYTES && usize::from(size) <= data.len() - at - 2 => {
            Ok(Field { number: u32::from(tag >> 3), wire: BYTES, value: at as u64 + 2, next: at + 2 + usize::from(size) })
        }
        _ => any_field(data, at),
    }
}

#[inline(never)]
fn any_field(data: &[u8], at: usize) -> Result<Field, Malformed> {
    let (tag, p) = varint(data, at, at)?;
    let wire = (tag & 7) as u8;
    if tag >> 32 != 0 || tag >> 3 == 0 || matches!(wire, 3 | 4 | 6 | 7) {
        return Err(Malformed { code: BAD_TAG, at });
    }
    let number = (tag >> 3) as u32;
    if wire == VARINT {
        let (value, next) = varint(data, p, at)?;
        return Ok(Field { number, wire, value, next });
    }
    let (size, p) = match wire {
        BYTES => varint(data, p, at)?,
        FIXED64 => (8, p),
        _ => (4, p),
    };
    if size > (data.len() - p) as u64 {
        return Err(Malformed { code: TRUNCATED, at });
    }
    Ok(Field { number, wire, value: p as u64, next: p + size as usize })
}
