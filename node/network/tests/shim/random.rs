//! The shim against the real multistream-select on a stream that moves little at a time, in thousands of random
//! conversations: whatever two parties would have said to each other without it, they say with it.
//!
//! The wire names here have slashes, so that the other side can be the library itself, unwrapped. `SHIM_SEED` replays
//! one conversation, `SHIM_CASES` says how many to hold.

use dirnode_network::shim::{KAD_INSIDE, Renames, Role};
use libp2p::PeerId;
use libp2p::futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::futures::{AsyncRead, AsyncWrite, join};
use multistream_select::{Negotiated, NegotiationError, Version, dialer_select_proto, listener_select_proto};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::pipe::{Manners, pair, run};
use crate::{field, frame, shim_with};

/// (inside, wire); those that are equal are not renamed.
const NAMES: [(&str, &str); 6] = [
    (KAD_INSIDE, "/wire/kad"),
    ("/inside/a", "/w"),
    ("/ipfs/id/1.0.0", "/ipfs/id/1.0.0"),
    ("/ipfs/id/push/1.0.0", "/ipfs/id/push/1.0.0"),
    ("/plain/1", "/plain/1"),
    ("/inside", "/inside"),
];

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0.next_u32() as usize % end.max(1)
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most + 1)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// One to `most` different names, as indices.
    fn names(&mut self, most: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..NAMES.len()).collect();
        for at in (1..all.len()).rev() {
            let other = self.below(at + 1);
            all.swap(at, other);
        }
        all.truncate(1 + self.below(most));
        all
    }
}

/// What one side says on a protocol: (as written inside, as it stands on the wire).
fn speech(dice: &mut Dice, name: usize, from_dialer: bool) -> (Vec<u8>, Vec<u8>) {
    let identify = match NAMES[name].0 {
        "/ipfs/id/1.0.0" => !from_dialer,
        "/ipfs/id/push/1.0.0" => from_dialer,
        KAD_INSIDE => {
            // Whole messages, and now and then nothing of the kind at the end.
            let mut said: Vec<u8> = (0..dice.below(4)).flat_map(|_| frame(&dice.bytes(300))).collect();
            if dice.chance(4) {
                said.extend(dice.bytes(200));
            }
            return (said.clone(), said);
        }
        _ => false,
    };
    if !identify {
        let said = dice.bytes(2000);
        return (said.clone(), said);
    }
    let (mut inside, mut wire) = (Vec::new(), Vec::new());
    for _ in 0..dice.below(4) {
        if dice.chance(5) {
            // Does not parse.
            let broken = frame(&[&[0x1a, 0x7f], &dice.bytes(20)[..]].concat());
            inside.extend(&broken);
            wire.extend(&broken);
            continue;
        }
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for _ in 0..dice.below(12) {
            let at = dice.below(NAMES.len());
            let (a, b) = NAMES[at];
            let filler = field(dice.below(2) as u8 + 4, &dice.bytes(60));
            one.extend(field(3, a.as_bytes()));
            other.extend(field(3, b.as_bytes()));
            one.extend(&filler);
            other.extend(&filler);
        }
        inside.extend(frame(&one));
        wire.extend(frame(&other));
    }
    (inside, wire)
}

/// Says `said`, ends its half, and hears the other to the end; in parts that the dice choose.
async fn converse<S>(stream: Negotiated<S>, said: &[u8], part: usize) -> Result<Vec<u8>, std::io::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = stream.split();
    let speak = async {
        for part in said.chunks(part.max(1)) {
            writer.write_all(part).await?;
            if part.len() % 3 == 0 {
                writer.flush().await?;
            }
        }
        writer.close().await
    };
    let mut heard = Vec::new();
    let (spoken, read) = join!(speak, reader.read_to_end(&mut heard));
    read?;
    spoken?;
    Ok(heard)
}

fn check(seed: u64) {
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
    let renamed = NAMES.iter().copied().filter(|(inside, wire)| inside != wire);
    let (shim, _taps, _, _) = shim_with(Renames::new(renamed).unwrap());
    let we_dial = dice.chance(2);
    let version = if dice.chance(3) {
        Version::V1Lazy
    } else {
        Version::V1
    };
    let (offered, supported) = (dice.names(4), dice.names(NAMES.len()));
    let manners = Manners {
        step: [1, 2, 7, 4096][dice.below(4)],
        // Below a header both sides wait for the other to read, with or without the shim.
        capacity: [64, 80, 300, 100_000][dice.below(4)],
        pending: [0, 60, 180][dice.below(3)],
    };
    let agreed = offered.iter().copied().find(|name| supported.contains(name));
    let names = |indices: &[usize], inside: bool| -> Vec<&'static str> {
        indices
            .iter()
            .map(|at| if inside { NAMES[*at].0 } else { NAMES[*at].1 })
            .collect()
    };
    let (near, far) = pair(manners, seed);
    let role = if we_dial { Role::Dialer } else { Role::Listener };
    let near = shim.wrap_stream(PeerId::random(), near, role);
    let (dialer_says, listener_says) = match agreed {
        Some(name) => (speech(&mut dice, name, true), speech(&mut dice, name, false)),
        None => Default::default(),
    };
    let part = 1 + dice.below(700);

    /// Dials, agrees, talks.
    async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
        stream: S,
        names: Vec<&'static str>,
        version: Version,
        expected: Option<&'static str>,
        said: &[u8],
        part: usize,
    ) -> Option<Vec<u8>> {
        match dialer_select_proto(stream, names, version).await {
            Ok((name, stream)) => match expected {
                Some(expected) => {
                    assert_eq!(name, expected);
                    Some(converse(stream, said, part).await.unwrap())
                }
                None => {
                    assert_eq!(version, Version::V1Lazy);
                    assert!(matches!(stream.complete().await, Err(NegotiationError::Failed)));
                    None
                }
            },
            Err(error) => {
                assert!(expected.is_none(), "dialer: {error}");
                None
            }
        }
    }

    /// Listens, agrees, talks.
    async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
        stream: S,
        names: Vec<&'static str>,
        expected: Option<&'static str>,
        said: &[u8],
        part: usize,
    ) -> Option<Vec<u8>> {
        match listener_select_proto(stream, names).await {
            Ok((name, stream)) => {
                assert_eq!(Some(name), expected);
                Some(converse(stream, said, part).await.unwrap())
            }
            Err(error) => {
                assert!(expected.is_none(), "listener: {error}");
                None
            }
        }
    }

    let inside = agreed.map(|at| NAMES[at].0);
    let wire = agreed.map(|at| NAMES[at].1);
    let heard = if we_dial {
        run(async {
            join!(
                dial(near, names(&offered, true), version, inside, &dialer_says.0, part),
                listen(far, names(&supported, false), wire, &listener_says.1, part)
            )
        })
    } else {
        run(async {
            join!(
                dial(far, names(&offered, false), version, wire, &dialer_says.1, part),
                listen(near, names(&supported, true), inside, &listener_says.0, part)
            )
        })
    };
    let (by_dialer, by_listener) = heard.expect("nobody is left waiting");
    if agreed.is_none() {
        assert_eq!((by_dialer, by_listener), (None, None));
        return;
    }
    let (to_dialer, to_listener) = if we_dial {
        (listener_says.0, dialer_says.1)
    } else {
        (listener_says.1, dialer_says.0)
    };
    assert!(
        by_dialer.as_ref() == Some(&to_dialer),
        "the dialer heard something else"
    );
    assert!(
        by_listener.as_ref() == Some(&to_listener),
        "the listener heard something else"
    );
}

#[test]
fn random_conversations_go_as_without_the_shim() {
    if let Ok(seed) = std::env::var("SHIM_SEED") {
        check(seed.parse().unwrap());
        return;
    }
    let cases: u64 = std::env::var("SHIM_CASES").map_or(3000, |cases| cases.parse().unwrap());
    let start = rand::random::<u32>();
    println!("seeds {start} to {}", u64::from(start) + cases);
    for seed in u64::from(start)..u64::from(start) + cases {
        let outcome = std::panic::catch_unwind(|| check(seed));
        if let Err(panic) = outcome {
            eprintln!("replay with SHIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
