//! Writing values.

use super::{LIST, MAP};

/// Writes a text or bytes in the legacy raw family.
pub fn put_raw(out: &mut Vec<u8>, bytes: &[u8]) {
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(short @ 0..=31), _) => out.push(0xa0 | short),
        (_, Ok(length)) => {
            out.push(0xda);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend_from_slice(&long(bytes.len()));
        }
    }
    // Beyond four bytes of length there is nothing to write; callers are bounded far below.
    out.extend_from_slice(bytes.get(..u32::MAX as usize).unwrap_or(bytes));
}

/// Writes the head of a map with `count` entries.
pub fn put_map(out: &mut Vec<u8>, count: usize) {
    put_container(out, count, MAP);
}

/// Writes the head of a list with `count` values.
pub fn put_list(out: &mut Vec<u8>, count: usize) {
    put_container(out, count, LIST);
}

fn put_container(out: &mut Vec<u8>, count: usize, [short, two, four]: [u8; 3]) {
    match (u8::try_from(count), u16::try_from(count)) {
        (Ok(few @ 0..=15), _) => out.push(short | few),
        (_, Ok(count)) => {
            out.push(two);
            out.extend_from_slice(&count.to_be_bytes());
        }
        _ => {
            out.push(four);
            out.extend_from_slice(&long(count));
        }
    }
}

fn long(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

/// Writes nil.
pub fn put_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

/// Writes a truth value.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// Writes a number from 0 to 127.
pub fn put_small(out: &mut Vec<u8>, value: u8) {
    out.push(value & 0x7f);
}

/// Writes a double.
pub fn put_number(out: &mut Vec<u8>, value: f64) {
    out.push(0xcb);
    out.extend_from_slice(&value.to_be_bytes());
}
