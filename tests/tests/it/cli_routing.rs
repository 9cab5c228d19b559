//! The commands about what is announced, from outside: publish, unpublish, find, provide-status, and the group `routing`.

use std::time::Duration;

use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::program::{Answer, run};
use dirnode_tests::wait::eventually;
use serde_json::{Value as Json, json};

use crate::common::{at, json_of, ok, record};

/// As long as something that needs several nodes may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri";

fn push(node: &TestNode, name: &str) -> String {
    ok(at(&node.address, &["push", &record(name), "-o", "raw"], b""))
}

fn refused(answer: &Answer, part: &str) {
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.err.contains(part), "{part:?} is not in {answer:?}");
}

/// Waits until `find` on a node finds so many.
async fn finds(node: &TestNode, args: &[&str], count: usize) -> Json {
    let args = [&["find", "-o", "json"], args].concat();
    eventually(DEADLINE, || async {
        let found = json_of(&ok(at(&node.address, &args, b"")));
        let there = found.as_array().unwrap().len() == count;
        there.then_some(found.clone()).ok_or_else(|| format!("{found}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_by_command_is_found_by_command_until_it_is_taken_back() {
    let one = Setup::default()
        .set("routing.directory_api_address", "dir.example.org:8888")
        .set("routing.republish_interval", "60s")
        .start()
        .await;
    let two = Setup::default().joining(&one).await.start().await;
    let cid = push(&one, "translator.json");
    let args = ["publish", &cid, "--wait", "-o", "json"];
    let done = json_of(&ok(at(&one.address, &args, b"")));
    assert_eq!(
        (&done["status"], &done["cid"]),
        (&json!("completed"), &json!(cid))
    );
    assert_eq!(
        (&done["count"], &done["told"], &done["cids"]),
        (&json!(1), &json!(1), &json!([cid]))
    );
    assert_eq!(done["message"], "completed, 1 record announced");

    let told = json_of(&ok(at(&one.address, &["provide-status", "-o", "json"], b"")));
    assert_eq!(
        told.as_array().unwrap().len(),
        1,
        "no name means every published record"
    );
    let told = &told[0];
    assert_eq!((&told["cid"], &told["state"]), (&json!(cid), &json!("announced")));
    assert_eq!(
        (&told["published"], &told["in_outbox"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&told["failed_provides"], &told["last_error"]),
        (&json!(0), &Json::Null)
    );
    for time in ["last_provided", "last_announced", "next_provide"] {
        assert!(told[time].as_str().unwrap().ends_with('Z'), "{time}: {told}");
    }
    let table = ok(at(&one.address, &["provide-status", &cid], b""));
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head[..5], ["CID", "STATE", "PROVIDED", "ANNOUNCED", "NEXT"]);
    let raw = ok(at(
        &one.address,
        &["provide-status", &cid, UNKNOWN, "-o", "raw"],
        b"",
    ));
    assert_eq!(raw, format!("{cid} announced\n{UNKNOWN} not stored\n"));

    let skill = [
        "--skill",
        "language_processing",
        "--domain",
        "transportation",
        "--min-score",
        "2",
    ];
    let found = finds(&two, &skill, 1).await;
    let hit = &found[0];
    assert_eq!(
        (&hit["record_ref"]["cid"], &hit["match_score"]),
        (&json!(cid), &json!(2))
    );
    assert_eq!(
        hit["match_queries"][0],
        json!({"type": 1, "value": "language_processing"})
    );
    assert_eq!(hit["peer"]["id"], one.network().id().to_string());
    assert_eq!(hit["peer"]["addrs"], json!(["/dir/dir.example.org:8888"]));
    let dial = hit["peer"]["annotations"]["dirnode.addresses"].as_str().unwrap();
    assert!(dial.contains("/ip4/127.0.0.1/tcp/"), "{hit}");
    let table = ok(at(&two.address, &["find", "--any", "--verbose"], b""));
    for part in [
        "CID",
        "SCORE",
        &cid,
        "/dir/dir.example.org:8888",
        "/ip4/127.0.0.1/tcp/",
        "any",
    ] {
        assert!(table.contains(part), "{part} is not in {table}");
    }
    assert_eq!(
        ok(at(&two.address, &["find", "--any", "-o", "raw"], b"")),
        format!("{cid}\n")
    );
    let words = |args: &[&str]| {
        at(
            &two.address,
            &[&["routing", "search", "logistics of spare parts"], args].concat(),
            b"",
        )
    };
    let found = json_of(&ok(words(&["-o", "json", "--schema-version", "1.1.0"])));
    assert_eq!(found[0]["record_ref"]["cid"], json!(cid), "{found}");
    let met = &found[0]["match_queries"];
    assert_eq!(
        *met,
        json!([{"type": 3, "value": "transportation/logistics"}]),
        "{found}"
    );
    let told = words(&["-o", "raw", "--verbose", "--min-score", "1"]);
    assert_eq!((told.code, told.out.as_str()), (0, format!("{cid}\n").as_str()));
    assert!(told.err.contains("domain transportation/logistics"), "{told:?}");
    refused(&words(&["--schema-version", "9.9.9"]), "9.9.9");
    refused(
        &at(&two.address, &["find", "gobbledygook"], b""),
        "names no skill or domain",
    );
    let ignored = at(
        &two.address,
        &[
            "routing",
            "search",
            "--any",
            "--schema-version",
            "1.0.0",
            "-o",
            "raw",
        ],
        b"",
    );
    assert_eq!(
        (ignored.code, ignored.out.as_str()),
        (0, format!("{cid}\n").as_str())
    );
    assert!(
        ignored.err.contains("--schema-version is not used"),
        "{ignored:?}"
    );
    let line = ok(at(
        &two.address,
        &["routing", "search", "--any", "-o", "jsonl"],
        b"",
    ));
    assert_eq!(json_of(&line)["record_ref"]["cid"], json!(cid));
    assert_eq!(
        ok(at(&one.address, &["find", "--any"], b"")),
        "No records found\n",
        "not its own"
    );
    assert_eq!(
        ok(at(
            &two.address,
            &["find", "--skill", "no_such", "-o", "json"],
            b""
        )),
        "[]\n"
    );

    let name = "agents.example.org/translator";
    assert_eq!(
        ok(at(&one.address, &["unpublish", name], b"")),
        format!("Unpublished record with CID: {cid}\n")
    );
    finds(&two, &["--any"], 0).await;
    eventually(DEADLINE, || async {
        let state = ok(at(&one.address, &["provide-status", &cid, "-o", "raw"], b""));
        (state == format!("{cid} taken back\n"))
            .then_some(())
            .ok_or(state)
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_to_tell_the_commands_say_no_peers_yet() {
    let node = Setup::default().start().await;
    let cid = push(&node, "translator.json");
    let text = ok(at(&node.address, &["publish", &cid], b""));
    assert!(
        text.starts_with("Publication ") && text.contains("in progress, 0 of 1 record"),
        "{text}"
    );
    let listed = ok(at(&node.address, &["routing", "list", "-o", "raw"], b""));
    assert_eq!(listed, format!("{cid}\n"), "it is listed at once");

    let waited = at(
        &node.address,
        &["publish", &cid, "--wait", "--wait-limit", "1", "-o", "json"],
        b"",
    );
    refused(&waited, "has not ended after 1 s");
    assert!(waited.err.contains("no peers yet"), "{}", waited.err);
    let answer = json_of(&waited.out);
    assert_eq!(
        (&answer["status"], &answer["told"]),
        (&json!("in_progress"), &json!(0))
    );
    assert!(
        answer["message"].as_str().unwrap().ends_with("no peers yet"),
        "{answer}"
    );

    let status = json_of(&ok(at(
        &node.address,
        &["provide-status", &cid, "-o", "json"],
        b"",
    )));
    assert_eq!(
        (&status[0]["state"], &status[0]["waiting_for_peers"]),
        (&json!("waiting"), &json!(true))
    );
    let table = ok(at(&node.address, &["provide-status"], b""));
    assert!(table.contains("waiting: no peers yet"), "{table}");
    let node_status = ok(at(&node.address, &["status"], b""));
    assert!(
        node_status.contains("1 not announced yet: no peers yet"),
        "{node_status}"
    );
    let node_status = json_of(&ok(at(&node.address, &["status", "-o", "json"], b"")));
    assert_eq!(node_status["announcing"]["waiting_for_peers"], true);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_takes_names_standard_input_and_everything_and_refuses_what_is_not_here() {
    let node = Setup::default().set("routing.enabled", "false").start().await;
    let cids = ["translator.json", "phrase-book.json", "parts-finder.json"].map(|name| push(&node, name));
    let published = || {
        let listed = ok(at(&node.address, &["list", "-o", "raw"], b""));
        listed.lines().count()
    };

    refused(&at(&node.address, &["publish", UNKNOWN], b""), "record not found");
    refused(
        &at(&node.address, &["publish", &cids[0], UNKNOWN], b""),
        "record not found",
    );
    refused(
        &at(&node.address, &["unpublish", UNKNOWN], b""),
        "record not found",
    );
    refused(
        &at(&node.address, &["publish", "no.such/agent"], b""),
        "no record found with name",
    );
    refused(
        &at(&node.address, &["publish", "--stdin"], b"\n"),
        "no record is named",
    );
    refused(&at(&node.address, &["publish", "--all"], b""), "--yes");
    refused(&at(&node.address, &["publish"], b""), "REF");
    assert_eq!(published(), 0, "nothing of a refused command is done");

    // Without a network there is nobody to tell, and publishing is all there is to it.
    let name = "agents.example.org/translator";
    let done = json_of(&ok(at(
        &node.address,
        &["publish", name, name, "-o", "jsonl"],
        b"",
    )));
    assert_eq!(
        (&done["cid"], &done["count"], &done["status"]),
        (&json!(cids[0]), &json!(1), &json!("completed"))
    );
    let id = ok(at(
        &node.address,
        &["publish", "--stdin", "-o", "raw"],
        format!("\"{}\"\n", cids[1]).as_bytes(),
    ));
    assert_eq!((id.len(), published()), (36, 2));
    let done = json_of(&ok(at(
        &node.address,
        &["routing", "publish", "--all", "--yes", "-o", "json"],
        b"",
    )));
    assert_eq!(
        (&done["count"], &done["cids"], published()),
        (&json!(3), &json!([]), 3)
    );

    let info = json_of(&ok(at(&node.address, &["routing", "info", "-o", "json"], b"")));
    assert_eq!(info["totalRecords"], 3);
    assert_eq!(info["locators"]["container_image"], 1);
    assert_eq!(info["otherLabels"]["/domains/transportation/logistics"], 3);
    assert!(ok(at(&node.address, &["routing", "info"], b"")).starts_with("Published records: 3\nSkills:\n"));

    let both = ok(at(
        &node.address,
        &[
            "search",
            "-o",
            "json",
            "--name",
            "*translator",
            "--name",
            "*phrase-book",
        ],
        b"",
    ));
    assert!(both.contains(&cids[0]) && both.contains(&cids[1]), "{both}");
    let done = json_of(&ok(at(
        &node.address,
        &["unpublish", "--stdin", "-o", "json"],
        both.as_bytes(),
    )));
    assert_eq!(
        (&done["count"], &done["status"], published()),
        (&json!(2), &json!("unpublished"), 1)
    );
    let states = ok(at(
        &node.address,
        &["provide-status", &cids[0], &cids[2], "-o", "raw"],
        b"",
    ));
    assert_eq!(
        states,
        format!("{} not published\n{} published\n", cids[0], cids[2])
    );

    let hint = ok(at(&node.address, &["find"], b""));
    assert!(hint.contains("--skill"), "{hint}");
    let hint = at(&node.address, &["find", "-o", "json"], b"");
    assert_eq!((hint.code, hint.out.as_str()), (0, "[]\n"));
    assert!(hint.err.contains("--skill"), "{hint:?}");
    node.stop().await;
}

#[test]
fn help_and_completions_know_the_commands_and_the_taxonomy() {
    for command in [
        &["publish"][..],
        &["unpublish"],
        &["find"],
        &["provide-status"],
        &["routing", "info"],
    ] {
        let answer = run(&[command, &["--help"]].concat(), b"", &[]);
        assert_eq!(answer.code, 0, "{command:?}");
        assert!(answer.out.contains("Example"), "{command:?}");
    }
    // Asked as a shell asks, for the word in place 3.
    let asked = [
        ("COMPLETE", "bash"),
        ("_CLAP_COMPLETE_INDEX", "3"),
        ("_CLAP_IFS", "\n"),
        ("_CLAP_COMPLETE_COMP_TYPE", "9"),
    ];
    for (flag, typed) in [
        ("--skill", "natural_language_proc"),
        ("--domain", "fin"),
        ("--module", "int"),
    ] {
        let answer = run(&["--", "dirnode", "find", flag, typed], b"", &asked);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.out.lines().count() > 0, "{flag}: {answer:?}");
        assert!(
            answer.out.lines().all(|name| name.starts_with(typed)),
            "{answer:?}"
        );
    }
}
