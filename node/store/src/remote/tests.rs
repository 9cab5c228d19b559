//! Tests of the index as a whole: what each change does, bounds, the order of an answer, restarts and damage.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dirnode_record::{Label, Namespace};

use super::*;
use crate::{RecordCid, StoreErrorKind};

const SECOND: i64 = 1_000_000_000;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 1, number]).unwrap()
}

/// CIDs in the order of their numbers.
fn cid(number: u16) -> RecordCid {
    let mut digest = [7; 32];
    digest[..2].copy_from_slice(&number.to_be_bytes());
    RecordCid::from_digest(digest)
}

fn labels(texts: &[&str]) -> Vec<Label> {
    texts.iter().map(|text| Label::parse(text).unwrap()).collect()
}

fn row(record: u16, publisher: u8, texts: &[&str], standing: Standing) -> Row {
    Row {
        cid: cid(record),
        peer: peer(publisher),
        labels: labels(texts),
        timestamp_ns: 1,
        last_seen_ns: i64::from(record) * SECOND,
        expires_at_ns: 100_000 * SECOND,
        standing,
    }
}

fn put(record: u16, publisher: u8, texts: &[&str]) -> Change {
    Change::Put(row(record, publisher, texts, Standing::Claimed))
}

fn skill(value: &str) -> RemoteQuery {
    RemoteQuery {
        kind: RemoteQueryKind::In(Namespace::Skills),
        value: value.to_owned(),
    }
}

fn query(kind: RemoteQueryKind, value: &str) -> RemoteQuery {
    let value = value.to_owned();
    RemoteQuery { kind, value }
}

fn found(index: &RemoteIndex, search: &RemoteSearch) -> Vec<RecordCid> {
    let hits = index.search(search).unwrap();
    assert!(!hits.cut);
    hits.hits.iter().map(|hit| hit.place.cid).collect()
}

fn all_rows(index: &RemoteIndex) -> Vec<Row> {
    let (mut rows, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (part, next) = index.rows_from(at, 7);
        rows.extend(part);
        from = next;
    }
    rows.sort_by(|one, other| (one.cid, &one.peer).cmp(&(other.cid, &other.peer)));
    rows
}

fn all_tombs(index: &RemoteIndex) -> Vec<Tomb> {
    let (mut tombs, next) = index.tombs_from(0, u32::MAX);
    assert_eq!(next, None);
    tombs.sort_by(|one, other| (one.cid, &one.peer).cmp(&(other.cid, &other.peer)));
    tombs
}

fn in_memory(limits: Limits) -> RemoteIndex {
    RemoteIndex::in_memory(limits)
}

fn open(dir: &Path) -> RemoteIndex {
    RemoteIndex::open(dir, Limits::default(), 0).unwrap()
}

#[test]
fn every_change_made_twice_changes_nothing_more() {
    let index = in_memory(Limits::default());
    let changes = [
        put(1, 1, &["/skills/a/b", "/skills/a/b", "/domains/x"]),
        Change::Add {
            cid: cid(1),
            peer: peer(1),
            labels: labels(&["/skills/c", "/domains/x"]),
        },
        Change::Refresh {
            cid: cid(1),
            peer: peer(1),
            timestamp_ns: 5,
            last_seen_ns: 6,
            expires_at_ns: 7,
            standing: Standing::Verified,
        },
        Change::Bury(Tomb {
            cid: cid(1),
            peer: peer(1),
            timestamp_ns: 8,
            first_hand: true,
            until_ns: 9,
        }),
        Change::Forget {
            cid: cid(1),
            peer: peer(1),
        },
    ];
    for change in &changes {
        assert_eq!(index.apply(std::slice::from_ref(change)).changed, 1, "{change:?}");
        let (rows, tombs) = (all_rows(&index), all_tombs(&index));
        assert_eq!(index.apply(std::slice::from_ref(change)).changed, 0, "{change:?}");
        assert_eq!((all_rows(&index), all_tombs(&index)), (rows, tombs));
        if let Change::Refresh { .. } = change {
            let row = index.row(&cid(1), &peer(1)).unwrap();
            assert_eq!(row.labels, labels(&["/domains/x", "/skills/a/b", "/skills/c"]));
            assert_eq!((row.timestamp_ns, row.last_seen_ns, row.expires_at_ns), (5, 6, 7));
            assert_eq!(row.standing, Standing::Verified);
        }
    }
    assert_eq!(index.size(), Size::default());
    for change in &changes[1..3] {
        assert_eq!(
            index.apply(std::slice::from_ref(change)).changed,
            0,
            "there is no row"
        );
    }
}

#[test]
fn a_put_forgets_the_withdrawal_and_a_burial_removes_the_row() {
    let index = in_memory(Limits::default());
    let tomb = Tomb {
        cid: cid(1),
        peer: peer(1),
        timestamp_ns: 3,
        first_hand: false,
        until_ns: 50 * SECOND,
    };
    index.apply(&[put(1, 1, &["/skills/a"]), Change::Bury(tomb.clone())]);
    assert_eq!(
        (all_rows(&index), all_tombs(&index)),
        (vec![], vec![tomb.clone()])
    );
    assert_eq!(index.tomb(&cid(1), &peer(1)), Some(tomb));
    index.apply(&[put(1, 1, &["/skills/a"])]);
    assert_eq!((all_rows(&index).len(), index.tomb(&cid(1), &peer(1))), (1, None));
}

#[test]
fn queries_match_as_the_contract_says() {
    let index = in_memory(Limits::default());
    index.apply(&[
        put(1, 1, &["/skills/nlp/sum", "/domains/finance", "/locators/oci"]),
        put(2, 1, &["/skills/nlp_more/sum", "/locators/oci/x"]),
        put(3, 1, &["/skills//nlp/./sum/", "/modules/m"]),
        put(4, 1, &[]),
        put(5, 1, &["/skills/.."]),
    ]);
    let ask = |kind, value: &str| found(&index, &RemoteSearch::new(vec![query(kind, value)]));
    let in_skills = RemoteQueryKind::In(Namespace::Skills);
    let both = vec![cid(1), cid(3)];
    assert_eq!(ask(in_skills, "nlp"), both);
    assert_eq!(ask(in_skills, "nlp/sum"), both);
    for value in [
        "",
        "nlp/",
        "/nlp",
        "NLP",
        "nlp/su",
        "nlp*",
        "nlp/sum/x",
        "../domains/finance",
    ] {
        assert!(ask(in_skills, value).is_empty(), "{value:?}");
    }
    assert_eq!(ask(RemoteQueryKind::In(Namespace::Locators), "oci"), [cid(1)]);
    assert_eq!(ask(RemoteQueryKind::In(Namespace::Locators), "oci/x"), [cid(2)]);
    assert_eq!(ask(RemoteQueryKind::In(Namespace::Modules), "m"), [cid(3)]);
    assert_eq!(ask(RemoteQueryKind::Any, "whatever"), [cid(1), cid(2), cid(3)]);
    assert!(ask(RemoteQueryKind::Never, "nlp").is_empty());
    assert!(found(&index, &RemoteSearch::new(vec![])).is_empty());
    let counts: Vec<usize> = (1..=5).map(|number| index.provider_count(&cid(number))).collect();
    assert_eq!(
        counts,
        [1, 1, 1, 0, 0],
        "a row without a label that is found does not count"
    );
}

#[test]
fn scores_count_distinct_queries_of_one_publisher() {
    let index = in_memory(Limits::default());
    index.apply(&[
        put(1, 1, &["/skills/a", "/skills/b"]),
        put(2, 1, &["/skills/a"]),
        put(2, 2, &["/skills/b"]),
    ]);
    let mut search = RemoteSearch::new(vec![skill("a"), skill("x"), skill("a"), skill("b")]);
    assert_eq!(found(&index, &search), [cid(1), cid(2)]);
    let hits = index.search(&search).unwrap().hits;
    assert_eq!(
        (hits[0].place.score, &hits[0].providers[0].matched),
        (2, &vec![0, 3])
    );
    let providers: Vec<_> = hits[1]
        .providers
        .iter()
        .map(|found| (found.peer.clone(), found.score()))
        .collect();
    assert_eq!(providers, [(peer(1), 1), (peer(2), 1)]);
    search.min_score = 2;
    assert_eq!(found(&index, &search), [cid(1)]);
    search.min_score = 3;
    assert!(found(&index, &search).is_empty());
}

#[test]
fn the_order_is_standing_score_cid_and_pages_go_on_where_they_ended() {
    let index = in_memory(Limits::default());
    let (a, ab) = (["/skills/a"], ["/skills/a", "/skills/b"]);
    index.apply(&[
        Change::Put(row(9, 1, &a, Standing::Verified)),
        Change::Put(row(8, 1, &ab, Standing::Verified)),
        Change::Put(row(1, 1, &ab, Standing::Claimed)),
        Change::Put(row(2, 1, &a, Standing::Claimed)),
        Change::Put(row(3, 1, &ab, Standing::Claimed)),
        Change::Put(row(0, 1, &ab, Standing::Hearsay)),
        // Ranks by its better provider, though another scores more.
        Change::Put(row(4, 2, &a, Standing::Verified)),
        Change::Put(row(4, 1, &ab, Standing::Hearsay)),
    ]);
    let mut search = RemoteSearch::new(vec![skill("a"), skill("b")]);
    let expected: Vec<RecordCid> = [8, 4, 9, 1, 3, 2, 0].map(cid).to_vec();
    assert_eq!(found(&index, &search), expected);
    for limit in 1..8 {
        search.limit = limit;
        search.after = None;
        assert_eq!(found(&index, &search), expected[..limit.min(7)]);
        let mut pages = Vec::new();
        loop {
            let hits = index.search(&search).unwrap().hits;
            let Some(last) = hits.last() else { break };
            search.after = Some(last.place);
            pages.extend(hits.iter().map(|hit| hit.place.cid));
        }
        assert_eq!(pages, expected, "in pages of {limit}");
    }
    let hits = index
        .search(&RemoteSearch::new(vec![skill("a"), skill("b")]))
        .unwrap()
        .hits;
    let four = &hits[1];
    assert_eq!(
        (four.place.standing, four.place.score, four.matching),
        (Standing::Verified, 1, 2)
    );
    assert_eq!(four.providers[0].peer, peer(2));
}

#[test]
fn the_excluded_peer_neither_matches_nor_is_listed() {
    let index = in_memory(Limits::default());
    index.apply(&[
        put(1, 1, &["/skills/a"]),
        put(1, 2, &["/skills/a"]),
        put(2, 1, &["/skills/a"]),
    ]);
    let mut search = RemoteSearch::new(vec![skill("a")]);
    search.exclude = Some(peer(1));
    let hits = index.search(&search).unwrap().hits;
    assert_eq!(hits.len(), 1);
    assert_eq!((hits[0].matching, &hits[0].providers[0].peer), (1, &peer(2)));
}

#[test]
fn providers_are_bounded_and_the_best_stay() {
    let index = in_memory(Limits::default());
    for publisher in 0..50u8 {
        let mut row = row(1, publisher, &["/skills/a"], Standing::Claimed);
        row.last_seen_ns = i64::from(publisher % 10) * SECOND;
        index.apply(&[Change::Put(row)]);
    }
    let mut search = RemoteSearch::new(vec![skill("a")]);
    search.max_providers = 6;
    let hit = &index.search(&search).unwrap().hits[0];
    let peers: Vec<PeerId> = hit.providers.iter().map(|found| found.peer.clone()).collect();
    assert_eq!(peers, [9, 19, 29, 39, 49, 8].map(peer));
    assert_eq!((hit.matching, index.provider_count(&cid(1))), (50, 50));
}

#[test]
fn a_search_ends_with_its_budget_and_says_so() {
    let index = in_memory(Limits::default());
    let changes: Vec<Change> = (0..2_000).map(|record| put(record, 1, &["/skills/a"])).collect();
    index.apply(&changes);
    let mut search = RemoteSearch::new(vec![skill("a")]);
    search.budget = 100;
    let hits = index.search(&search).unwrap();
    assert!(hits.cut && !hits.hits.is_empty() && hits.hits.len() < 100);
    assert_eq!(index.counters().searches_cut, 1);
    search.limit = 10;
    search.budget = DEFAULT_BUDGET;
    assert_eq!(found(&index, &search), (0..10).map(cid).collect::<Vec<_>>());
}

#[test]
fn the_number_of_queries_is_bounded() {
    let index = in_memory(Limits::default());
    let many =
        |count: usize| RemoteSearch::new((0..count).map(|number| skill(&number.to_string())).collect());
    assert!(index.search(&many(MAX_QUERIES)).is_ok());
    assert_eq!(
        index.search(&many(MAX_QUERIES + 1)),
        Err(RemoteSearchError::TooManyQueries {
            count: MAX_QUERIES + 1
        })
    );
    assert!(
        index.search(&RemoteSearch::new(vec![skill("a"); 5_000])).is_ok(),
        "they are one query"
    );
}

#[test]
fn records_whose_cids_begin_alike_keep_their_order() {
    let index = in_memory(Limits::default());
    let alike = |number: u16| {
        let mut digest = [9; 32];
        digest[30..].copy_from_slice(&number.to_be_bytes());
        RecordCid::from_digest(digest)
    };
    for number in (0..1_000u16).rev() {
        let mut row = row(0, 1, &["/skills/a"], Standing::Claimed);
        row.cid = alike(number);
        index.apply(&[Change::Put(row)]);
    }
    let expected: Vec<RecordCid> = (0..1_000).map(alike).collect();
    assert_eq!(found(&index, &RemoteSearch::new(vec![skill("a")])), expected);
    for number in 0..1_000 {
        let (cid, peer) = (alike(number), peer(1));
        index.apply(&[Change::Remove { cid, peer }]);
    }
    assert_eq!(index.size(), Size::default());
}

#[test]
fn ends_come_a_bounded_number_at_a_time() {
    let index = in_memory(Limits::default());
    for record in 0..100 {
        let mut row = row(record, 1, &["/skills/a"], Standing::Claimed);
        row.expires_at_ns = i64::from(record) * SECOND + 1;
        index.apply(&[Change::Put(row)]);
    }
    assert_eq!(
        index.expire(0, 1_000),
        Expired::default(),
        "none ends before its time"
    );
    // A row that is heard of again ends later.
    let later = Change::Refresh {
        cid: cid(3),
        peer: peer(1),
        timestamp_ns: 1,
        last_seen_ns: 1,
        expires_at_ns: 500 * SECOND,
        standing: Standing::Claimed,
    };
    index.apply(&[later]);
    let expired = index.expire(50 * SECOND, 20);
    assert!(expired.more && expired.ended == 19, "{expired:?}");
    while index.expire(50 * SECOND, 20).more {}
    assert_eq!(index.size().all_rows(), 51);
    assert!(index.row(&cid(3), &peer(1)).is_some());
    let bury = |record, until_ns| {
        Change::Bury(Tomb {
            cid: cid(record),
            peer: peer(2),
            timestamp_ns: 1,
            first_hand: true,
            until_ns,
        })
    };
    index.apply(&[bury(1, 400 * SECOND), bury(2, 600 * SECOND)]);
    assert_eq!(
        index.expire(500 * SECOND, 1_000),
        Expired {
            ended: 52,
            more: false
        }
    );
    assert_eq!((index.size().tombs, index.size().all_rows()), (1, 0));
    index.expire(i64::MAX, 10);
    assert_eq!(index.size(), Size::default());
}

#[test]
fn a_peer_that_says_too_much_loses_what_is_oldest() {
    let index = in_memory(Limits {
        max_rows_per_peer: 3,
        ..Limits::default()
    });
    index.apply(&[put(5, 2, &["/skills/a"])]);
    for record in [4, 2, 3, 1] {
        index.apply(&[put(record, 1, &["/skills/a"])]);
    }
    // Record 2 was the one not heard of for longest when 1 came.
    let kept: Vec<RecordCid> = all_rows(&index).iter().map(|row| row.cid).collect();
    assert_eq!(kept, [cid(1), cid(3), cid(4), cid(5)]);
    assert_eq!(
        (index.counters().evicted_peer, index.rows_of_peer(&peer(1))),
        (1, 3)
    );
}

/// Records of which a peer has a row.
fn records_of(index: &RemoteIndex, publisher: u8) -> Vec<RecordCid> {
    let rows = all_rows(index).into_iter();
    rows.filter(|row| row.peer == peer(publisher))
        .map(|row| row.cid)
        .collect()
}

#[test]
fn in_a_full_index_whoever_takes_most_gives_way() {
    let index = in_memory(Limits {
        max_rows: 3,
        max_labels: 6,
        ..Limits::default()
    });
    index.apply(&[
        put(1, 1, &["/skills/a", "/skills/b"]),
        put(2, 1, &["/skills/a", "/skills/b"]),
        put(3, 2, &["/skills/a"]),
    ]);
    // A third peer has no row that could go, and needs none.
    let applied = index.apply(&[put(4, 3, &["/skills/a"])]);
    assert_eq!((applied.changed, applied.lost()), (1, 1));
    assert_eq!(applied.evicted, [(cid(1), peer(1))]);
    // Whoever has most may be the one that asks.
    let applied = index.apply(&[put(5, 1, &["/skills/a", "/skills/b"])]);
    assert_eq!(applied.evicted, [(cid(2), peer(1))]);
    let add = |record, publisher, texts: &[&str]| Change::Add {
        cid: cid(record),
        peer: peer(publisher),
        labels: labels(texts),
    };
    index.apply(&[add(4, 3, &["/skills/b", "/skills/c"])]);
    let applied = index.apply(&[add(3, 2, &["/skills/b"])]);
    assert_eq!(applied.evicted, [(cid(4), peer(3))]);
    // With these it would take most, and it has no other row.
    let applied = index.apply(&[add(3, 2, &["/skills/c", "/skills/d", "/skills/e"])]);
    assert_eq!(applied.refused, [(0, Refusal::Full { rows: 2, labels: 4 })]);
    let more = ["/skills/v", "/skills/w", "/skills/x", "/skills/y", "/skills/z"];
    let applied = index.apply(&[put(3, 2, &more)]);
    assert_eq!(applied.refused, [(0, Refusal::Full { rows: 2, labels: 4 })]);
    assert_eq!(
        index.row(&cid(3), &peer(2)),
        Some(row(3, 2, &["/skills/a", "/skills/b"], Standing::Claimed))
    );
    let many: Vec<String> = (0..7).map(|number| format!("/skills/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = index.apply(&[put(9, 1, &many)]).refused;
    assert!(
        matches!(refused[..], [(0, Refusal::RowTooLarge { labels: 7, .. })]),
        "{refused:?}"
    );
    assert!(index.row(&cid(9), &peer(1)).is_none());
    let counters = index.counters();
    assert_eq!(
        (counters.evicted_full, counters.evicted_peer, counters.refused),
        (3, 0, 3)
    );
    let size = index.size();
    assert_eq!((size.all_rows(), size.labels, size.distinct_labels), (2, 4, 2));
}

/// One identity once filled the text or the posting lists of all with long or deep labels; labels of others were then
/// left out in silence, and their rows refused.
#[test]
fn nobody_fills_the_index_for_the_others() {
    let segments = |number: u16| (0..30).map(|at| format!("{number}-{at}/")).collect::<String>();
    let long = |number: u16| format!("/skills/{number}{}", "x".repeat(200));
    let deep = |number: u16| format!("/skills/{}", segments(number));
    for labels_of in [&long as &dyn Fn(u16) -> String, &deep] {
        let limits = Limits {
            max_text_bytes: 40_000,
            max_text_bytes_per_peer: 5_000,
            max_postings: 4_000,
            max_postings_per_peer: 500,
            ..Limits::default()
        };
        let index = in_memory(limits.clone());
        // Half of what is honest is there before, half comes after.
        let honest: Vec<Change> = (0..60u16)
            .map(|record| {
                let publisher = 100 + u8::try_from(record % 10).unwrap();
                put(
                    record,
                    publisher,
                    &["/skills/common/one", &format!("/domains/own/{record}")],
                )
            })
            .collect();
        let (before, after) = honest.split_at(30);
        assert_eq!(index.apply(before).lost(), 0);
        // One alone does not get beyond its share.
        for record in 1_000..1_500 {
            index.apply(&[put(record, 1, &[&labels_of(record)])]);
        }
        let counters = index.counters();
        assert!(
            counters.evicted_peer > 400 && counters.evicted_full == 0,
            "{counters:?}"
        );
        assert_eq!(index.apply(&[]), Applied::default());
        // Many together have to share what is left.
        for publisher in 2..30u8 {
            for record in 2_000..2_100 {
                let label = labels_of(record + u16::from(publisher) * 100);
                index.apply(&[put(record, publisher, &[&label])]);
            }
        }
        assert!(index.counters().evicted_full > 100, "{:?}", index.counters());
        for change in after {
            let applied = index.apply(std::slice::from_ref(change));
            assert_eq!((applied.changed, applied.refused.len()), (1, 0));
            assert!(
                applied.evicted.iter().all(|(_, peer)| *peer < self::peer(100)),
                "{applied:?}"
            );
        }
        let search = RemoteSearch::new(vec![skill("common")]);
        assert_eq!(found(&index, &search), (0..60).map(cid).collect::<Vec<_>>());
        for record in [0, 59] {
            let own = query(RemoteQueryKind::In(Namespace::Domains), &format!("own/{record}"));
            assert_eq!(found(&index, &RemoteSearch::new(vec![own])), [cid(record)]);
        }
        let (size, counters) = (index.size(), index.counters());
        assert!(size.text_bytes <= limits.max_text_bytes && size.postings <= limits.max_postings);
        assert_eq!((counters.refused, counters.labels_no_room), (0, 0));
    }
}

/// What a peer is charged for does not hang on what others say.
#[test]
fn a_text_that_several_have_counts_for_each_of_them() {
    let index = in_memory(Limits {
        max_text_bytes_per_peer: 30,
        max_text_bytes: 50,
        ..Limits::default()
    });
    let ten = |name: char| format!("/skills/{name}{name}");
    let [a, b, c, d, e, f] = ['a', 'b', 'c', 'd', 'e', 'f'].map(ten);
    // Two have the same, and one of them takes it back: the other one has it still.
    index.apply(&[put(1, 1, &[&a, &b, &c]), put(2, 2, &[&a, &b, &c])]);
    let (cid_1, peer_1) = (cid(1), peer(1));
    index.apply(&[Change::Remove {
        cid: cid_1,
        peer: peer_1,
    }]);
    assert_eq!(index.size().text_bytes, 30);
    // Who took it back has its whole share.
    assert_eq!(index.apply(&[put(3, 1, &[&d, &e])]).lost(), 0);
    assert_eq!(index.size().text_bytes, 50);
    // Who has it still has no more, and loses it for something else.
    let applied = index.apply(&[put(4, 2, &[&f])]);
    assert_eq!(applied.evicted, [(cid(2), peer(2))]);
    assert_eq!(index.counters().evicted_peer, 1);
    // What one has in two rows counts once.
    assert_eq!(index.apply(&[put(5, 1, &[&d, &e, &f])]).lost(), 0);
    assert_eq!(index.size().text_bytes, 30);
}

#[test]
fn changes_of_rows_that_are_not_there_are_told() {
    let index = in_memory(Limits::default());
    index.apply(&[put(1, 1, &["/skills/a"])]);
    let refresh = |record| Change::Refresh {
        cid: cid(record),
        peer: peer(1),
        timestamp_ns: 5,
        last_seen_ns: 6,
        expires_at_ns: 7,
        standing: Standing::Verified,
    };
    let add = |record| Change::Add {
        cid: cid(record),
        peer: peer(1),
        labels: labels(&["/skills/a"]),
    };
    let remove = Change::Remove {
        cid: cid(2),
        peer: peer(1),
    };
    let applied = index.apply(&[refresh(1), refresh(2), add(1), add(3), remove]);
    assert_eq!(
        (applied.changed, applied.absent, index.counters().absent),
        (1, vec![1, 3], 2)
    );
    // It is there again once it was put.
    assert_eq!(index.apply(&[put(2, 1, &["/skills/a"]), refresh(2)]).changed, 2);
}

#[test]
fn a_start_with_smaller_bounds_takes_from_whoever_has_most() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("remote");
    let index = open(&dir);
    for record in 0..50 {
        index.apply(&[put(record, 1, &["/skills/a"])]);
    }
    for record in 50..60 {
        index.apply(&[put(record, 2, &["/skills/a"]), put(record, 3, &["/skills/b/c"])]);
    }
    index.close().unwrap();
    let limits = Limits {
        max_rows: 30,
        max_rows_per_peer: 40,
        max_postings: 64,
        ..Limits::default()
    };
    let index = RemoteIndex::open(&dir, limits, 0).unwrap();
    let counters = index.counters();
    // The first may have as many rows as all together; then rows are 20 too many, and entries of lists six.
    assert_eq!((counters.evicted_peer, counters.evicted_full), (20, 22));
    let rows = [1, 2, 3].map(|publisher| index.rows_of_peer(&peer(publisher)));
    assert_eq!(rows, [10, 10, 8]);
    assert_eq!(records_of(&index, 1), (40..50).map(cid).collect::<Vec<_>>());
    assert_eq!(
        index.apply(&[]),
        Applied::default(),
        "what went at the start is not told"
    );
}

#[test]
fn labels_are_bounded_in_number_and_length_and_the_row_stays() {
    let index = in_memory(Limits {
        max_labels_per_row: 3,
        max_label_bytes: 12,
        max_text_bytes_per_peer: 20,
        ..Limits::default()
    });
    let odd = Label::new(Namespace::Skills, "quite-too-long");
    let mut first = row(
        1,
        1,
        &["/skills/a", "/skills/b", "/skills/a", "/skills/c"],
        Standing::Claimed,
    );
    first.labels.push(odd);
    index.apply(&[Change::Put(first)]);
    // The third would be more text than one peer may have.
    assert_eq!(
        index.labels(&cid(1), &peer(1)).unwrap(),
        labels(&["/skills/a", "/skills/b"])
    );
    let short = Change::Add {
        cid: cid(1),
        peer: peer(1),
        labels: labels(&["/skills/d", "/skills/", "/domains/"]),
    };
    index.apply(&[short]);
    assert_eq!(index.labels(&cid(1), &peer(1)).unwrap().len(), 2);
    index.apply(&[put(2, 2, &["/skills/a", "/skills/"]), put(3, 2, &["/skills/b"])]);
    let counters = index.counters();
    assert_eq!((counters.labels_unfit, counters.labels_above), (1, 0));
    assert_eq!(counters.labels_no_room, 4);
    let index = in_memory(Limits {
        max_labels_per_row: 2,
        ..Limits::default()
    });
    index.apply(&[put(1, 1, &["/skills/a", "/skills/b", "/skills/c", "/skills/a"])]);
    let counters = index.counters();
    assert_eq!((counters.labels_above, counters.labels_no_room), (1, 0));
    assert_eq!(index.size().distinct_labels, 2);
}

/// The routing room believes in rows that weigh so much: one, and one for every sixteen labels. What it believes in has to
/// fit, or rows are lost that it takes for there.
#[test]
fn what_one_peer_may_have_by_default_has_room_for_labels() {
    let limits = Limits::default();
    assert!(limits.max_labels_per_peer >= 16 * limits.max_rows_per_peer);
    assert!(limits.max_text_bytes_per_peer * 8 <= limits.max_text_bytes);
    assert!(limits.max_postings_per_peer * 8 <= limits.max_postings);
    assert!(limits.max_rows_per_peer * 8 <= limits.max_rows);
    // The longest row fits into the text of one peer.
    assert!(limits.max_labels_per_row * limits.max_label_bytes <= limits.max_text_bytes_per_peer);
}

#[test]
fn withdrawals_are_bounded_and_the_first_to_end_goes() {
    let index = in_memory(Limits {
        max_tombs: 2,
        ..Limits::default()
    });
    for (record, until) in [(1, 30), (2, 10), (3, 20)] {
        index.apply(&[Change::Bury(Tomb {
            cid: cid(record),
            peer: peer(1),
            timestamp_ns: 1,
            first_hand: true,
            until_ns: until * SECOND,
        })]);
    }
    let kept: Vec<RecordCid> = all_tombs(&index).iter().map(|tomb| tomb.cid).collect();
    assert_eq!((kept, index.counters().evicted_tombs), (vec![cid(1), cid(3)], 1));
}

#[test]
fn all_rows_of_a_peer_go_at_once() {
    let index = in_memory(Limits::default());
    for record in 0..500 {
        index.apply(&[put(record, 1, &["/skills/a"]), put(record, 2, &["/skills/b"])]);
    }
    assert_eq!(index.apply(&[Change::RemovePeer { peer: peer(1) }]).changed, 1);
    assert_eq!(
        (index.rows_of_peer(&peer(1)), index.rows_of_peer(&peer(2))),
        (0, 500)
    );
    assert!(found(&index, &RemoteSearch::new(vec![skill("a")])).is_empty());
    assert_eq!(index.rows_of(&cid(7), 10).len(), 1);
}

#[test]
fn rows_and_withdrawals_come_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("remote");
    let index = open(&dir);
    for record in 0..200 {
        index.apply(&[
            put(record, 1, &["/skills/a/b", "/domains/é"]),
            put(record, 2, &[]),
        ]);
    }
    index.apply(&[
        Change::Remove {
            cid: cid(3),
            peer: peer(1),
        },
        Change::Bury(Tomb {
            cid: cid(4),
            peer: peer(1),
            timestamp_ns: 5,
            first_hand: true,
            until_ns: 90 * SECOND,
        }),
        Change::Add {
            cid: cid(5),
            peer: peer(2),
            labels: labels(&["/modules/m"]),
        },
    ]);
    let (rows, tombs) = (all_rows(&index), all_tombs(&index));
    index.flush().unwrap();
    index.close().unwrap();
    index.close().unwrap();
    assert!(matches!(index.flush(), Err(error) if error.kind() == StoreErrorKind::Closed));
    let again = open(&dir);
    assert_eq!((all_rows(&again), all_tombs(&again)), (rows, tombs));
    let counters = again.counters();
    assert_eq!((counters.restored_rows, counters.restored_tombs), (398, 1));
    assert_eq!((counters.put, counters.damaged_bytes), (0, 0));
    again.close().unwrap();
    // What has ended meanwhile does not come back.
    let late = RemoteIndex::open(&dir, Limits::default(), 200_000 * SECOND).unwrap();
    assert_eq!(late.size(), Size::default());
}

#[test]
fn only_the_owner_reads_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("remote");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let index = open(&dir);
    index.apply(&[put(1, 1, &["/skills/a"])]);
    index.close().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn a_damaged_log_gives_back_what_is_before_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("remote");
    let index = open(&dir);
    for record in 0..20 {
        index.apply(&[put(record, 1, &["/skills/a"])]);
    }
    index.close().unwrap();
    let path = dir.join("log.0");
    let whole = std::fs::read(&path).unwrap();
    let step = (whole.len() - log::HEADER_BYTES) / 20;
    for cut in (0..whole.len()).step_by(37) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let index = open(&dir);
        let expected = cut.saturating_sub(log::HEADER_BYTES) / step;
        assert_eq!(index.size().all_rows(), expected, "cut at {cut}");
        // What is written behind the cut is read back.
        index.apply(&[put(100, 1, &["/skills/z"])]);
        index.close().unwrap();
        let index = open(&dir);
        assert_eq!(index.size().all_rows(), expected + 1, "cut at {cut}");
        index.close().unwrap();
        for file in std::fs::read_dir(&dir).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn a_file_of_another_kind_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("remote");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("snapshot"), b"something else altogether").unwrap();
    let index = open(&dir);
    assert_eq!(
        (index.size(), index.counters().damaged_bytes),
        (Size::default(), 25)
    );
    assert!(dir.join("snapshot.unreadable").exists());
    index.apply(&[put(1, 1, &["/skills/a"])]);
    index.close().unwrap();
    assert_eq!(open(&dir).size().all_rows(), 1);
}

#[test]
fn a_long_log_becomes_a_snapshot_while_changes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("remote");
    let index = open(&dir);
    let long = format!("/skills/{}", "x".repeat(900));
    // More than the bound of a log, several times over.
    for round in 0..40u8 {
        for record in 0..1_000 {
            index.apply(&[put(record, round % 3, &["/skills/a", &long])]);
        }
        index.apply(&[
            Change::RemovePeer {
                peer: peer(round % 3),
            },
            put(round.into(), 9, &[&long]),
        ]);
        index.flush().unwrap();
    }
    let rows = all_rows(&index);
    index.close().unwrap();
    assert!(index.counters().snapshots > 0);
    let logs = std::fs::read_dir(&dir).unwrap().count();
    assert!(logs <= 3, "{logs} files");
    let again = open(&dir);
    assert_eq!(all_rows(&again), rows);
    assert_eq!(again.counters().damaged_bytes, 0);
}

#[test]
fn a_disk_that_fails_costs_no_change_and_a_snapshot_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("remote");
    let index = open(&dir);
    // A folder in the place of the snapshot that is to be written: it cannot be made.
    std::fs::create_dir(dir.join("snapshot.new")).unwrap();
    let long = format!("/skills/{}", "x".repeat(1_000));
    for record in 0..10_000 {
        index.apply(&[put(record, 1, &[&long])]);
    }
    index.flush().unwrap();
    assert!(index.counters().disk_errors > 0);
    assert_eq!(index.size().all_rows(), 10_000);
    std::fs::remove_dir(dir.join("snapshot.new")).unwrap();
    for record in 10_000..16_000 {
        index.apply(&[put(record, 1, &[&long])]);
    }
    index.close().unwrap();
    assert!(index.counters().snapshots > 0);
    assert_eq!(open(&dir).size().all_rows(), 16_000);
}

#[test]
fn readers_and_a_writer_share_the_index() {
    let index = in_memory(Limits::default());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < 500 {
                        let now = found(&index, &RemoteSearch::new(vec![skill("a")])).len();
                        assert!(now >= seen, "{now} after {seen}");
                        seen = now;
                    }
                })
            })
            .collect();
        for record in 0..500 {
            index.apply(&[put(record, 1, &["/skills/a/b"])]);
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
