//! Rewriting identify messages: protocol names both ways, endpoints out of what comes and into what goes.
//!
//! Pure: one message in, the message to hand on out. Fields 2 (address) and 3 (protocol) are looked at, everything
//! else is copied byte for byte; a message that does not parse is handed on as it is. The signed record (field 8)
//! covers no protocols, so nothing in it is made wrong. Follows p2p-wire §1.6, §1.7 and §3.2.

use bytes::Bytes;

use super::endpoints::{MAX_ENDPOINTS_PER_PEER, is_endpoint};
use super::names::Renames;
use crate::wire::protobuf::{Field, Fields, Value, put_bytes};

const ADDRESS: u32 = 2;
const PROTOCOL: u32 = 3;

/// Readers of this family refuse more.
pub(super) const MAX_FRAME_BYTES: usize = 4096;
/// What the reference reads per frame; more is handed on unread.
pub(super) const MAX_READ_BYTES: usize = 8192;

/// A message from the wire, with inside names; and the endpoints in it, at most [`MAX_ENDPOINTS_PER_PEER`].
///
/// None if it does not parse.
pub(super) fn inbound<'a>(message: &'a [u8], renames: &Renames) -> Option<(Vec<u8>, Vec<&'a [u8]>)> {
    let mut endpoints: Vec<&[u8]> = Vec::new();
    let rewritten = rewrite(message, |field| match (field.number, field.value) {
        (2, Value::Bytes(address)) => {
            if is_endpoint(address)
                && endpoints.len() < MAX_ENDPOINTS_PER_PEER
                && !endpoints.contains(&address)
            {
                endpoints.push(address);
            }
            None
        }
        (3, Value::Bytes(name)) => Some(renames.to_inside(name)),
        _ => None,
    })?;
    Some((rewritten, endpoints))
}

/// A message to the wire, with wire names and our own endpoints behind the addresses.
///
/// `Err` holds the message without the endpoints, if they would make it longer than its readers take. None if it
/// does not parse.
pub(super) fn outbound(message: &[u8], renames: &Renames, own: &[Bytes]) -> Option<Result<Vec<u8>, Vec<u8>>> {
    let mut rewritten = rewrite(message, |field| match (field.number, field.value) {
        (3, Value::Bytes(name)) => Some(renames.to_wire(name)),
        _ => None,
    })?;
    let bare = rewritten.len();
    for endpoint in own {
        put_bytes(&mut rewritten, ADDRESS, endpoint);
    }
    if rewritten.len() > MAX_FRAME_BYTES && rewritten.len() > bare {
        rewritten.truncate(bare);
        return Some(Err(rewritten));
    }
    Some(Ok(rewritten))
}

/// Copies the message; where `name` gives one, the field is a protocol of that name instead.
fn rewrite<'a, 'n>(message: &'a [u8], mut name: impl FnMut(Field<'a>) -> Option<&'n [u8]>) -> Option<Vec<u8>>
where
    'a: 'n,
{
    let mut rewritten = Vec::with_capacity(message.len().saturating_add(16));
    for field in Fields::of(message) {
        let field = field.ok()?;
        match (name(field), field.value) {
            (Some(renamed), Value::Bytes(before)) if renamed != before => {
                put_bytes(&mut rewritten, PROTOCOL, renamed);
            }
            _ => rewritten.extend_from_slice(field.raw),
        }
    }
    Some(rewritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(protocols: &[&[u8]], addresses: &[&[u8]]) -> Vec<u8> {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"key");
        for address in addresses {
            put_bytes(&mut message, ADDRESS, address);
        }
        for protocol in protocols {
            put_bytes(&mut message, PROTOCOL, protocol);
        }
        put_bytes(&mut message, 8, b"record");
        message.extend_from_slice(&[0xf8, 0x07, 0x05]); // a field nobody knows
        message
    }

    const DIR: &[u8] = b"\xff\xff\x03\x04a:81";
    const OCI: &[u8] = b"\xfe\xff\x03\x01x";
    const IP: &[u8] = &[4, 127, 0, 0, 1];

    #[test]
    fn names_are_exchanged_and_the_rest_is_copied() {
        let renames = Renames::network();
        let wire = message(&[b"/ipfs/id/1.0.0", b"dir/kad/1.0.0"], &[IP]);
        let inside = message(&[b"/ipfs/id/1.0.0", b"/dir/kad/1.0.0"], &[IP]);
        assert_eq!(inbound(&wire, &renames).unwrap().0, inside);
        assert_eq!(outbound(&inside, &renames, &[]).unwrap().unwrap(), wire);
    }

    #[test]
    fn an_inside_name_in_a_list_from_the_wire_is_not_believed() {
        let renames = Renames::network();
        let (read, _) = inbound(&message(&[b"/dir/kad/1.0.0"], &[]), &renames).unwrap();
        assert_eq!(read, message(&[b"/refused"], &[]));
    }

    #[test]
    fn endpoints_are_found_and_stay_in_the_message() {
        let renames = Renames::network();
        let wire = message(&[], &[IP, DIR, OCI, DIR]);
        let (read, endpoints) = inbound(&wire, &renames).unwrap();
        assert_eq!(read, wire);
        assert_eq!(endpoints, [DIR, OCI]);
        let many: Vec<Vec<u8>> = (0..50u8).map(|at| [DIR, &[at]].concat()).collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        assert_eq!(
            inbound(&message(&[], &many), &renames).unwrap().1.len(),
            MAX_ENDPOINTS_PER_PEER
        );
        let long = [DIR, &[0; 2000]].concat();
        assert!(inbound(&message(&[], &[&long]), &renames).unwrap().1.is_empty());
    }

    #[test]
    fn own_endpoints_are_appended_while_the_frame_stays_readable() {
        let renames = Renames::network();
        let own = [Bytes::from_static(DIR), Bytes::from_static(OCI)];
        let written = outbound(&message(&[], &[IP]), &renames, &own).unwrap().unwrap();
        assert_eq!(inbound(&written, &renames).unwrap().1, [DIR, OCI]);

        let name = vec![b'/'; MAX_FRAME_BYTES - 40];
        let long = message(&[&name, b"/dir/kad/1.0.0"], &[]);
        let withheld = outbound(&long, &renames, &own).unwrap().unwrap_err();
        assert_eq!(withheld, message(&[&name, b"dir/kad/1.0.0"], &[]));
    }

    #[test]
    fn what_does_not_parse_is_left_alone() {
        let renames = Renames::network();
        assert!(inbound(b"\x1a\x7fdir/kad/1.0.0", &renames).is_none());
        assert!(outbound(b"\x0b", &renames, &[]).is_none());
        assert_eq!(inbound(b"", &renames).unwrap().0, b"");
    }
}
