//! Prose of a given length from a small vocabulary: compresses and tokenises about as record texts do.

use crate::Random;

const QUALITIES: [&str; 24] = [
    "amber", "brisk", "calm", "deft", "eager", "fair", "gentle", "hardy", "ideal", "jolly", "keen", "lucid",
    "mellow", "nimble", "open", "prime", "quick", "rapid", "sound", "tidy", "urban", "vivid", "wise",
    "zealous",
];
const THINGS: [&str; 24] = [
    "analyst",
    "broker",
    "clerk",
    "driver",
    "editor",
    "finder",
    "guide",
    "herald",
    "indexer",
    "judge",
    "keeper",
    "librarian",
    "miner",
    "notary",
    "oracle",
    "planner",
    "quoter",
    "router",
    "scout",
    "tutor",
    "umpire",
    "verifier",
    "weaver",
    "writer",
];
const VERBS: [&str; 16] = [
    "answers",
    "books",
    "classifies",
    "compares",
    "drafts",
    "explains",
    "extracts",
    "forecasts",
    "matches",
    "plans",
    "ranks",
    "reconciles",
    "reviews",
    "schedules",
    "summarises",
    "translates",
];
const OBJECTS: [&str; 24] = [
    "audit logs",
    "calendar entries",
    "claims",
    "clinical notes",
    "contracts",
    "crop surveys",
    "customer letters",
    "flight plans",
    "grid readings",
    "inventories",
    "invoices",
    "maps",
    "menus",
    "meter data",
    "news feeds",
    "orders",
    "parcels",
    "policies",
    "sensor streams",
    "support tickets",
    "tax forms",
    "test reports",
    "training sets",
    "video scenes",
];
const MANNERS: [&str; 12] = [
    "across regions",
    "before noon",
    "for auditors",
    "for small teams",
    "in eleven languages",
    "in near real time",
    "on request",
    "under a deadline",
    "with citations",
    "with confidence scores",
    "without a network",
    "within a budget",
];
const TIERS: [&str; 4] = ["experimental", "internal", "production", "retired"];

/// Two words for a name.
pub fn name(random: &mut Random) -> (&'static str, &'static str) {
    (word(&QUALITIES, random), word(&THINGS, random))
}

/// How far along an agent is.
pub fn tier(random: &mut Random) -> &'static str {
    word(&TIERS, random)
}

/// Sentences of exactly `bytes` bytes, all ASCII. A number in each keeps records of one length apart.
pub fn prose(random: &mut Random, bytes: usize) -> String {
    let mut prose = String::with_capacity(bytes + 80);
    while prose.len() < bytes {
        let sentence = [
            "It ",
            word(&VERBS, random),
            " ",
            word(&OBJECTS, random),
            " ",
            word(&MANNERS, random),
            ", batch ",
        ];
        prose.extend(sentence);
        prose.push_str(&random.below(1_000_000).to_string());
        prose.push_str(". ");
    }
    prose.truncate(bytes);
    prose
}

fn word(list: &[&'static str], random: &mut Random) -> &'static str {
    random.pick(list).copied().unwrap_or_default()
}
