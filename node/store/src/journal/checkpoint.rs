//! The checkpoint: entries up to its sequence number need no replay, given the row store it names.
//!
//! 40 bytes, integers big-endian: `DIRNODEC`, format version 1 (2), zero (6), sequence number (8), generation of
//! the row store (8), CRC-32 of the 32 bytes before (4), zero (4). A checkpoint that is missing or does not check
//! costs a replay from the start.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

use crate::StoreError;
use crate::disk::Disk;

const MAGIC: &[u8; 8] = b"DIRNODEC";
const FORMAT: u16 = 1;
const LEN: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) seq: u64,
    pub(crate) generation: u64,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

pub(crate) fn encode(checkpoint: Checkpoint) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEN);
    out.put_slice(MAGIC);
    out.put_u16(FORMAT);
    out.put_bytes(0, 6);
    out.put_u64(checkpoint.seq);
    out.put_u64(checkpoint.generation);
    out.put_u32(crc32fast::hash(&out));
    out.put_u32(0);
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    let mut rest = bytes.get(16..)?;
    let checkpoint = Checkpoint {
        seq: rest.get_u64(),
        generation: rest.get_u64(),
    };
    (encode(checkpoint) == bytes).then_some(checkpoint)
}

pub(crate) fn write(disk: &dyn Disk, dir: &Path, checkpoint: Checkpoint) -> Result<(), StoreError> {
    let path = path(dir);
    disk.replace(&path, &encode(checkpoint))
        .map_err(|error| StoreError::io("write", path, &error))
}

pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Checkpoint>, StoreError> {
    let path = path(dir);
    let bytes = disk
        .read(&path, 4096)
        .map_err(|error| StoreError::io("read", path, &error))?;
    Ok(bytes.as_deref().and_then(decode))
}
