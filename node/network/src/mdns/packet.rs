//! The packets of local discovery: questions, answers, and what an answer says.
//!
//! Pure. A reader of this network takes the strings of the last TXT record it sees of an instance, and takes no notice
//! of an instance without an A or AAAA record for its SRV target; so all addresses stand in one TXT record and the
//! host's address goes with it. Follows p2p-wire §1.5, RFC 6762 and RFC 6763.

use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use simple_dns::rdata::{A, AAAA, PTR, RData, SRV, TXT};
use simple_dns::{
    CLASS, CharacterString, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE,
};

use super::MdnsError;

/// Domain of all names.
const DOMAIN: &str = "local";
/// What every service of this kind says; nothing listens there.
const PORT: u16 = 4001;
/// Seconds an answer is good for.
const TTL_SECS: u32 = 3200;
const PREFIX: &[u8] = b"dnsaddr=";

/// Addresses told and taken of one peer. Ten of them and their record fit one Ethernet frame.
pub const MAX_ADDRESSES: usize = 10;
/// Longest packet that is read; RFC 6762 §17 allows no more.
pub const MAX_PACKET_BYTES: usize = 9000;
/// Most questions, or records of a section, that a packet may announce. The reader makes room for as many as are
/// announced before it looks for them.
const MAX_RECORDS: u16 = 128;
/// Peers taken from one packet.
const MAX_PEERS: usize = 16;
/// Longest string of a TXT record.
const MAX_STRING_BYTES: usize = 255;
const HEADER_BYTES: usize = 12;

/// A service by its name, and our instance of it.
#[derive(Debug, Clone)]
pub(super) struct Names {
    service: String,
    instance: String,
    host: String,
}

/// What a packet says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// It asks for instances of our service, and does not know ours.
    pub(super) asked: bool,
    /// Peers and their full addresses, each at most [`MAX_ADDRESSES`].
    pub(super) peers: Vec<(PeerId, Vec<Multiaddr>)>,
}

impl Names {
    pub(super) fn new(service: &str, instance: &str) -> Result<Self, MdnsError> {
        let names = Self {
            service: format!("{service}.{DOMAIN}"),
            instance: format!("{instance}.{service}.{DOMAIN}"),
            host: format!("{instance}.{DOMAIN}"),
        };
        for name in [&names.service, &names.instance, &names.host] {
            Name::new(name)?;
        }
        Ok(names)
    }

    /// Asks who is there.
    pub(super) fn question(&self) -> Result<Vec<u8>, MdnsError> {
        let mut packet = Packet::new_query(0);
        packet.questions.push(Question::new(
            Name::new(&self.service)?,
            QTYPE::TYPE(TYPE::PTR),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        Ok(packet.build_bytes_vec_compressed()?)
    }

    /// Says that we are there, or with `leaving` that we were. None if no address is suitable.
    pub(super) fn answer(
        &self,
        addresses: &[Multiaddr],
        local: PeerId,
        leaving: bool,
    ) -> Result<Option<Vec<u8>>, MdnsError> {
        let suitable: Vec<(IpAddr, String)> = addresses
            .iter()
            .filter_map(|address| Some((suitable_ip(address)?, address.clone().with_p2p(local).ok()?)))
            .map(|(ip, address)| (ip, format!("dnsaddr={address}")))
            .filter(|(_, string)| string.len() <= MAX_STRING_BYTES)
            .take(MAX_ADDRESSES)
            .collect();
        if suitable.is_empty() {
            return Ok(None);
        }
        let ttl = if leaving { 0 } else { TTL_SECS };
        let record = |name: &'_ str, data| -> Result<ResourceRecord<'_>, MdnsError> {
            Ok(ResourceRecord::new(
                Name::new(name)?.into_owned(),
                CLASS::IN,
                ttl,
                data,
            ))
        };
        let mut text = TXT::new();
        for (_, string) in &suitable {
            text.add_char_string(CharacterString::new(string.as_bytes())?);
        }
        let mut packet = Packet::new_reply(0);
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        let pointer = RData::PTR(PTR(Name::new(&self.instance)?));
        packet.answers.push(record(&self.service, pointer)?);
        let target = RData::SRV(SRV {
            priority: 0,
            weight: 0,
            port: PORT,
            target: Name::new(&self.host)?,
        });
        packet.additional_records.push(record(&self.instance, target)?);
        packet
            .additional_records
            .push(record(&self.instance, RData::TXT(text))?);
        let ips = || suitable.iter().map(|(ip, _)| ip);
        for ip in ips()
            .find(|ip| ip.is_ipv4())
            .into_iter()
            .chain(ips().find(|ip| ip.is_ipv6()))
        {
            let data = match ip {
                IpAddr::V4(v4) => RData::A(A::from(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA::from(*v6)),
            };
            packet.additional_records.push(record(&self.host, data)?);
        }
        Ok(Some(packet.build_bytes_vec_compressed()?))
    }

    /// Reads a packet; one that is none, or none of ours, says nothing.
    pub(super) fn hear(&self, bytes: &[u8], local: PeerId) -> Heard {
        self.try_hear(bytes, local).unwrap_or_default()
    }

    fn try_hear(&self, bytes: &[u8], local: PeerId) -> Option<Heard> {
        if bytes.len() > MAX_PACKET_BYTES || !announces_few(bytes) {
            return None;
        }
        let packet = Packet::parse(bytes).ok()?;
        let service = Name::new(&self.service).ok()?;
        if !packet.has_flags(PacketFlag::RESPONSE) {
            let asked = packet.questions.iter().any(|question| {
                question.qname == service && matches!(question.qtype, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY)
            });
            let known = packet.answers.iter().any(|record| {
                record.ttl >= TTL_SECS / 2
                    && matches!(&record.rdata, RData::PTR(PTR(name)) if name.to_string() == self.instance)
            });
            return Some(Heard {
                asked: asked && !known,
                peers: Vec::new(),
            });
        }
        let mut heard = Heard::default();
        let sections = packet.answers.iter().chain(&packet.additional_records);
        for record in sections.filter(|record| record.ttl > 0) {
            if let RData::TXT(text) = &record.rdata
                && record.name.is_subdomain_of(&service)
            {
                take_strings(text, local, &mut heard);
            }
        }
        Some(heard)
    }
}

fn take_strings(text: &TXT<'_>, local: PeerId, heard: &mut Heard) {
    for (key, value) in text.iter_raw().take(MAX_ADDRESSES) {
        let Some((peer, address)) = read_address(key, value) else {
            continue;
        };
        if peer == local {
            continue;
        }
        if let Some((_, addresses)) = heard.peers.iter_mut().find(|(known, _)| *known == peer) {
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        } else if heard.peers.len() < MAX_PEERS {
            heard.peers.push((peer, vec![address]));
        }
    }
}

/// A string of a TXT record, cut at its first equals sign.
fn read_address(key: &[u8], value: Option<&[u8]>) -> Option<(PeerId, Multiaddr)> {
    if PREFIX.strip_suffix(b"=")? != key {
        return None;
    }
    let address: Multiaddr = std::str::from_utf8(value?).ok()?.parse().ok()?;
    suitable_ip(&address)?;
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some((peer, address)),
        _ => None,
    }
}

/// The IP of an address that can be told to a neighbour: an interface's, reached by TCP or QUIC as they are.
pub(super) fn suitable_ip(address: &Multiaddr) -> Option<IpAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(v4) => IpAddr::V4(v4),
        Protocol::Ip6(v6) => IpAddr::V6(v6),
        _ => return None,
    };
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    match parts.next()? {
        Protocol::Tcp(_) => {}
        Protocol::Udp(_) if parts.next()? == Protocol::QuicV1 => {}
        _ => return None,
    }
    // A peer id may follow and nothing else: no circuit, no WebSocket, no WebTransport, no WebRTC.
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some(ip),
        _ => None,
    }
}

/// Whether the header announces no more than is read.
fn announces_few(packet: &[u8]) -> bool {
    let Some(counts) = packet.get(4..HEADER_BYTES) else {
        return false;
    };
    counts
        .chunks_exact(2)
        .all(|count| matches!(count, [high, low] if u16::from_be_bytes([*high, *low]) <= MAX_RECORDS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mdns::SERVICE;

    const INSTANCE: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

    fn names() -> Names {
        Names::new(SERVICE, INSTANCE).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_question_is_asked_and_understood() {
        let question = names().question().unwrap();
        let mut expected = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 26];
        expected.extend(b"agntcy-dir-local-discovery\x05local\x00\x00\x0c\x00\x01");
        assert_eq!(question, expected);
        assert!(names().hear(&question, PeerId::random()).asked);
        let other = Names::new("_p2p._udp", INSTANCE).unwrap().question().unwrap();
        assert!(!names().hear(&other, PeerId::random()).asked);
    }

    #[test]
    fn a_question_of_someone_who_knows_us_is_not_answered() {
        let names = names();
        let mut packet = Packet::new_query(0);
        packet.questions.push(Question::new(
            Name::new_unchecked(&names.service),
            QTYPE::TYPE(TYPE::PTR),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.answers.push(ResourceRecord::new(
            Name::new_unchecked(&names.service),
            CLASS::IN,
            TTL_SECS,
            RData::PTR(PTR(Name::new_unchecked(&names.instance))),
        ));
        let local = PeerId::random();
        assert!(!names.hear(&packet.build_bytes_vec().unwrap(), local).asked);
        packet.answers[0].ttl = 10;
        assert!(names.hear(&packet.build_bytes_vec().unwrap(), local).asked);
    }

    #[test]
    fn an_answer_holds_suitable_addresses_in_one_record_and_the_host_beside_it() {
        let peer = PeerId::random();
        let told = addresses(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.5/tcp/8999",
            "/ip4/10.0.0.5/udp/8999/quic-v1",
            "/ip6/fd00::5/tcp/8999",
            "/ip4/10.0.0.5/tcp/8999/ws",
            "/ip4/10.0.0.5/udp/8999/quic-v1/webtransport",
            "/ip4/0.0.0.0/tcp/8999",
            "/dns4/example.com/tcp/8999",
        ]);
        let answer = names().answer(&told, peer, false).unwrap().unwrap();
        let packet = Packet::parse(&answer).unwrap();
        assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER));
        assert!(packet.questions.is_empty());
        let kinds: Vec<TYPE> = packet
            .additional_records
            .iter()
            .map(|record| record.rdata.type_code())
            .collect();
        assert_eq!(kinds, [TYPE::SRV, TYPE::TXT, TYPE::A, TYPE::AAAA]);
        let expected: Vec<Multiaddr> = [1usize, 2, 3]
            .iter()
            .map(|at| told[*at].clone().with_p2p(peer).unwrap())
            .collect();
        assert_eq!(names().hear(&answer, PeerId::random()).peers, [(peer, expected)]);
        assert_eq!(
            names().hear(&answer, peer),
            Heard::default(),
            "our own is not news"
        );
        let goodbye = names().answer(&told, peer, true).unwrap().unwrap();
        assert_eq!(names().hear(&goodbye, PeerId::random()), Heard::default());
        assert_eq!(names().answer(&told[..1], peer, false).unwrap(), None);
    }

    #[test]
    fn an_answer_with_all_its_addresses_fits_a_frame() {
        let many: Vec<Multiaddr> = (0..50)
            .map(|at| format!("/ip4/100.100.100.{at}/tcp/65535").parse().unwrap())
            .collect();
        let peer = PeerId::random();
        let answer = names().answer(&many, peer, false).unwrap().unwrap();
        assert!(answer.len() < 1400, "{}", answer.len());
        assert_eq!(
            names().hear(&answer, PeerId::random()).peers[0].1.len(),
            MAX_ADDRESSES
        );
    }

    #[test]
    fn strings_that_are_no_addresses_of_a_peer_are_passed_over() {
        let peer = PeerId::random();
        for wrong in [
            format!("dnsaddr=/ip4/127.0.0.1/tcp/1/p2p/{peer}"),
            "dnsaddr=/ip4/10.0.0.1/tcp/1".to_owned(),
            format!("other=/ip4/10.0.0.1/tcp/1/p2p/{peer}"),
            format!("dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}"),
            "dnsaddr".to_owned(),
            "dnsaddr=\u{7f}".to_owned(),
        ] {
            let (key, value) = wrong
                .split_once('=')
                .map_or((wrong.as_str(), None), |(key, value)| (key, Some(value)));
            assert_eq!(
                read_address(key.as_bytes(), value.map(str::as_bytes)),
                None,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_header_that_promises_the_world_is_not_believed() {
        let mut packet = vec![0; HEADER_BYTES];
        packet[2] = 0x84;
        packet[6] = 0xff;
        packet[7] = 0xff;
        assert!(!announces_few(&packet));
        assert_eq!(names().hear(&packet, PeerId::random()), Heard::default());
        // A name that points to itself.
        let mut looping = names().question().unwrap();
        looping.truncate(HEADER_BYTES);
        looping.extend([0xc0, 0x0c, 0, 12, 0, 1]);
        assert_eq!(names().hear(&looping, PeerId::random()), Heard::default());
    }

    proptest! {
        #[test]
        fn any_packet_is_heard_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..300,
                                            with in any::<u8>()) {
            let local = PeerId::random();
            names().hear(&bytes, local);
            let told = addresses(&["/ip4/10.0.0.5/tcp/8999"]);
            let mut answer = names().answer(&told, local, false).unwrap().unwrap();
            let at = at % answer.len();
            answer[at] = with;
            names().hear(&answer, local);
        }
    }
}
