//! The private address kinds of the network: `/dir` (gRPC endpoint) and `/oci` (registry) beside ordinary multiaddrs.
//!
//! No multiaddr type can hold them, so addresses stay raw bytes until they come here. Pure. Follows p2p-wire §1.7.
//!
//! | part | bytes |
//! |---|---|
//! | code | varint: `ff ff 03` is `/dir` (65535), `fe ff 03` is `/oci` (65534) |
//! | length | varint, minimal, not 0 |
//! | value | the percent-encoded text |
//!
//! The text is encoded in the bytes too, not only in the text form. Letters, digits and `-._~$&+=:@` stand for
//! themselves, everything else is `%` and two upper-case hexadecimal digits.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use unsigned_varint::{decode, encode};

use super::go_text::{lossy, shorten};

/// Longest raw address that is read or written, in bytes. The longest useful one, a relayed address, takes about 150.
pub const MAX_ADDRESS_BYTES: usize = 4096;

/// Components in one address; relayed addresses have about eight.
const MAX_COMPONENTS: usize = 32;

/// Which of the two private kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointKind {
    /// `/dir`: the gRPC address of a directory, e.g. `dir.example.com:443`.
    DirectoryApi,
    /// `/oci`: a registry and repository without scheme, e.g. `ghcr.io/org/repo`.
    Oci,
}

impl EndpointKind {
    /// The name in text forms, without slashes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DirectoryApi => "dir",
            Self::Oci => "oci",
        }
    }

    /// The multicodec number.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::DirectoryApi => 65535,
            Self::Oci => 65534,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            65535 => Some(Self::DirectoryApi),
            65534 => Some(Self::Oci),
            _ => None,
        }
    }
}

/// Why an address cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Nothing there.
    #[error("address is empty")]
    Empty,
    /// The value of an endpoint is missing.
    #[error("/{} has no value", .0.name())]
    NoValue(EndpointKind),
    /// A code or length that is cut off or longer than it need be.
    #[error("code or length at byte {0} is not a minimal varint")]
    Varint(usize),
    /// The value goes beyond the end.
    #[error("value of /{kind} is {length} bytes, {left} are left")]
    Cut {
        /// Of which kind.
        kind: &'static str,
        /// Length it claims.
        length: usize,
        /// Bytes there are.
        left: usize,
    },
    /// Longer than this reader goes.
    #[error("address is {size_bytes} bytes, limit is {MAX_ADDRESS_BYTES}")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// More parts than any address has.
    #[error("address has more than {MAX_COMPONENTS} components")]
    TooManyComponents,
    /// A component that multiaddr does not know or cannot read.
    #[error("component at byte {at}: {what}")]
    Component {
        /// Where it begins.
        at: usize,
        /// What is wrong.
        what: String,
    },
}

/// A private address, its text decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Which kind.
    pub kind: EndpointKind,
    /// The text, decoded: may hold anything but is never empty.
    pub value: String,
}

impl Endpoint {
    /// An endpoint to advertise.
    ///
    /// # Errors
    /// [`EndpointError::NoValue`] for an empty text, [`EndpointError::TooLarge`] when its encoding passes
    /// [`MAX_ADDRESS_BYTES`].
    pub fn new(kind: EndpointKind, value: &str) -> Result<Self, EndpointError> {
        if value.is_empty() {
            return Err(EndpointError::NoValue(kind));
        }
        let endpoint = Self {
            kind,
            value: value.to_owned(),
        };
        let size_bytes = endpoint.to_bytes().len();
        if size_bytes > MAX_ADDRESS_BYTES {
            return Err(EndpointError::TooLarge { size_bytes });
        }
        Ok(endpoint)
    }

    /// The raw address.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = escape(self.value.as_bytes());
        let mut bytes = Vec::with_capacity(value.len().saturating_add(8));
        bytes.extend_from_slice(encode::u32(self.kind.code(), &mut encode::u32_buffer()));
        bytes.extend_from_slice(encode::usize(value.len(), &mut encode::usize_buffer()));
        bytes.extend_from_slice(value.as_bytes());
        bytes
    }

    /// The multiaddr text, value encoded: `/oci/ghcr.io%2Forg%2Frepo`.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("/{}/{}", self.kind.name(), escape(self.value.as_bytes()))
    }

    /// What users of the API are shown, value decoded: `/oci/ghcr.io/org/repo`.
    #[must_use]
    pub fn display_text(&self) -> String {
        format!("/{}/{}", self.kind.name(), self.value)
    }
}

/// An address as it came from a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum RawAddr {
    /// An address that can be dialled.
    Ordinary(Multiaddr),
    /// One that names an endpoint, with or without ordinary components beside it. At least one is there; of two of a
    /// kind the first counts.
    Endpoints {
        /// The gRPC endpoint.
        directory_api: Option<String>,
        /// The registry.
        oci: Option<String>,
        /// The multiaddr text, values as they are encoded.
        text: String,
    },
    /// Not an address, or of a kind that is not known here.
    Unknown(EndpointError),
}

impl RawAddr {
    /// Reads one raw address. Any bytes give an answer.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        match walk(bytes) {
            Ok(found) => found,
            Err(error) => Self::Unknown(error),
        }
    }

    /// The endpoints in it.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let (directory_api, oci) = match self {
            Self::Endpoints {
                directory_api, oci, ..
            } => (directory_api.clone(), oci.clone()),
            _ => (None, None),
        };
        let of = |kind, value: Option<String>| value.map(|value| Endpoint { kind, value });
        [
            of(EndpointKind::DirectoryApi, directory_api),
            of(EndpointKind::Oci, oci),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether a reference node could parse it, which is what its address checks ask.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// The multiaddr text; `None` for what is not known.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::Ordinary(address) => Some(address.to_string()),
            Self::Endpoints { text, .. } => Some(text.clone()),
            Self::Unknown(_) => None,
        }
    }
}

fn walk(bytes: &[u8]) -> Result<RawAddr, EndpointError> {
    if bytes.is_empty() {
        return Err(EndpointError::Empty);
    }
    if bytes.len() > MAX_ADDRESS_BYTES {
        return Err(EndpointError::TooLarge {
            size_bytes: bytes.len(),
        });
    }
    let (mut directory_api, mut oci, mut text) = (None, None, String::new());
    let mut ordinary = Multiaddr::empty();
    let mut rest = bytes;
    for _ in 0..MAX_COMPONENTS {
        if rest.is_empty() {
            break;
        }
        let at = bytes.len().saturating_sub(rest.len());
        let (code, behind) = decode::u32(rest).map_err(|_| EndpointError::Varint(at))?;
        if let Some(kind) = EndpointKind::from_code(code) {
            let (value, behind) = endpoint_value(kind, behind, at)?;
            text.push_str(&format!("/{}/{}", kind.name(), lossy(value)));
            let slot = match kind {
                EndpointKind::DirectoryApi => &mut directory_api,
                EndpointKind::Oci => &mut oci,
            };
            slot.get_or_insert_with(|| lossy(&unescape(value)));
            rest = behind;
        } else {
            let (component, behind) =
                Protocol::from_bytes(rest).map_err(|error| EndpointError::Component {
                    at,
                    what: shorten(&error.to_string(), 120),
                })?;
            text.push_str(&component.to_string());
            ordinary.push(component);
            rest = behind;
        }
    }
    if !rest.is_empty() {
        return Err(EndpointError::TooManyComponents);
    }
    Ok(if directory_api.is_some() || oci.is_some() {
        RawAddr::Endpoints {
            directory_api,
            oci,
            text,
        }
    } else {
        RawAddr::Ordinary(ordinary)
    })
}

fn endpoint_value(kind: EndpointKind, bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), EndpointError> {
    let (length, behind) = decode::usize(bytes).map_err(|_| EndpointError::Varint(at))?;
    if length == 0 {
        return Err(EndpointError::NoValue(kind));
    }
    behind.split_at_checked(length).ok_or(EndpointError::Cut {
        kind: kind.name(),
        length,
        left: behind.len(),
    })
}

fn escape(value: &[u8]) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let mut text = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(char::from(*byte)),
            b'-' | b'.' | b'_' | b'~' | b'$' | b'&' | b'+' | b'=' | b':' | b'@' => {
                text.push(char::from(*byte))
            }
            other => {
                text.push('%');
                text.extend(HEX.get(usize::from(other >> 4)));
                text.extend(HEX.get(usize::from(other & 15)));
            }
        }
    }
    text
}

/// The bytes that `value` stands for; `value` itself when one of its escapes is not one.
fn unescape(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        if *first != b'%' {
            plain.push(*first);
            rest = behind;
            continue;
        }
        let digits = behind
            .split_at_checked(2)
            .and_then(|(digits, behind)| Some((std::str::from_utf8(digits).ok()?, behind)))
            .filter(|(digits, _)| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some((digits, behind)) = digits else {
            return value.to_vec();
        };
        plain.extend(u8::from_str_radix(digits, 16));
        rest = behind;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_bytes_are_written_and_read() {
        let endpoint = Endpoint::new(EndpointKind::Oci, "ghcr.io/org/repo").unwrap();
        assert_eq!(endpoint.to_text(), "/oci/ghcr.io%2Forg%2Frepo");
        assert_eq!(endpoint.display_text(), "/oci/ghcr.io/org/repo");
        let bytes = endpoint.to_bytes();
        assert_eq!(&bytes[..4], [0xfe, 0xff, 0x03, 0x14]);
        let read = RawAddr::read(&bytes);
        assert_eq!(read.endpoints().collect::<Vec<_>>(), [endpoint]);
        assert_eq!(read.to_text().as_deref(), Some("/oci/ghcr.io%2Forg%2Frepo"));
    }

    #[test]
    fn ordinary_addresses_pass() {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/8999".parse().unwrap();
        assert_eq!(RawAddr::read(&address.to_vec()), RawAddr::Ordinary(address));
    }

    #[test]
    fn what_cannot_be_advertised_is_refused() {
        assert_eq!(
            Endpoint::new(EndpointKind::DirectoryApi, ""),
            Err(EndpointError::NoValue(EndpointKind::DirectoryApi))
        );
        assert!(matches!(
            Endpoint::new(EndpointKind::Oci, &"/".repeat(2000)),
            Err(EndpointError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_text_round_trips(value in ".{1,200}", oci: bool) {
            let kind = if oci { EndpointKind::Oci } else { EndpointKind::DirectoryApi };
            let endpoint = Endpoint::new(kind, &value).unwrap();
            let read = RawAddr::read(&endpoint.to_bytes());
            prop_assert_eq!(read.endpoints().collect::<Vec<_>>(), vec![endpoint.clone()]);
            prop_assert_eq!(read.to_text(), Some(endpoint.to_text()));
        }

        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..80), dir: bool) {
            let mut bytes = bytes;
            if dir {
                bytes.splice(0..0, [0xff, 0xff, 0x03]);
            }
            let read = RawAddr::read(&bytes);
            prop_assert_eq!(read.is_known(), read.to_text().is_some());
        }
    }
}
