//! What an operator copies elsewhere: the peer id, full multiaddrs, and the DNS TXT lines that lead to them.
//!
//! Pure. The TXT form is the one of libp2p's `dnsaddr` scheme: the name `_dnsaddr.<domain>` holds one text per address,
//! and peers dial `/dnsaddr/<domain>/p2p/<peer id>`.

use std::fmt;

use dirnode_network::{Multiaddr, PeerId};

/// Stands for the operator's domain until one is named.
pub const UNNAMED_DOMAIN: &str = "<domain>";

/// Where others join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    domain: Option<String>,
    incomplete: bool,
}

impl Listing {
    /// The addresses that others can dial: of `announced` if there are any, else of `listening`. Those of every
    /// interface (`0.0.0.0`, `::`) name no host and are left out.
    #[must_use]
    pub fn new(
        peer: PeerId,
        announced: &[Multiaddr],
        listening: &[Multiaddr],
        domain: Option<String>,
    ) -> Self {
        let candidates = if announced.is_empty() {
            listening
        } else {
            announced
        };
        let mut addresses: Vec<Multiaddr> = candidates
            .iter()
            .filter(|address| names_a_host(address))
            .filter_map(|address| full(address, peer))
            .collect();
        addresses.sort_by_key(ToString::to_string);
        addresses.dedup();
        Self {
            peer,
            incomplete: candidates.iter().any(|address| !names_a_host(address)),
            addresses,
            domain,
        }
    }

    /// Multiaddrs with `/p2p/<peer id>` at their end, in text order.
    #[must_use]
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// One zone file line per address.
    pub fn dns_lines(&self) -> impl Iterator<Item = String> + '_ {
        self.addresses
            .iter()
            .map(|address| dns_line(self.domain(), address))
    }

    /// The same for programs; `dirnode id -o json` has the same names.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        serde_json::json!({
            "peer_id": self.peer.to_string(),
            "addresses": addresses,
            "dns_records": self.dns_lines().collect::<Vec<_>>(),
        })
    }

    fn domain(&self) -> &str {
        self.domain.as_deref().unwrap_or(UNNAMED_DOMAIN)
    }
}

/// `_dnsaddr.<domain>. TXT "dnsaddr=<address>"`.
#[must_use]
pub fn dns_line(domain: &str, address: &Multiaddr) -> String {
    format!("_dnsaddr.{domain}. TXT \"dnsaddr={address}\"")
}

/// A domain name as it may stand in a zone file; the final dot is taken off.
///
/// # Errors
/// What is wrong with it.
pub fn parse_domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if name.len() > 240 || !name.split('.').all(is_label) {
        return Err(format!(
            "{text:?} is not a domain name; write it like boot.example.org"
        ));
    }
    Ok(name.to_owned())
}

fn full(address: &Multiaddr, peer: PeerId) -> Option<Multiaddr> {
    // Refused when the address ends with the id of somebody else, which is then not ours to hand out.
    address.clone().with_p2p(peer).ok()
}

fn names_a_host(address: &Multiaddr) -> bool {
    let text = address.to_string();
    !text.starts_with("/ip4/0.0.0.0/") && !text.starts_with("/ip6/::/")
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "peer id: {}", self.peer)?;
        if !self.addresses.is_empty() {
            writeln!(f, "\naddresses, for routing.bootstrap_peers of others:")?;
            for address in &self.addresses {
                writeln!(f, "  {address}")?;
            }
            writeln!(
                f,
                "\nDNS records, so that others can write /dnsaddr/{}/p2p/{}:",
                self.domain(),
                self.peer
            )?;
            for line in self.dns_lines() {
                writeln!(f, "  {line}")?;
            }
        }
        if self.incomplete {
            writeln!(
                f,
                "\nThis node listens on every interface. State the addresses that others dial with --announce, such as\n  \
                --announce /ip4/203.0.113.7/tcp/8999 or --announce /dns4/boot.example.org/tcp/8999"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWF8YU8YhVbaLsQadY5Cj6DcBvXG1GVGUZN1rPrbmQ6Fy7";

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn lines_are_ready_to_paste() {
        let announced = addresses(&[
            "/ip4/203.0.113.7/tcp/8999",
            "/dns4/boot.example.org/udp/8999/quic-v1",
        ]);
        let listing = Listing::new(
            PEER.parse().unwrap(),
            &announced,
            &addresses(&["/ip4/0.0.0.0/tcp/8999"]),
            Some("example.org".to_owned()),
        );
        let lines: Vec<String> = listing.dns_lines().collect();
        assert_eq!(
            lines,
            [
                format!(
                    "_dnsaddr.example.org. TXT \"dnsaddr=/dns4/boot.example.org/udp/8999/quic-v1/p2p/{PEER}\""
                ),
                format!("_dnsaddr.example.org. TXT \"dnsaddr=/ip4/203.0.113.7/tcp/8999/p2p/{PEER}\""),
            ]
        );
        assert!(!listing.to_string().contains("--announce"));
        let json = listing.to_json();
        assert_eq!(json["peer_id"], PEER);
        assert_eq!(json["dns_records"], serde_json::json!(lines));
        assert_eq!(
            json["addresses"][1],
            format!("/ip4/203.0.113.7/tcp/8999/p2p/{PEER}")
        );
    }

    #[test]
    fn an_address_of_every_interface_is_no_address() {
        let listening = addresses(&[
            "/ip4/0.0.0.0/tcp/8999",
            "/ip6/::/tcp/8999",
            "/ip4/127.0.0.1/tcp/1",
        ]);
        let listing = Listing::new(PEER.parse().unwrap(), &[], &listening, None);
        assert_eq!(
            listing.addresses(),
            addresses(&[&format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}")])
        );
        let text = listing.to_string();
        assert!(
            text.contains("--announce") && text.contains("_dnsaddr.<domain>. TXT"),
            "{text}"
        );
    }

    #[test]
    fn an_id_stands_there_once_and_a_foreign_one_is_left_out() {
        let other = "12D3KooWGamFdxhV4Y1vhvWVBbjvBgZgQMoNUhGkLYZbG9pBGVK4";
        let announced = addresses(&[
            &format!("/ip4/203.0.113.7/tcp/8999/p2p/{PEER}"),
            &format!("/ip4/203.0.113.8/tcp/8999/p2p/{other}"),
        ]);
        let listing = Listing::new(PEER.parse().unwrap(), &announced, &[], None);
        assert_eq!(listing.addresses(), &announced[..1]);
    }

    #[test]
    fn domains_are_read() {
        assert_eq!(
            parse_domain("boot.example.org."),
            Ok("boot.example.org".to_owned())
        );
        for text in ["", ".", "a b", "a..b", "a\"b", "ä.org"] {
            assert!(parse_domain(text).is_err(), "{text}");
        }
    }
}
