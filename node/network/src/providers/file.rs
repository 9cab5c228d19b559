//! A provider log in one file: entries are appended, and the file is written anew when most of them are out of date.
//!
//! Soft state, owner-only. A damaged tail is cut off; a file of another kind or version is set aside. Begins with 16
//! bytes, then entries follow; integers are big-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `DIRNODEP` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 6 | zero |
//!
//! An entry:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | length of what follows the checksum |
//! | 4 | CRC-32 (IEEE) of the length and of what follows the checksum |
//! | 4 | unix seconds when it lapses |
//! | 1, n | length of the key, key |
//! | 1, n | length of the peer id, peer id |
//! | 1 | number of addresses, 0 for "as before" |
//! | 2, n | for each: length, binary multiaddr |

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use libp2p::{Multiaddr, PeerId};

use super::log::{Loaded, ProviderLog, ProviderRow};
use super::{MAX_ADDRESSES, MAX_KEY_BYTES};

const MAGIC: &[u8; 8] = b"DIRNODEP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
const FRAME_BYTES: usize = 6;
/// Four addresses of 256 bytes, a key of 80, a peer id, and room.
const MAX_PAYLOAD_BYTES: usize = 2048;
/// What is read at the start, and the size at which nothing is appended before the file was written anew.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// A file with fewer entries is left as it is.
const MIN_COMPACTION: u64 = 20_000;
/// Seconds after which a file that could not be written anew is tried again; each attempt reads the whole of it.
const RETRY_AFTER_SECS: u64 = 60;

/// The log. Nothing is touched before it is loaded.
#[derive(Debug)]
pub struct FileLog {
    path: PathBuf,
    open: Option<Open>,
    /// Not written anew before this moment, in unix seconds.
    not_before: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    entries: u64,
    bytes: u64,
}

impl FileLog {
    /// A log at `path`; its folder has to exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            open: None,
            not_before: 0,
        }
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(
            error.kind(),
            format!("provider log {}: {error}", self.path.display()),
        )
    }

    fn try_load(&mut self, take: &mut dyn FnMut(ProviderRow)) -> io::Result<Loaded> {
        let mut loaded = Loaded::default();
        let mut file = open(&self.path, false)?;
        if file.metadata()?.len() > 0 && !has_header(&mut file)? {
            std::fs::rename(&self.path, beside(&self.path, "unreadable"))?;
            file = open(&self.path, false)?;
            loaded.set_aside = true;
        }
        let length = file.metadata()?.len();
        if length == 0 {
            file.write_all(&header())?;
        }
        let mut reader = Entries::new(&mut file)?;
        while let Some(payload) = reader.next()? {
            // One that checks and does not parse was written by someone else's mistake; the others may be good.
            if let Some(row) = decode(payload) {
                take(row);
            }
        }
        let (entries, bytes) = (reader.count, reader.offset);
        loaded.rows = entries;
        loaded.damaged_bytes = length.saturating_sub(bytes);
        file.set_len(bytes)?;
        file.seek(SeekFrom::End(0))?;
        self.open = Some(Open { file, entries, bytes });
        Ok(loaded)
    }

    fn try_append(&mut self, batch: &[ProviderRow]) -> io::Result<()> {
        let open = self
            .open
            .as_mut()
            .ok_or_else(|| io::Error::other("it was not loaded"))?;
        if open.bytes >= MAX_FILE_BYTES {
            return Err(io::Error::other("it has reached its largest size"));
        }
        let mut buffer = Vec::with_capacity(batch.len().saturating_mul(96));
        let mut count = 0u64;
        for row in batch {
            if let Some(payload) = encode(row) {
                put_entry(&mut buffer, &payload);
                count = count.saturating_add(1);
            }
        }
        if let Err(error) = open.file.write_all(&buffer) {
            // Half an entry would hide those behind it.
            open.file.set_len(open.bytes)?;
            open.file.seek(SeekFrom::Start(open.bytes))?;
            return Err(error);
        }
        open.entries = open.entries.saturating_add(count);
        open.bytes = open.bytes.saturating_add(length_of(&buffer));
        Ok(())
    }

    /// Writes the file anew with the last entry of each (key, peer) that has not lapsed.
    fn compact(&mut self, now: u64) -> io::Result<()> {
        let mut old = open(&self.path, false)?;
        let hasher = RandomState::new();
        let mut last: HashMap<u64, u64> = HashMap::new();
        let mut addresses: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        let mut reader = Entries::new(&mut old)?;
        while let Some(payload) = reader.next()? {
            let Some(row) = decode(payload) else { continue };
            if row.expires > now {
                last.insert(hasher.hash_one((&row.key, row.peer)), reader.count);
            }
            if !row.addresses.is_empty() {
                addresses.insert(row.peer, row.addresses);
            }
        }
        let path = beside(&self.path, "new");
        let mut writer = BufWriter::new(open(&path, true)?);
        writer.write_all(&header())?;
        let mut bytes = length_of(&header());
        let mut entries = 0u64;
        let mut reader = Entries::new(&mut old)?;
        let mut buffer = Vec::new();
        while let Some(payload) = reader.next()? {
            let Some(mut row) = decode(payload) else { continue };
            if row.expires <= now || last.get(&hasher.hash_one((&row.key, row.peer))) != Some(&reader.count) {
                continue;
            }
            // The first row of a peer carries the addresses it gave last.
            row.addresses = addresses.remove(&row.peer).unwrap_or_default();
            let Some(payload) = encode(&row) else { continue };
            buffer.clear();
            put_entry(&mut buffer, &payload);
            writer.write_all(&buffer)?;
            bytes = bytes.saturating_add(length_of(&buffer));
            entries = entries.saturating_add(1);
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&path, &self.path)?;
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        self.open = Some(Open { file, entries, bytes });
        Ok(())
    }
}

impl ProviderLog for FileLog {
    fn load(&mut self, _: u64, take: &mut dyn FnMut(ProviderRow)) -> io::Result<Loaded> {
        self.try_load(take).map_err(|error| self.named(error))
    }

    fn append(&mut self, batch: &[ProviderRow]) -> io::Result<()> {
        self.try_append(batch).map_err(|error| self.named(error))
    }

    fn settle(&mut self, live: u64, now: u64) -> io::Result<bool> {
        let dead_half = self.open.as_ref().is_some_and(|open| {
            open.bytes >= MAX_FILE_BYTES || open.entries >= MIN_COMPACTION && open.entries / 2 > live
        });
        if !dead_half || now < self.not_before {
            return Ok(false);
        }
        self.not_before = now.saturating_add(RETRY_AFTER_SECS);
        self.compact(now).map_err(|error| self.named(error))?;
        self.not_before = 0;
        Ok(true)
    }
}

fn open(path: &Path, fresh: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(fresh)
        .mode(0o600)
        .open(path)?;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o600);
        file.set_permissions(permissions)?;
    }
    Ok(file)
}

/// The same path with one more ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn header() -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put_slice(MAGIC);
    header.put_u16(VERSION);
    header.put_bytes(0, HEADER_BYTES.saturating_sub(header.len()));
    header
}

fn has_header(file: &mut File) -> io::Result<bool> {
    let mut found = [0; HEADER_BYTES];
    file.seek(SeekFrom::Start(0))?;
    match file.read_exact(&mut found) {
        Ok(()) => Ok(found.as_slice() == header()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The entries of a file that check, from its beginning up to the first that does not.
struct Entries<'a> {
    reader: io::Take<BufReader<&'a mut File>>,
    /// Entries read.
    count: u64,
    /// Where the entry behind the last that checked begins.
    offset: u64,
    payload: Vec<u8>,
}

impl<'a> Entries<'a> {
    fn new(file: &'a mut File) -> io::Result<Self> {
        let offset = length_of(&header());
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            reader: BufReader::with_capacity(1 << 16, file).take(MAX_FILE_BYTES),
            count: 0,
            offset,
            payload: Vec::new(),
        })
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut frame = [0; FRAME_BYTES];
        if !read_whole(&mut self.reader, &mut frame)? {
            return Ok(None);
        }
        let mut fields = frame.as_slice();
        let (length, checksum) = (fields.get_u16(), fields.get_u32());
        let length = usize::from(length);
        if length == 0 || length > MAX_PAYLOAD_BYTES {
            return Ok(None);
        }
        self.payload.resize(length, 0);
        if !read_whole(&mut self.reader, &mut self.payload)? || checksum_of(&self.payload) != checksum {
            return Ok(None);
        }
        self.count = self.count.saturating_add(1);
        self.offset = self
            .offset
            .saturating_add(length_of(&frame))
            .saturating_add(length_of(&self.payload));
        Ok(Some(&self.payload))
    }
}

/// Whether the buffer could be filled.
fn read_whole(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn checksum_of(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // The length is at most `MAX_PAYLOAD_BYTES`.
    hasher.update(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn put_entry(out: &mut Vec<u8>, payload: &[u8]) {
    out.put_u16(u16::try_from(payload.len()).unwrap_or(u16::MAX));
    out.put_u32(checksum_of(payload));
    out.put_slice(payload);
}

/// None if the row is of a size that is never admitted.
fn encode(row: &ProviderRow) -> Option<Vec<u8>> {
    let mut payload = Vec::with_capacity(128);
    payload.put_u32(u32::try_from(row.expires).unwrap_or(u32::MAX));
    let peer = row.peer.to_bytes();
    for part in [row.key.as_slice(), &peer] {
        payload.put_u8(u8::try_from(part.len()).ok()?);
        payload.put_slice(part);
    }
    let addresses = row.addresses.get(..MAX_ADDRESSES).unwrap_or(&row.addresses);
    payload.put_u8(u8::try_from(addresses.len()).ok()?);
    for address in addresses {
        payload.put_u16(u16::try_from(address.len()).ok()?);
        payload.put_slice(address.as_ref());
    }
    (payload.len() <= MAX_PAYLOAD_BYTES && row.key.len() <= MAX_KEY_BYTES).then_some(payload)
}

fn decode(mut payload: &[u8]) -> Option<ProviderRow> {
    let rest = &mut payload;
    let expires = u64::from(rest.try_get_u32().ok()?);
    let key = part(rest, |rest| rest.try_get_u8().ok().map(usize::from))?.to_vec();
    let peer = PeerId::from_bytes(part(rest, |rest| rest.try_get_u8().ok().map(usize::from))?).ok()?;
    let count = usize::from(rest.try_get_u8().ok()?);
    if count > MAX_ADDRESSES {
        return None;
    }
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let address = part(rest, |rest| rest.try_get_u16().ok().map(usize::from))?;
        addresses.push(Multiaddr::try_from(address.to_vec()).ok()?);
    }
    rest.is_empty().then_some(ProviderRow {
        key,
        peer,
        expires,
        addresses,
    })
}

fn part<'a>(rest: &mut &'a [u8], length: impl Fn(&mut &'a [u8]) -> Option<usize>) -> Option<&'a [u8]> {
    let length = length(rest)?;
    let (part, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(key: u32, peer: PeerId, expires: u64, addresses: &[&str]) -> ProviderRow {
        ProviderRow {
            key: key.to_be_bytes().to_vec(),
            peer,
            expires,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn read(path: &Path) -> (Vec<ProviderRow>, Loaded) {
        let mut rows = Vec::new();
        let loaded = FileLog::new(path).load(0, &mut |row| rows.push(row)).unwrap();
        (rows, loaded)
    }

    #[test]
    fn rows_come_back_in_order_and_only_the_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers");
        let rows: Vec<ProviderRow> = (0..10)
            .map(|key| {
                row(
                    key,
                    PeerId::random(),
                    1000 + u64::from(key),
                    &["/ip4/10.0.0.1/tcp/1"],
                )
            })
            .collect();
        let mut log = FileLog::new(&path);
        assert!(log.append(&rows).is_err(), "not before it is loaded");
        assert_eq!(
            log.load(0, &mut |_| panic!("it is empty")).unwrap(),
            Loaded::default()
        );
        log.append(&rows[..4]).unwrap();
        log.append(&rows[4..]).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (back, loaded) = read(&path);
        assert_eq!((back, loaded.rows, loaded.damaged_bytes), (rows, 10, 0));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_tail_is_cut_off_wherever_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers");
        let peer = PeerId::random();
        let rows: Vec<ProviderRow> = (0..3).map(|key| row(key, peer, 1000, &[])).collect();
        let mut log = FileLog::new(&path);
        log.load(0, &mut |_| ()).unwrap();
        log.append(&rows).unwrap();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        let entry = (whole.len() - HEADER_BYTES) / 3;
        for length in HEADER_BYTES..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (back, loaded) = read(&path);
            let good = (length - HEADER_BYTES) / entry;
            assert_eq!(back, rows[..good]);
            assert_eq!(
                loaded.damaged_bytes,
                (length - HEADER_BYTES - good * entry) as u64
            );
            // What is written next is found.
            let mut log = FileLog::new(&path);
            log.load(0, &mut |_| ()).unwrap();
            log.append(&rows[2..]).unwrap();
            assert_eq!(read(&path).0.last(), Some(&rows[2]));
        }
        for at in HEADER_BYTES..whole.len() {
            let mut turned = whole.clone();
            turned[at] ^= 0x10;
            std::fs::write(&path, &turned).unwrap();
            assert_eq!(read(&path).0, rows[..(at - HEADER_BYTES) / entry]);
        }
    }

    #[test]
    fn a_file_of_another_kind_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers");
        for other in [&b"short"[..], b"DIRNODEP\x00\x02\x00\x00\x00\x00\x00\x00and more"] {
            std::fs::write(&path, other).unwrap();
            assert!(read(&path).1.set_aside);
            assert_eq!(std::fs::read(beside(&path, "unreadable")).unwrap(), other);
            assert_eq!(read(&path).1, Loaded::default());
        }
    }

    #[test]
    fn the_file_is_written_anew_when_half_of_it_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers");
        let peers = [PeerId::random(), PeerId::random()];
        let mut log = FileLog::new(&path);
        log.load(0, &mut |_| ()).unwrap();
        // Every record three times over; the addresses come with the second round and change with the third.
        for round in 0..3u32 {
            let rows: Vec<ProviderRow> = (0..8000u32)
                .map(|key| {
                    let addresses = format!("/ip4/10.0.0.{round}/tcp/1");
                    let with = key < 2 && round > 0;
                    let addresses = if with {
                        vec![addresses.as_str()]
                    } else {
                        Vec::new()
                    };
                    row(key, peers[key as usize % 2], u64::from(1000 + round), &addresses)
                })
                .collect();
            log.append(&rows).unwrap();
        }
        log.settle(12_000, 500).unwrap();
        assert_eq!(read(&path).1.rows, 24_000, "half of it may live");
        let lapsed: Vec<ProviderRow> = (0..8000u32)
            .map(|key| row(1_000_000 + key, peers[0], 400, &[]))
            .collect();
        log.append(&lapsed).unwrap();
        let large = path.metadata().unwrap().len();
        log.settle(8000, 500).unwrap();
        assert!(path.metadata().unwrap().len() < large / 3);
        log.append(&[row(77_777, peers[0], 2000, &[])]).unwrap();
        let (back, loaded) = read(&path);
        assert_eq!(loaded.rows, 8001);
        assert!(back[..8000].iter().all(|row| row.expires == 1002));
        let with: Vec<&ProviderRow> = back.iter().filter(|row| !row.addresses.is_empty()).collect();
        assert_eq!(with.len(), 2);
        assert!(
            with.iter()
                .all(|row| row.addresses[0] == "/ip4/10.0.0.2/tcp/1".parse().unwrap())
        );
        assert_eq!(back[8000].expires, 2000);
    }

    #[test]
    fn a_file_that_could_not_be_written_anew_is_tried_again_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers");
        let peer = PeerId::random();
        let mut log = FileLog::new(&path);
        log.load(0, &mut |_| ()).unwrap();
        let lapsed: Vec<ProviderRow> = (0..20_000u32).map(|key| row(key, peer, 400, &[])).collect();
        log.append(&lapsed).unwrap();
        let in_the_way = beside(&path, "new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(log.settle(0, 500).is_err());
        std::fs::remove_dir(&in_the_way).unwrap();
        assert!(!log.settle(0, 500 + RETRY_AFTER_SECS - 1).unwrap());
        assert!(log.settle(0, 500 + RETRY_AFTER_SECS).unwrap());
        assert_eq!(read(&path).1.rows, 0);
        log.append(&lapsed).unwrap();
        assert!(
            log.settle(0, 500 + RETRY_AFTER_SECS).unwrap(),
            "at once after a success"
        );
    }

    proptest! {
        #[test]
        fn payloads_come_back(key in proptest::collection::vec(any::<u8>(), 1..=80), expires in any::<u32>(),
                              ports in proptest::collection::vec(any::<u16>(), 0..=MAX_ADDRESSES)) {
            let row = ProviderRow {
                key,
                peer: PeerId::random(),
                expires: u64::from(expires),
                addresses: ports.iter().map(|port| format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap()).collect(),
            };
            prop_assert_eq!(decode(&encode(&row).unwrap()), Some(row));
        }

        #[test]
        fn any_payload_is_read_without_harm(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&payload);
        }
    }
}
