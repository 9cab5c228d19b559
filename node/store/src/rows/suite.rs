//! One suite for every engine.

use super::*;

fn backends() -> Vec<RowsBackend> {
    vec![
        RowsBackend::Memory,
        RowsBackend::Sled,
        #[cfg(feature = "fjall")]
        RowsBackend::Fjall,
    ]
}

fn put(family: Family, key: &[u8], value: &[u8]) -> Op {
    Op::Put(family, key.to_vec(), value.to_vec())
}

fn keys(rows: &dyn Rows, family: Family, prefix: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    rows.scan(family, prefix, &mut |key, _| {
        found.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

#[test]
fn reads_see_writes_in_key_order_and_by_family() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let rows = open(backend, &dir.path().join("rows"), 1 << 20).unwrap();
        let ticket = rows
            .write(&[
                put(Family::Jobs, b"b", b"2"),
                put(Family::Jobs, b"a", b"1"),
                put(Family::Usage, b"a", b"3"),
                put(Family::Jobs, b"a\xff", b"4"),
                put(Family::Jobs, b"gone", b"5"),
                Op::Remove(Family::Jobs, b"gone".to_vec()),
            ])
            .unwrap();
        rows.durable(ticket).unwrap();
        assert_eq!(rows.get(Family::Jobs, b"a").unwrap().unwrap(), &b"1"[..]);
        assert_eq!(rows.get(Family::Jobs, b"gone").unwrap(), None);
        assert_eq!(
            keys(&*rows, Family::Jobs, b""),
            [b"a".to_vec(), b"a\xff".to_vec(), b"b".to_vec()]
        );
        assert_eq!(
            keys(&*rows, Family::Jobs, b"a"),
            [b"a".to_vec(), b"a\xff".to_vec()]
        );
        assert_eq!(keys(&*rows, Family::Usage, b""), [b"a".to_vec()]);
        let mut seen = 0;
        rows.scan(Family::Jobs, b"", &mut |_, _| {
            seen += 1;
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(seen, 1, "{backend:?} goes on after a break");
    }
}

#[test]
fn oversized_values_are_refused_before_anything_is_written() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let rows = open(backend, &dir.path().join("rows"), 1 << 20).unwrap();
        let large = vec![7; MAX_ROW_BYTES + 1];
        let refused = rows.write(&[put(Family::Jobs, b"a", b"1"), put(Family::Jobs, b"b", &large)]);
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
        assert!(keys(&*rows, Family::Jobs, b"").is_empty());
        // Values of the largest size make no blob files, which the engine would not sync.
        for n in 0..200u32 {
            rows.write(&[put(Family::Jobs, &n.to_be_bytes(), &large[..MAX_ROW_BYTES])])
                .unwrap();
        }
        rows.durable(Ticket(u64::MAX)).unwrap();
        let blobs = std::fs::read_dir(dir.path().join("rows/blobs")).map_or(0, Iterator::count);
        assert_eq!(blobs, 0, "{backend:?}");
    }
}

#[test]
fn durable_rows_are_there_after_reopening() {
    for backend in backends() {
        if backend == RowsBackend::Memory {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        let rows = open(backend, &path, 1 << 20).unwrap();
        for n in 0..1000u32 {
            let ticket = rows
                .write(&[put(Family::Records, &n.to_be_bytes(), &[1; 300])])
                .unwrap();
            if n % 100 == 99 {
                rows.durable(ticket).unwrap();
            }
        }
        drop(rows);
        let rows = open(backend, &path, 1 << 20).unwrap();
        assert_eq!(keys(&*rows, Family::Records, b"").len(), 1000);
        assert!(rows.stats().live_bytes > 0 && rows.stats().disk_bytes > 0);
    }
}
