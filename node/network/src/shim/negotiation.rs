//! The conversation that opens a substream, seen from between the two who hold it.
//!
//! Pure: one whole multistream-select message in, the message to hand on and what it decided out. One direction
//! renames protocol lines, the other undoes it. Follows p2p-wire §3.2 and §3.3.

use super::names::Renames;

const HEADER: &[u8] = b"/multistream/1.0.0\n";
const NOT_AVAILABLE: &[u8] = b"na\n";
const LIST: &[u8] = b"ls\n";
/// As many names as a listing is translated for; the reader behind us takes no more either.
const MAX_LISTED: usize = 1000;

/// Who opened the substream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We opened it and propose.
    Dialer,
    /// The remote opened it; we answer.
    Listener,
}

/// What a message decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The conversation goes on.
    Open,
    /// A dialer wrote this proposal (inside name). Whatever it writes before an answer is data.
    Proposed(Vec<u8>),
    /// A dialer read that its proposal was refused; what it writes next is a message again.
    Rejected,
    /// Both sides agreed on this protocol (inside name).
    Agreed(Vec<u8>),
}

#[derive(Debug)]
struct Proposal {
    wire: Vec<u8>,
    inside: Vec<u8>,
}

/// Where the conversation of one substream stands.
#[derive(Debug)]
pub(super) struct Negotiation {
    role: Role,
    /// The last name proposed, by us as dialer or by the remote as listener.
    proposal: Option<Proposal>,
    /// The next answer lists protocols.
    listing: bool,
}

impl Negotiation {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            proposal: None,
            listing: false,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// A message came from the wire.
    pub(super) fn on_read(&mut self, message: &[u8], renames: &Renames) -> (Vec<u8>, Outcome) {
        match self.role {
            Role::Listener => self.take_question(message, |name| renames.to_inside(name), false),
            Role::Dialer => self.take_answer(message, |name| renames.to_inside(name), true),
        }
    }

    /// A message came from inside and goes to the wire.
    pub(super) fn on_write(&mut self, message: &[u8], renames: &Renames) -> (Vec<u8>, Outcome) {
        match self.role {
            Role::Dialer => self.take_question(message, |name| renames.to_wire(name), true),
            Role::Listener => self.take_answer(message, |name| renames.to_wire(name), false),
        }
    }

    /// A message of the side that proposes. `ours`: it is we who propose, so what comes in is an inside name.
    fn take_question<'a>(
        &mut self,
        message: &'a [u8],
        rename: impl Fn(&'a [u8]) -> &'a [u8],
        ours: bool,
    ) -> (Vec<u8>, Outcome) {
        if message == LIST {
            self.listing = true;
            self.proposal = None;
        }
        let Some(name) = name_of(message) else {
            return (message.to_vec(), Outcome::Open);
        };
        let renamed = rename(name);
        let line = line_of(renamed);
        self.listing = false;
        let (inside, wire) = if ours { (name, renamed) } else { (renamed, name) };
        self.proposal = Some(Proposal {
            inside: inside.to_vec(),
            wire: wire.to_vec(),
        });
        let outcome = if ours {
            Outcome::Proposed(name.to_vec())
        } else {
            Outcome::Open
        };
        (line, outcome)
    }

    /// A message of the side that answers. `from_wire`: the remote answers us.
    fn take_answer<'a>(
        &mut self,
        message: &'a [u8],
        rename: impl Fn(&'a [u8]) -> &'a [u8],
        from_wire: bool,
    ) -> (Vec<u8>, Outcome) {
        if message == HEADER || message == LIST {
            return (message.to_vec(), Outcome::Open);
        }
        if message == NOT_AVAILABLE {
            self.listing = false;
            self.proposal = None;
            let outcome = if from_wire {
                Outcome::Rejected
            } else {
                Outcome::Open
            };
            return (message.to_vec(), outcome);
        }
        if std::mem::take(&mut self.listing) {
            return (rename_listing(message, rename), Outcome::Open);
        }
        let Some(name) = name_of(message) else {
            return (message.to_vec(), Outcome::Open);
        };
        if let Some(proposal) = &self.proposal {
            let (expected, other) = if from_wire {
                (&proposal.wire, &proposal.inside)
            } else {
                (&proposal.inside, &proposal.wire)
            };
            if expected == name {
                return (line_of(other), Outcome::Agreed(proposal.inside.clone()));
            }
        }
        // An echo of something that was not proposed. The reader will complain, but must not take an inside name
        // from the wire for an agreement.
        (line_of(rename(name)), Outcome::Open)
    }
}

/// The protocol name in a message, if it is one line and neither header nor `na` nor `ls`.
fn name_of(message: &[u8]) -> Option<&[u8]> {
    if [HEADER, NOT_AVAILABLE, LIST].contains(&message) {
        return None;
    }
    let name = message.strip_suffix(b"\n")?;
    (!name.contains(&b'\n')).then_some(name)
}

fn line_of(name: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(name.len().saturating_add(1));
    line.extend_from_slice(name);
    line.push(b'\n');
    line
}

/// Renames inside the answer to `ls`: names with their lengths before them, each ended by a line feed, and one line
/// feed at the end. Anything else is handed on as it is.
fn rename_listing<'a>(message: &'a [u8], rename: impl Fn(&'a [u8]) -> &'a [u8]) -> Vec<u8> {
    let mut renamed = Vec::with_capacity(message.len());
    let mut rest = message;
    for _ in 0..=MAX_LISTED {
        if rest == b"\n" {
            renamed.push(b'\n');
            return renamed;
        }
        let Ok((length, behind)) = unsigned_varint::decode::usize(rest) else {
            break;
        };
        let Some((entry, behind)) = behind.split_at_checked(length) else {
            break;
        };
        let Some(name) = entry.strip_suffix(b"\n") else {
            break;
        };
        let line = line_of(rename(name));
        let mut prefix = unsigned_varint::encode::usize_buffer();
        renamed.extend_from_slice(unsigned_varint::encode::usize(line.len(), &mut prefix));
        renamed.extend_from_slice(&line);
        rest = behind;
    }
    message.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renames() -> Renames {
        Renames::network()
    }

    fn check(got: (Vec<u8>, Outcome), line: &[u8], outcome: Outcome) {
        assert_eq!((got.0.as_slice(), got.1), (line, outcome));
    }

    #[test]
    fn a_listener_is_asked_for_the_inside_name_and_its_echo_is_renamed() {
        let mut talk = Negotiation::new(Role::Listener);
        check(talk.on_read(HEADER, &renames()), HEADER, Outcome::Open);
        check(talk.on_write(HEADER, &renames()), HEADER, Outcome::Open);
        check(
            talk.on_read(b"dir/kad/1.0.0\n", &renames()),
            b"/dir/kad/1.0.0\n",
            Outcome::Open,
        );
        check(
            talk.on_write(b"/dir/kad/1.0.0\n", &renames()),
            b"dir/kad/1.0.0\n",
            Outcome::Agreed(b"/dir/kad/1.0.0".to_vec()),
        );
    }

    #[test]
    fn the_inside_name_on_the_wire_is_asked_as_one_nobody_supports() {
        let mut talk = Negotiation::new(Role::Listener);
        check(
            talk.on_read(b"/dir/kad/1.0.0\n", &renames()),
            b"/refused\n",
            Outcome::Open,
        );
        check(
            talk.on_write(NOT_AVAILABLE, &renames()),
            NOT_AVAILABLE,
            Outcome::Open,
        );
        check(talk.on_read(b"/x\n", &renames()), b"/x\n", Outcome::Open);
        check(
            talk.on_write(b"/x\n", &renames()),
            b"/x\n",
            Outcome::Agreed(b"/x".to_vec()),
        );
    }

    #[test]
    fn a_dialer_offers_the_wire_name_only_and_agrees_on_its_echo() {
        let mut talk = Negotiation::new(Role::Dialer);
        check(
            talk.on_write(b"/dir/kad/1.0.0\n", &renames()),
            b"dir/kad/1.0.0\n",
            Outcome::Proposed(b"/dir/kad/1.0.0".to_vec()),
        );
        check(talk.on_read(HEADER, &renames()), HEADER, Outcome::Open);
        check(
            talk.on_read(b"/dir/kad/1.0.0\n", &renames()),
            b"/refused\n",
            Outcome::Open,
        );
        check(
            talk.on_read(b"dir/kad/1.0.0\n", &renames()),
            b"/dir/kad/1.0.0\n",
            Outcome::Agreed(b"/dir/kad/1.0.0".to_vec()),
        );
    }

    #[test]
    fn a_dialer_goes_on_after_a_refusal() {
        let mut talk = Negotiation::new(Role::Dialer);
        talk.on_write(b"/a\n", &renames());
        check(
            talk.on_read(NOT_AVAILABLE, &renames()),
            NOT_AVAILABLE,
            Outcome::Rejected,
        );
        check(talk.on_read(b"/a\n", &renames()), b"/a\n", Outcome::Open);
        check(
            talk.on_write(b"/b\n", &renames()),
            b"/b\n",
            Outcome::Proposed(b"/b".to_vec()),
        );
        check(
            talk.on_read(b"/b\n", &renames()),
            b"/b\n",
            Outcome::Agreed(b"/b".to_vec()),
        );
    }

    #[test]
    fn listings_are_renamed_both_ways() {
        let inside = b"\x0f/dir/kad/1.0.0\n\x0f/dir/rpc/1.0.0\n\n";
        let wire = b"\x0edir/kad/1.0.0\n\x0f/dir/rpc/1.0.0\n\n";
        let mut talk = Negotiation::new(Role::Listener);
        check(talk.on_read(LIST, &renames()), LIST, Outcome::Open);
        check(talk.on_write(inside, &renames()), wire, Outcome::Open);
        let mut talk = Negotiation::new(Role::Dialer);
        check(talk.on_write(LIST, &renames()), LIST, Outcome::Open);
        check(talk.on_read(wire, &renames()), inside, Outcome::Open);
        // Nothing supported, and an answer that is no listing.
        for same in [&b"\n"[..], b"\x7fshort\n", b""] {
            let mut talk = Negotiation::new(Role::Listener);
            talk.on_read(LIST, &renames());
            check(talk.on_write(same, &renames()), same, Outcome::Open);
        }
    }

    #[test]
    fn messages_without_a_line_feed_pass_and_are_no_proposal() {
        let mut talk = Negotiation::new(Role::Listener);
        check(
            talk.on_read(b"dir/kad/1.0.0", &renames()),
            b"dir/kad/1.0.0",
            Outcome::Open,
        );
        check(
            talk.on_write(b"/dir/kad/1.0.0\n", &renames()),
            b"dir/kad/1.0.0\n",
            Outcome::Open,
        );
        check(talk.on_read(b"", &renames()), b"", Outcome::Open);
        check(talk.on_read(b"a\nb\n", &renames()), b"a\nb\n", Outcome::Open);
    }
}
