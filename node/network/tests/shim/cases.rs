//! Each trap of the shim once, with the other side written by hand.

use dirnode_network::shim::{EndpointSource, KAD_INSIDE, Role, ShimStream};
use libp2p::PeerId;
use libp2p::futures::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, IoSlice, IoSliceMut};
use libp2p::futures::{AsyncRead, join};
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::pipe::{End, Manners, pair, run};
use crate::{field, frame, shim};

const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
const KAD: &[u8] = b"\x0edir/kad/1.0.0\n";
const KAD_SLASHED: &[u8] = b"\x0f/dir/kad/1.0.0\n";
const NA: &[u8] = b"\x03na\n";
const DIR: &[u8] = b"\xff\xff\x03\x04a:81";
const TINY: Manners = Manners {
    step: 1,
    // Less than a header would let both sides wait for the other to read, with or without the shim.
    capacity: 64,
    pending: 0,
};

/// A stream of ours with the given role, and the remote's end of it.
fn ours(role: Role, manners: Manners) -> (ShimStream<End>, End) {
    let (shim, _, _, _) = shim();
    let (near, far) = pair(manners, 1);
    (shim.wrap_stream(PeerId::random(), near, role), far)
}

async fn expect(end: &mut End, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    end.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes, "{} instead", String::from_utf8_lossy(&read));
}

async fn all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    read
}

async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    names: &[&'static str],
) -> (String, Negotiated<S>) {
    let (name, stream) = listener_select_proto(stream, names.to_vec()).await.unwrap();
    (name.to_owned(), stream)
}

#[test]
fn early_data_of_a_pipelining_dialer_stays_in_the_stream() {
    let (near, mut far) = pair(Manners::PLAIN, 1);
    let unread = near.unread_later();
    let (shim, _, _, _) = shim();
    let mut near = shim.wrap_stream(PeerId::random(), near, Role::Listener);
    run(async {
        far.write_all(&[HEADER, KAD, b"\x02\x08\x05"].concat())
            .await
            .unwrap();
        let mut header = [0; 20];
        near.read_exact(&mut header).await.unwrap();
        assert_eq!(unread(), KAD.len() + 3, "one frame and not a byte more");
        let mut name = [0; KAD_SLASHED.len()];
        near.read_exact(&mut name).await.unwrap();
        assert_eq!(name, KAD_SLASHED);
        assert_eq!(unread(), 3);
        near.write_all(&[HEADER, KAD_SLASHED].concat()).await.unwrap();
        near.flush().await.unwrap();
        expect(&mut far, &[HEADER, KAD].concat()).await;
        let mut data = [0; 3];
        near.read_exact(&mut data).await.unwrap();
        assert_eq!(data, [2, 8, 5]);
    })
    .unwrap();
}

#[test]
fn a_listener_turns_plain_with_its_own_echo_and_a_dialer_with_the_echo_it_reads() {
    let (near, mut far) = ours(Role::Listener, Manners::PLAIN);
    run(async {
        far.write_all(&[HEADER, b"\x03/x\n", b"later"].concat())
            .await
            .unwrap();
        let (name, mut near) = listen(near, &["/x"]).await;
        assert_eq!(name, "/x");
        let mut data = [0; 5];
        near.read_exact(&mut data).await.unwrap();
        assert_eq!(&data, b"later");
    })
    .unwrap();

    let (mut near, mut far) = ours(Role::Dialer, Manners::PLAIN);
    run(async {
        near.write_all(&[HEADER, b"\x03/x\n"].concat()).await.unwrap();
        assert!(!near.is_plain());
        far.write_all(&[HEADER, b"\x03/x\n", b"\x0f"].concat())
            .await
            .unwrap();
        let mut read = [0; 25];
        near.read_exact(&mut read).await.unwrap();
        assert!(near.is_plain());
        assert_eq!(read[24], 0x0f);
    })
    .unwrap();
}

#[test]
fn a_refused_dialer_and_the_listener_that_refuses_go_on_talking_in_messages() {
    let (near, mut far) = ours(Role::Listener, TINY);
    run(async {
        let (near, ()) = join!(listen(near, &["/x", KAD_INSIDE]), async {
            far.write_all(&[HEADER, b"\x03/y\n"].concat()).await.unwrap();
            expect(&mut far, &[HEADER, NA].concat()).await;
            far.write_all(KAD).await.unwrap();
            expect(&mut far, KAD).await;
        });
        assert_eq!(near.0, KAD_INSIDE);
    })
    .unwrap();

    let (near, mut far) = ours(Role::Dialer, TINY);
    run(async {
        let dialed = dialer_select_proto(near, vec!["/y", KAD_INSIDE], Version::V1);
        let (near, ()) = join!(dialed, async {
            expect(&mut far, &[HEADER, b"\x03/y\n"].concat()).await;
            far.write_all(&[HEADER, NA].concat()).await.unwrap();
            expect(&mut far, KAD).await;
            far.write_all(KAD).await.unwrap();
        });
        assert_eq!(near.unwrap().0, KAD_INSIDE);
    })
    .unwrap();
}

#[test]
fn what_a_lazy_dialer_writes_behind_its_proposal_is_data() {
    let (near, mut far) = ours(Role::Dialer, TINY);
    run(async {
        let (_, mut near) = dialer_select_proto(near, vec!["/x"], Version::V1Lazy)
            .await
            .unwrap();
        let (far, ()) = join!(
            async move {
                // Data that looks like a proposal of ours, and is none.
                expect(&mut far, &[HEADER, b"\x03/x\n", KAD_SLASHED].concat()).await;
                far.write_all(&[HEADER, b"\x03/x\n", b"ok"].concat())
                    .await
                    .unwrap();
                far
            },
            async {
                near.write_all(KAD_SLASHED).await.unwrap();
                near.flush().await.unwrap();
                let mut read = [0; 2];
                near.read_exact(&mut read).await.unwrap();
                assert_eq!(&read, b"ok");
            }
        );
        drop(far);
    })
    .unwrap();
    // After a refusal the same bytes are the next proposal.
    let (mut near, mut far) = ours(Role::Dialer, Manners::PLAIN);
    run(async {
        near.write_all(&[HEADER, b"\x03/x\n"].concat()).await.unwrap();
        far.write_all(&[HEADER, NA].concat()).await.unwrap();
        let mut read = [0; 24];
        near.read_exact(&mut read).await.unwrap();
        near.write_all(KAD_SLASHED).await.unwrap();
        expect(&mut far, &[HEADER, b"\x03/x\n", KAD].concat()).await;
    })
    .unwrap();
}

#[test]
fn the_name_with_a_slash_is_refused_and_the_one_without_is_taken() {
    let (near, mut far) = ours(Role::Listener, TINY);
    run(async {
        let (near, ()) = join!(listen(near, &[KAD_INSIDE]), async {
            far.write_all(&[HEADER, KAD_SLASHED].concat()).await.unwrap();
            expect(&mut far, &[HEADER, NA].concat()).await;
            far.write_all(KAD).await.unwrap();
            expect(&mut far, KAD).await;
        });
        assert_eq!(near.0, KAD_INSIDE);
    })
    .unwrap();
}

#[test]
fn a_dialer_offers_the_wire_name_only_and_believes_no_other_echo() {
    let (near, mut far) = ours(Role::Dialer, TINY);
    run(async {
        let (near, ()) = join!(dialer_select_proto(near, vec![KAD_INSIDE], Version::V1), async {
            expect(&mut far, &[HEADER, KAD].concat()).await;
            far.write_all(&[HEADER, KAD_SLASHED].concat()).await.unwrap();
        });
        assert!(near.is_err());
    })
    .unwrap();
}

#[test]
fn taken_bytes_wait_their_turn_and_leave_with_flush_and_close() {
    let (near, mut far) = ours(Role::Listener, Manners { capacity: 1, ..TINY });
    let mut near = Box::pin(near);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(
        near.as_mut().poll_write(&mut cx, HEADER),
        Poll::Ready(Ok(20))
    ));
    // One byte went, nineteen wait; nothing more is taken before they are gone.
    assert_eq!(far.unread(), 1);
    assert!(near.as_mut().poll_write(&mut cx, NA).is_pending());
    assert!(near.as_mut().poll_flush(&mut cx).is_pending());
    assert!(near.as_mut().poll_close(&mut cx).is_pending());
    run(async {
        join!(async { near.close().await.unwrap() }, async {
            assert_eq!(all(&mut far).await, HEADER);
        })
    })
    .unwrap();
}

#[test]
fn vectored_calls_use_the_first_buffer_until_the_stream_is_plain() {
    let (near, mut far) = ours(Role::Listener, Manners::PLAIN);
    let mut near = Box::pin(near);
    let mut cx = Context::from_waker(Waker::noop());
    run(far.write_all(&[HEADER, b"\x03/x\n", b"data"].concat()))
        .unwrap()
        .unwrap();
    let (mut empty, mut first, mut second) = ([0; 0], [0; 24], [0; 8]);
    let mut bufs = [
        IoSliceMut::new(&mut empty),
        IoSliceMut::new(&mut first),
        IoSliceMut::new(&mut second),
    ];
    let read = near.as_mut().poll_read_vectored(&mut cx, &mut bufs);
    assert!(matches!(read, Poll::Ready(Ok(20))));
    let read = near.as_mut().poll_read_vectored(&mut cx, &mut bufs);
    assert!(matches!(read, Poll::Ready(Ok(4))));
    let bufs = [IoSlice::new(&[]), IoSlice::new(HEADER), IoSlice::new(b"\x03/x\n")];
    assert!(matches!(
        near.as_mut().poll_write_vectored(&mut cx, &bufs),
        Poll::Ready(Ok(20))
    ));
    let bufs = [IoSlice::new(b"\x03/x\n"), IoSlice::new(b"xx")];
    assert!(matches!(
        near.as_mut().poll_write_vectored(&mut cx, &bufs),
        Poll::Ready(Ok(4))
    ));
    assert!(near.is_plain());
    let bufs = [IoSlice::new(&[])];
    assert!(matches!(
        near.as_mut().poll_write_vectored(&mut cx, &bufs),
        Poll::Ready(Ok(0))
    ));
    run(near.write_all(b"yy")).unwrap().unwrap();
    assert_eq!(far.unread(), 26);
}

#[test]
fn broken_frames_are_handed_on_unchanged() {
    // The end of the stream inside a prefix or a body, a prefix too long, a prefix that is not minimal.
    for bytes in [
        &b"\x13/multi"[..],
        b"\xff",
        b"\xff\xff\xff\x01more",
        b"\x80\x00more",
    ] {
        for role in [Role::Dialer, Role::Listener] {
            let (near, mut far) = ours(role, TINY);
            let (read, ()) = run(async {
                join!(all(near), async {
                    far.write_all(bytes).await.unwrap();
                    far.close().await.unwrap();
                })
            })
            .unwrap();
            assert_eq!(read, bytes);
        }
    }
    // Half a frame from inside, then close.
    for bytes in [&b"\x13/multi"[..], b"\xff", b"\xff\xff\xff\x01more"] {
        let (mut near, far) = ours(Role::Dialer, TINY);
        let ((), read) = run(async {
            join!(
                async {
                    near.write_all(bytes).await.unwrap();
                    near.close().await.unwrap();
                },
                all(far)
            )
        })
        .unwrap();
        assert_eq!(read, bytes);
    }
}

#[test]
fn a_listing_names_the_wire_name_and_the_talk_goes_on() {
    let (near, mut far) = ours(Role::Listener, TINY);
    run(async {
        let (near, ()) = join!(listen(near, &["/x", KAD_INSIDE]), async {
            far.write_all(&[HEADER, b"\x03ls\n"].concat()).await.unwrap();
            expect(&mut far, HEADER).await;
            expect(&mut far, &frame(b"\x03/x\n\x0edir/kad/1.0.0\n\n")).await;
            far.write_all(KAD).await.unwrap();
            expect(&mut far, KAD).await;
        });
        assert_eq!(near.0, KAD_INSIDE);
    })
    .unwrap();
}

/// Both ends after agreeing on `name`, ours with `role`.
async fn agreed(
    near: ShimStream<End>,
    mut far: End,
    role: Role,
    name: &'static str,
) -> (Negotiated<ShimStream<End>>, End) {
    let wire = if name == KAD_INSIDE { &name[1..] } else { name };
    let line = frame(format!("{wire}\n").as_bytes());
    let said = [HEADER, &line].concat();
    let talk = async {
        match role {
            Role::Listener => {
                far.write_all(&said).await.unwrap();
                expect(&mut far, &said).await;
            }
            Role::Dialer => {
                expect(&mut far, &said).await;
                far.write_all(&said).await.unwrap();
            }
        }
    };
    let names = [name];
    let near = match role {
        Role::Listener => join!(listen(near, &names), talk).0.1,
        Role::Dialer => {
            join!(dialer_select_proto(near, vec![name], Version::V1), talk)
                .0
                .unwrap()
                .1
        }
    };
    (near, far)
}

#[test]
fn identify_is_rewritten_message_by_message_on_the_side_that_speaks() {
    let message = |kad: &[u8], extra: &[u8]| {
        frame(
            &[
                &field(3, b"/ipfs/id/1.0.0")[..],
                &field(3, kad),
                extra,
                &field(8, &[7; 200]),
            ]
            .concat(),
        )
    };
    let unknown = [0xf8, 0x07, 0x05];
    let broken = frame(b"\x1a\x7f/dir/kad/1.0.0");
    let wire = [
        message(b"dir/kad/1.0.0", &unknown),
        broken.clone(),
        message(b"dir/kad/1.0.0", b""),
    ]
    .concat();
    let inside = [
        message(b"/dir/kad/1.0.0", &unknown),
        broken,
        message(b"/dir/kad/1.0.0", b""),
    ]
    .concat();
    for (name, speaks) in [
        ("/ipfs/id/1.0.0", Role::Listener),
        ("/ipfs/id/push/1.0.0", Role::Dialer),
    ] {
        for role in [Role::Listener, Role::Dialer] {
            let (near, far) = ours(role, TINY);
            run(async {
                let (mut near, mut far) = agreed(near, far, role, name).await;
                if role == speaks {
                    let ((), read) = join!(
                        async {
                            near.write_all(&inside).await.unwrap();
                            near.close().await.unwrap();
                        },
                        all(&mut far)
                    );
                    assert_eq!(read, wire);
                } else {
                    let (read, ()) = join!(all(near), async {
                        far.write_all(&wire).await.unwrap();
                        far.close().await.unwrap();
                    });
                    assert_eq!(read, inside);
                }
            })
            .unwrap();
        }
    }
}

#[test]
fn an_identify_frame_too_long_to_look_at_is_handed_on() {
    let (near, far) = ours(Role::Dialer, Manners::PLAIN);
    let long = frame(&field(3, &[b'x'; 9000]));
    let read = run(async {
        let (near, mut far) = agreed(near, far, Role::Dialer, "/ipfs/id/1.0.0").await;
        far.write_all(&long).await.unwrap();
        far.close().await.unwrap();
        all(near).await
    });
    assert_eq!(read.unwrap(), long);
}

#[test]
fn endpoints_in_identify_are_reported_and_our_own_are_appended() {
    let (shim, mut taps, _, own) = shim();
    own.set(vec![bytes::Bytes::from_static(DIR)]).unwrap();
    let peer = PeerId::random();
    let (near, far) = pair(TINY, 1);
    let near = shim.wrap_stream(peer, near, Role::Dialer);
    let oci: &[u8] = b"\xfe\xff\x03\x01x";
    let said = frame(&[field(2, &[4, 127, 0, 0, 1]), field(2, oci)].concat());
    run(async {
        let (near, mut far) = agreed(near, far, Role::Dialer, "/ipfs/id/1.0.0").await;
        let (read, ()) = join!(all(near), async {
            far.write_all(&said).await.unwrap();
            far.close().await.unwrap();
        });
        assert_eq!(read, said);
    })
    .unwrap();
    let seen = taps.try_recv().unwrap();
    assert_eq!(
        (seen.peer, seen.source, &seen.endpoint[..]),
        (peer, EndpointSource::Identify, oci)
    );
    assert!(taps.try_recv().is_none());

    let (near, far) = pair(TINY, 1);
    let near = shim.wrap_stream(peer, near, Role::Listener);
    run(async {
        let (mut near, mut far) = agreed(near, far, Role::Listener, "/ipfs/id/1.0.0").await;
        let address = field(2, &[4, 127, 0, 0, 1]);
        let ((), read) = join!(
            async {
                near.write_all(&frame(&address)).await.unwrap();
                near.close().await.unwrap();
            },
            all(&mut far)
        );
        assert_eq!(read, frame(&[address, field(2, DIR)].concat()));
    })
    .unwrap();
}

fn providers(kind: u8, entries: &[(PeerId, &[&[u8]])]) -> Vec<u8> {
    let mut message = vec![0x08, kind];
    message.extend(field(2, b"key"));
    for (peer, addresses) in entries {
        let mut entry = field(1, &peer.to_bytes());
        for address in *addresses {
            entry.extend(field(2, address));
        }
        message.extend(field(9, &entry));
    }
    frame(&message)
}

#[test]
fn announcements_of_others_are_tapped_in_passing() {
    let (shim, mut taps, _, _) = shim();
    let (peer, other) = (PeerId::random(), PeerId::random());
    let (near, far) = pair(TINY, 1);
    let near = shim.wrap_stream(peer, near, Role::Listener);
    // A PING, an announcement with a stranger in it, and garbage that ends the looking but not the stream.
    let said = [
        frame(&[0x08, 0x05]),
        providers(2, &[(other, &[DIR]), (peer, &[DIR])]),
        vec![0xff, 0xff, 0xff, 0xff],
        providers(2, &[(peer, &[b"\xfe\xff\x03\x01x"])]),
    ]
    .concat();
    run(async {
        let (near, mut far) = agreed(near, far, Role::Listener, KAD_INSIDE).await;
        let (read, ()) = join!(all(near), async {
            far.write_all(&said).await.unwrap();
            far.close().await.unwrap();
        });
        assert_eq!(read, said);
    })
    .unwrap();
    let seen = taps.try_recv().unwrap();
    assert_eq!((seen.peer, seen.source), (peer, EndpointSource::Announcement));
    assert_eq!(seen.endpoint, DIR);
    assert!(taps.try_recv().is_none());
    assert_eq!(shim.metrics().frames_refused.get(), 1);
}

#[test]
fn our_announcement_carries_our_endpoints_and_the_answer_is_tapped() {
    let (shim, mut taps, local, own) = shim();
    own.set(vec![bytes::Bytes::from_static(DIR)]).unwrap();
    let (peer, other) = (PeerId::random(), PeerId::random());
    let ip: &[u8] = &[4, 127, 0, 0, 1];
    let (near, far) = pair(TINY, 1);
    let near = shim.wrap_stream(peer, near, Role::Dialer);
    run(async {
        let (mut near, mut far) = agreed(near, far, Role::Dialer, KAD_INSIDE).await;
        let answer = providers(3, &[(other, &[ip, DIR]), (local, &[DIR])]);
        let ((), ()) = join!(
            async {
                near.write_all(&providers(2, &[(local, &[ip])])).await.unwrap();
                near.write_all(&providers(2, &[(other, &[ip])])).await.unwrap();
                near.close().await.unwrap();
                assert_eq!(all(near).await, answer);
            },
            async {
                let asked = all(&mut far).await;
                assert_eq!(
                    asked,
                    [
                        providers(2, &[(local, &[ip, DIR])]),
                        providers(2, &[(other, &[ip])])
                    ]
                    .concat()
                );
                far.write_all(&answer).await.unwrap();
                far.close().await.unwrap();
            }
        );
    })
    .unwrap();
    let seen = taps.try_recv().unwrap();
    assert_eq!(
        (seen.peer, seen.source),
        (other, EndpointSource::Answer { reporter: peer })
    );
    assert!(taps.try_recv().is_none(), "nobody tells us of ourselves");
}

/// Bytes may be pushed one by one through a pinned stream that has never been polled before.
#[test]
fn a_stream_that_is_dropped_half_way_ends_the_other_side() {
    let (mut near, far) = ours(Role::Listener, TINY);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut near).poll_read(&mut cx, &mut [0; 8]).is_pending());
    drop(near);
    assert_eq!(run(all(far)).unwrap(), b"");
}
