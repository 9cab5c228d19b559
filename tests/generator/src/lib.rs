//! Records as directories hold them, made from a seed: valid OASF 1.0.0, canonical size log-uniform from 1 to 20 kB,
//! classes of the built-in taxonomy with Zipf-like popularity, a unique name each.
//!
//! Record number `n` of a seed is the same whoever asks and whatever was asked before, so that a checker can make
//! again what it is to find. Never reads a clock, a file or an ambient random source; holds only tables.

mod random;
mod words;

use std::collections::BTreeMap;

use dirnode_proto::core::v1::Record;
use dirnode_proto::{Struct, Value};
use dirnode_record::{RecordCid, Validator, to_canonical};
use prost::Message as _;

pub use random::{Random, Zipf};

/// Schema version of every record made here.
pub const SCHEMA_VERSION: &str = "1.0.0";
/// Canonical size of the smallest records, about, in bytes.
pub const MIN_BYTES: f64 = 1000.0;
/// Canonical size of the largest records, about, in bytes.
pub const MAX_BYTES: f64 = 20_000.0;

/// Longest description the schema allows is 10,000 bytes; the agent card carries the rest.
const MAX_DESCRIPTION_BYTES: usize = 1200;
/// Bytes of one entry of an agent card besides its text.
const CARD_SKILL_BYTES: usize = 60;

const LOCATORS: [&str; 5] = ["container_image", "helm_chart", "package", "source_code", "url"];
const AUTHORS: [&str; 8] = [
    "Aurora Labs",
    "Blue Harbour",
    "Cobalt Works",
    "Delta Nine",
    "Example Organization",
    "Fjord Systems",
    "Granite",
    "Helios Collective",
];

/// Makes records.
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    skills: Classes,
    domains: Classes,
}

/// Classes of one family, most popular first.
#[derive(Debug)]
struct Classes {
    list: Vec<(i64, String)>,
    popularity: Zipf,
}

/// A record, ready to be sent.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its CID.
    pub cid: RecordCid,
    /// Its canonical bytes.
    pub canonical: Vec<u8>,
    /// The encoded `agntcy.dir.core.v1.Record`.
    pub message: Vec<u8>,
}

impl Classes {
    /// Popularity must not follow the order of the taxonomy, and must be the same for every seed.
    fn new(family: &str) -> Self {
        let mut list: Vec<(i64, String)> = Validator::builtin()
            .taxonomy(SCHEMA_VERSION)
            .filter(|class| class.family == family && !class.category && class.id > 0)
            .map(|class| (class.id, class.name.to_owned()))
            .collect();
        list.sort_by_cached_key(|(id, _)| Random::of(0, id.unsigned_abs()).next());
        let popularity = Zipf::new(list.len());
        Self { list, popularity }
    }

    /// `count` different classes, or all there are.
    fn draw(&self, count: usize, random: &mut Random) -> Value {
        let mut drawn: BTreeMap<usize, Value> = BTreeMap::new();
        while drawn.len() < count.min(self.list.len()) {
            let rank = self.popularity.draw(random);
            if let Some((id, name)) = self.list.get(rank) {
                #[expect(clippy::cast_precision_loss, reason = "class ids are small")]
                let class = [("id", Value::Number(*id as f64)), ("name", text(name.as_str()))];
                drawn.insert(rank, object(class));
            }
        }
        Value::List(drawn.into_values().collect())
    }
}

impl Generator {
    /// Records of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            skills: Classes::new("skill"),
            domains: Classes::new("domain"),
        }
    }

    /// The name of record `number`; no other record of any seed bears it, unless seed and number are the same.
    #[must_use]
    pub fn name(&self, number: u64) -> String {
        let mut random = Random::of(self.seed, number);
        let (quality, thing) = words::name(&mut random);
        format!("example.org/agents/{quality}-{thing}-{:x}-{number}", self.seed)
    }

    /// Record `number`.
    #[must_use]
    pub fn record(&self, number: u64) -> Struct {
        let mut random = Random::of(self.seed, number);
        let name = self.name(number);
        random.next();
        let wanted = whole(random.log_uniform(MIN_BYTES, MAX_BYTES));
        let skills = 1 + random.place(4);
        let domains = 1 + random.place(2);
        let author = random.pick(&AUTHORS).copied().unwrap_or_default();
        let locator = random.pick(&LOCATORS).copied().unwrap_or_default();
        let mut fields = BTreeMap::from([
            ("name".to_owned(), text(name.as_str())),
            ("schema_version".to_owned(), text(SCHEMA_VERSION)),
            (
                "version".to_owned(),
                text(format!(
                    "v{}.{}.{}",
                    random.below(4),
                    random.below(20),
                    random.below(50)
                )),
            ),
            ("authors".to_owned(), Value::List(vec![text(author)])),
            ("created_at".to_owned(), text(date(&mut random))),
            ("skills".to_owned(), self.skills.draw(skills, &mut random)),
            ("domains".to_owned(), self.domains.draw(domains, &mut random)),
            (
                "locators".to_owned(),
                Value::List(vec![object([
                    ("type", text(locator)),
                    (
                        "urls",
                        Value::List(vec![text(format!("https://registry.example.org/{name}"))]),
                    ),
                ])]),
            ),
            (
                "annotations".to_owned(),
                object([("team", text(author)), ("tier", text(words::tier(&mut random)))]),
            ),
        ]);
        // About 900 bytes stand now, the frame of the module included.
        let left = wanted.saturating_sub(900);
        let described = left.clamp(80, MAX_DESCRIPTION_BYTES);
        fields.insert(
            "description".to_owned(),
            text(words::prose(&mut random, described)),
        );
        fields.insert(
            "modules".to_owned(),
            Value::List(vec![card(&name, left.saturating_sub(described), &mut random)]),
        );
        Struct { fields }
    }

    /// Record `number` with its CID and encoded message.
    ///
    /// # Panics
    /// Never: records made here hold nothing that JSON cannot say, and a test pushes thousands through.
    #[must_use]
    pub fn make(&self, number: u64) -> Made {
        let data = self.record(number);
        let canonical = match to_canonical(&data) {
            Ok(bytes) => bytes,
            Err(error) => unreachable!(
                "record {number} of seed {} has no canonical form: {error}",
                self.seed
            ),
        };
        let cid = RecordCid::of(&canonical);
        Made {
            cid,
            canonical,
            message: Record::from(data).encode_to_vec(),
        }
    }
}

/// An agent card as a module, about `bytes` of it prose.
fn card(name: &str, bytes: usize, random: &mut Random) -> Value {
    let mut skills = Vec::new();
    let mut left = bytes;
    while left > CARD_SKILL_BYTES {
        let length = (80 + random.place(400)).min(left - CARD_SKILL_BYTES);
        left = left.saturating_sub(length + CARD_SKILL_BYTES);
        let (quality, thing) = words::name(random);
        skills.push(object([
            ("id", text(format!("{quality}_{thing}"))),
            ("description", text(words::prose(random, length))),
        ]));
    }
    let modes = || Value::List(vec![text("text"), text("text/plain")]);
    let card_data = object([
        ("name", text(name)),
        ("protocolVersions", Value::List(vec![text("0.2.6")])),
        (
            "capabilities",
            object([("streaming", Value::Bool(random.below(2) == 0))]),
        ),
        ("defaultInputModes", modes()),
        ("defaultOutputModes", modes()),
        ("skills", Value::List(skills)),
    ]);
    object([
        ("name", text("integration/a2a")),
        (
            "data",
            object([("card_data", card_data), ("card_schema_version", text("v1.0.0"))]),
        ),
    ])
}

fn date(random: &mut Random) -> String {
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        2024 + random.below(3),
        1 + random.below(12),
        1 + random.below(28),
        random.below(24),
        random.below(60),
        random.below(60)
    )
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes lie between MIN_BYTES and MAX_BYTES"
)]
fn whole(size: f64) -> usize {
    size as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_record_passes_the_built_in_schema() {
        let generator = Generator::new(42);
        for number in 0..500 {
            let record = generator.record(number);
            let report = Validator::builtin().validate(&record, SCHEMA_VERSION).unwrap();
            assert!(report.is_valid(), "record {number}: {:?}", report.entries());
        }
    }

    #[test]
    fn sizes_are_spread_evenly_on_the_logarithm() {
        let generator = Generator::new(1);
        let sizes: Vec<usize> = (0..2000)
            .map(|number| generator.make(number).canonical.len())
            .collect();
        assert!(
            sizes.iter().all(|size| (900..=20_500).contains(size)),
            "{:?} {:?}",
            sizes.iter().min(),
            sizes.iter().max()
        );
        let below = |limit: usize| sizes.iter().filter(|size| **size < limit).count();
        // The middle of the logarithm of 1000 and 20,000 is 4472.
        assert!((850..=1150).contains(&below(4472)), "{}", below(4472));
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((5700..=7000).contains(&mean), "{mean}");
    }

    #[test]
    fn popular_skills_are_popular() {
        let generator = Generator::new(5);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for number in 0..1000 {
            let record = generator.record(number);
            let Some(Value::List(skills)) = record.fields.get("skills") else {
                unreachable!("skills are a list")
            };
            for skill in skills {
                let Value::Object(skill) = skill else {
                    unreachable!("a skill is an object")
                };
                *counts
                    .entry(skill["name"].as_str().unwrap().to_owned())
                    .or_default() += 1;
            }
        }
        assert!(counts.len() > 80, "{}", counts.len());
        assert!(counts.values().max().unwrap() > &200);
    }

    proptest! {
        #[test]
        fn a_record_is_known_by_seed_and_number(seed: u64, number: u64) {
            let (one, two) = (Generator::new(seed), Generator::new(seed));
            let made = one.make(number);
            // Another record in between changes nothing.
            drop(two.record(number.wrapping_add(1)));
            prop_assert_eq!(&made.canonical, &two.make(number).canonical);
            prop_assert_ne!(made.cid, two.make(number.wrapping_add(1)).cid);
            prop_assert_ne!(made.cid, Generator::new(seed.wrapping_add(1)).make(number).cid);
            let back = Record::decode(made.message.as_slice()).unwrap();
            prop_assert_eq!(to_canonical(&back.data.unwrap()).unwrap(), made.canonical);
        }
    }
}
