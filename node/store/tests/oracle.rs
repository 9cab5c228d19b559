//! The index against a plain, slow, obviously right matcher: random records, random queries, deletions and insertions in
//! between.
//!
//! `DIRNODE_ORACLE_SEED` and `DIRNODE_ORACLE_QUERIES` choose the run; both are printed, and the seed is enough to repeat it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashMap};

use dirnode_generator::{Generator, Random};
use dirnode_store::index::pattern::{Comparison, fold_stored};
use dirnode_store::index::{Prepared, RecordIndex, Source, Tuning, count, search};
use dirnode_store::{
    Budget, Pattern, Plan, Query, QueryKind, RecordCid, Scan, Severity, Sort, StoreConfig, StoreError,
    Summary,
};

/// Everything about one record, kept as it came.
#[derive(Clone)]
struct Known {
    cid: RecordCid,
    inserted_at: i64,
    summary: Summary,
    verified: bool,
    trusted: bool,
    scans: BTreeMap<String, (Option<Severity>, bool)>,
    usage: u64,
    providers: u64,
}

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).matches(&fold_stored(text))
}

/// One group of values of a kind that takes operators.
fn by_operators(values: &[&str], text: &str) -> bool {
    let compared: Vec<_> = values.iter().filter_map(|value| Comparison::new(value)).collect();
    let all = !compared.is_empty() && compared.iter().all(|comparison| comparison.matches(text));
    let plain = values.iter().filter(|value| Comparison::new(value).is_none());
    all || plain.into_iter().any(|value| matches(value, text))
}

/// A row with one of the left and one of the right values; no values take all.
fn by_rows(rows: &[(String, String)], left: &[String], right: &[String]) -> bool {
    rows.iter().any(|(one, other)| {
        (left.is_empty() || left.iter().any(|pattern| matches(pattern, one)))
            && (right.is_empty() || right.iter().any(|pattern| matches(pattern, other)))
    })
}

fn classes(rows: &[(String, u64)]) -> Vec<(String, String)> {
    rows.iter()
        .map(|(name, id)| (name.clone(), id.to_string()))
        .collect()
}

fn locator(values: &[&str]) -> (Vec<String>, Vec<String>) {
    let (mut kinds, mut urls) = (Vec::new(), Vec::new());
    for value in values.iter().filter(|value| !value.trim().is_empty()) {
        let after = value.split_once(':').map(|(_, after)| after);
        let star = value.starts_with('*');
        if star && after.is_none_or(|after| after.starts_with("//")) {
            urls.push((*value).to_owned());
            continue;
        }
        let (kind, url) = value.split_once(':').unwrap_or((value, ""));
        kinds.extend((!kind.trim().is_empty()).then(|| kind.to_owned()));
        urls.extend((!url.trim().is_empty()).then(|| url.to_owned()));
    }
    (kinds, urls)
}

fn annotation(values: &[&str]) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut held) = (Vec::new(), Vec::new());
    for value in values {
        match value.split_once(':') {
            // Matches no key at all: a trailing backslash in a pattern does that.
            None if value.is_empty() => keys.push("*\\".to_owned()),
            None => keys.push((*value).to_owned()),
            Some(("", _)) => {}
            Some((key, value)) => {
                keys.push(key.to_owned());
                held.extend((!value.is_empty()).then(|| value.to_owned()));
            }
        }
    }
    (keys, held)
}

impl Known {
    /// Whether the record meets the queries of one polarity and group; `None` if they ask nothing.
    fn meets(&self, group: Group, queries: &[&Query]) -> Option<bool> {
        let of = |kind: QueryKind| -> Vec<&str> {
            queries
                .iter()
                .filter(|query| query.kind == kind)
                .map(|query| query.value.as_str())
                .collect()
        };
        let solid = |kind| -> Vec<&str> {
            of(kind)
                .into_iter()
                .filter(|value| !value.trim().is_empty())
                .collect()
        };
        let own = |values: Vec<&str>| -> Vec<String> { values.into_iter().map(str::to_owned).collect() };
        let number = |values: Vec<&str>| -> Vec<String> {
            values
                .iter()
                .map(|value| value.parse::<u64>().unwrap().to_string())
                .collect()
        };
        let any = |values: Vec<&str>, text: &str| {
            (!values.is_empty()).then(|| values.iter().any(|value| matches(value, text)))
        };
        let operators =
            |values: Vec<&str>, text: &str| (!values.is_empty()).then(|| by_operators(&values, text));
        let rows = |rows: Vec<(String, String)>, left: Vec<String>, right: Vec<String>| {
            (!left.is_empty() || !right.is_empty()).then(|| by_rows(&rows, &left, &right))
        };
        let held = &self.summary;
        match group {
            Group::Name => any(of(QueryKind::Name), &held.name),
            Group::Description => any(solid(QueryKind::Description), &held.description),
            Group::Version => operators(of(QueryKind::Version), &held.version),
            Group::Schema => operators(of(QueryKind::SchemaVersion), &held.schema_version),
            Group::Created => operators(of(QueryKind::CreatedAt), &held.created_at),
            Group::Author => {
                let values = of(QueryKind::Author);
                let one = |author: &str| values.iter().any(|value| matches(&format!("*{value}*"), author));
                (!values.is_empty()).then(|| match &held.authors {
                    None => false,
                    Some(authors) if authors.is_empty() => one(""),
                    Some(authors) => authors.iter().any(|author| one(author)),
                })
            }
            Group::Skill => rows(
                classes(&held.skills),
                own(of(QueryKind::SkillName)),
                number(of(QueryKind::SkillId)),
            ),
            Group::Domain => rows(
                classes(&held.domains),
                own(of(QueryKind::DomainName)),
                number(of(QueryKind::DomainId)),
            ),
            Group::Module => rows(
                held.modules
                    .iter()
                    .map(|module| (module.name.clone(), module.id.to_string()))
                    .collect(),
                own(solid(QueryKind::ModuleName)),
                number(of(QueryKind::ModuleId)),
            ),
            Group::Locator => {
                let (left, right) = locator(&of(QueryKind::Locator));
                rows(held.locators.clone(), left, right)
            }
            Group::Annotation => {
                let (left, right) = annotation(&of(QueryKind::Annotation));
                rows(held.annotations.clone().into_iter().collect(), left, right)
            }
            Group::Severity => {
                let levels = of(QueryKind::ScanSeverity);
                let lowest = levels.iter().filter_map(|name| Severity::from_name(name)).min()?;
                Some(self.scans.values().any(|(severity, _)| *severity >= Some(lowest)))
            }
        }
    }

    fn fits(&self, queries: &[Query]) -> bool {
        let include: Vec<&Query> = queries.iter().filter(|query| !query.negate).collect();
        let exclude: Vec<&Query> = queries.iter().filter(|query| query.negate).collect();
        let flag = |kind: QueryKind| {
            let last = queries.iter().rev().find(|query| query.kind == kind)?;
            Some((last.value.to_lowercase() == "true") != last.negate)
        };
        if flag(QueryKind::Verified).is_some_and(|wanted| wanted != self.verified)
            || flag(QueryKind::Trusted).is_some_and(|wanted| wanted != self.trusted)
        {
            return false;
        }
        let harmful = self.scans.values().any(|(_, safe)| !safe);
        match flag(QueryKind::ScanSafe) {
            Some(true) if harmful || self.scans.is_empty() => return false,
            Some(false) if !harmful => return false,
            _ => {}
        }
        for group in Group::ALL {
            if self.meets(group, &include) == Some(false) {
                return false;
            }
            // An id and a name exclude each for itself.
            let class = [QueryKind::SkillId, QueryKind::DomainId, QueryKind::ModuleId];
            let (ids, rest): (Vec<&Query>, Vec<&Query>) =
                exclude.iter().partition(|query| class.contains(&query.kind));
            if self.meets(group, &ids) == Some(true) || self.meets(group, &rest) == Some(true) {
                return false;
            }
        }
        true
    }
}

#[derive(Clone, Copy)]
enum Group {
    Name,
    Version,
    Schema,
    Created,
    Description,
    Author,
    Skill,
    Domain,
    Module,
    Locator,
    Annotation,
    Severity,
}

impl Group {
    const ALL: [Self; 12] = [
        Self::Name,
        Self::Version,
        Self::Schema,
        Self::Created,
        Self::Description,
        Self::Author,
        Self::Skill,
        Self::Domain,
        Self::Module,
        Self::Locator,
        Self::Annotation,
        Self::Severity,
    ];
}

const KINDS: [QueryKind; 19] = [
    QueryKind::Name,
    QueryKind::Version,
    QueryKind::SkillId,
    QueryKind::SkillName,
    QueryKind::Locator,
    QueryKind::ModuleName,
    QueryKind::ModuleId,
    QueryKind::DomainId,
    QueryKind::DomainName,
    QueryKind::CreatedAt,
    QueryKind::Author,
    QueryKind::SchemaVersion,
    QueryKind::Annotation,
    QueryKind::Description,
    QueryKind::Verified,
    QueryKind::Trusted,
    QueryKind::ScanSeverity,
    QueryKind::ScanSafe,
    QueryKind::Ignored,
];
const SEVERITIES: [&str; 6] = ["NONE", "INFO", "LOW", "MEDIUM", "HIGH", "CRITICAL"];

/// The index, and beside it what it should know.
struct World {
    random: Random,
    index: RecordIndex,
    known: HashMap<RecordCid, Known>,
    generator: Generator,
    ticks: i64,
    /// Queries that matched something.
    answers: u64,
}

impl Source for World {
    fn with_index<T>(&self, with: impl FnOnce(&RecordIndex) -> T) -> T {
        with(&self.index)
    }

    fn description(&self, cid: &RecordCid) -> Result<Option<String>, StoreError> {
        Ok(self.known.get(cid).map(|known| known.summary.description.clone()))
    }
}

impl World {
    fn below(&mut self, limit: usize) -> usize {
        self.random.place(limit)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let at = self.below(from.len());
        from[at]
    }

    /// A text of few letters, so that texts meet.
    fn text(&mut self, most: usize) -> String {
        const LETTERS: [&str; 16] = [
            "a", "b", "A", "ab", "/", ".", " ", "é", "É", "日", "%", "_", "\\", "-", "2", "1",
        ];
        let len = self.below(most + 1);
        (0..len).map(|_| self.pick(&LETTERS)).collect()
    }

    fn version(&mut self) -> String {
        let versions = [
            "",
            "1.0.0",
            "v1.0.0",
            "v1.2",
            "v10",
            "v9",
            "2025-01-01",
            ">1",
            "V9",
        ];
        self.pick(&versions).to_owned()
    }

    fn class(&mut self) -> (String, u64) {
        let names = ["a/b", "a/b/c", "a/bc", "A/B/d", "a", "", "x/y/z", "a//b", "a/b/"];
        let name = if self.below(4) == 0 {
            self.text(4)
        } else {
            self.pick(&names).to_owned()
        };
        let ids = [0, 1, 2, 7, u64::MAX, 1 << 63];
        let at = self.below(ids.len());
        (name, ids[at])
    }

    fn classes(&mut self) -> Vec<(String, u64)> {
        (0..self.below(4)).map(|_| self.class()).collect()
    }

    fn locators(&mut self) -> Vec<(String, String)> {
        let kinds = ["docker", "Docker", "https", "url", ""];
        let urls = ["https://a.b/c", "//x", "a:b", "", "https://A.b/d"];
        (0..self.below(3))
            .map(|_| (self.pick(&kinds).to_owned(), self.pick(&urls).to_owned()))
            .collect()
    }

    fn summary(&mut self) -> Summary {
        if self.below(5) == 0 {
            let number = self.below(500) as u64;
            let made = self.generator.make(number);
            return (StoreConfig::new("unused").summarise)(&made.canonical).unwrap();
        }
        let described = if self.below(30) == 0 { 3000 } else { 8 };
        Summary {
            name: self.text(5),
            version: self.version(),
            description: self.text(described),
            schema_version: self.version(),
            created_at: self.version(),
            authors: match self.below(4) {
                0 => None,
                1 => Some(Vec::new()),
                count => Some((1..count).map(|_| self.text(3)).collect()),
            },
            previous_record_cid: String::new(),
            annotations: (0..self.below(3)).map(|_| (self.text(2), self.text(2))).collect(),
            skills: self.classes(),
            domains: self.classes(),
            modules: self
                .classes()
                .into_iter()
                .map(|(name, id)| dirnode_record::summary::ModuleSummary {
                    name,
                    id,
                    artifact_media_type: String::new(),
                })
                .collect(),
            locators: self.locators(),
        }
    }

    fn insert(&mut self) {
        let summary = self.summary();
        let cid = RecordCid::of(&[self.random.next().to_be_bytes(), [0; 8]].concat());
        self.insert_as(cid, summary);
    }

    fn insert_as(&mut self, cid: RecordCid, summary: Summary) {
        self.ticks += 1;
        self.index.insert(cid, self.ticks, 1, &summary);
        let known = Known {
            cid,
            inserted_at: self.ticks,
            summary,
            verified: false,
            trusted: false,
            scans: BTreeMap::new(),
            usage: 0,
            providers: 0,
        };
        self.known.insert(cid, known);
    }

    fn any_cid(&mut self) -> Option<RecordCid> {
        let mut cids: Vec<_> = self.known.keys().copied().collect();
        cids.sort_unstable();
        (!cids.is_empty()).then(|| cids[self.random.place(cids.len())])
    }

    /// Something happens to some record.
    fn stir(&mut self) {
        let Some(cid) = self.any_cid() else {
            return self.insert();
        };
        match self.below(12) {
            0..=2 => self.insert(),
            3 => {
                let known = self.known.remove(&cid).unwrap();
                let told = self.random.below(4) > 0;
                let description = known.summary.description.as_str();
                assert!(self.index.remove(&cid, told.then_some(description)));
                if self.below(3) == 0 {
                    self.insert_as(cid, known.summary);
                }
            }
            4 => {
                // Healed: the same record again, at its own time.
                let known = &self.known[&cid];
                self.index.insert(cid, known.inserted_at, 2, &known.summary);
            }
            5 => {
                let verified = self.below(2) == 0;
                self.index.set_verified(&cid, verified);
                self.known.get_mut(&cid).unwrap().verified = verified;
            }
            6 => {
                let trusted = self.below(2) == 0;
                self.index.set_trusted(&cid, trusted);
                self.known.get_mut(&cid).unwrap().trusted = trusted;
            }
            7 | 8 => {
                let scanner = self.pick(&["a", "b"]).to_owned();
                let severity = match self.below(7) {
                    6 => None,
                    at => Severity::from_name(SEVERITIES[at]),
                };
                let safe = self.below(2) == 0;
                let known = self.known.get_mut(&cid).unwrap();
                known.scans.insert(scanner.clone(), (severity, safe));
                self.index.set_scan(
                    &cid,
                    Scan {
                        scanner,
                        severity,
                        safe,
                    },
                );
            }
            9 => {
                let usage = self.below(5) as u64;
                self.index.set_usage(&cid, usage);
                self.known.get_mut(&cid).unwrap().usage = usage;
            }
            10 => {
                let providers = self.below(3) as u64;
                self.index.set_provider_count(&cid, providers);
                self.known.get_mut(&cid).unwrap().providers = providers;
            }
            _ if self.below(20) == 0 => self.rebuild(),
            _ => {}
        }
    }

    fn rebuild(&mut self) {
        self.index.begin();
        let mut all: Vec<Known> = self.known.values().cloned().collect();
        all.sort_unstable_by_key(|known| known.cid);
        for (at, known) in (0..).zip(&all) {
            let record = Prepared::new(known.summary.clone());
            self.index.fill(&known.cid, &record);
            // Some go while the others are brought.
            if self.random.below(20) == 0 {
                let gone = &all[self.random.place(at + 1)];
                let told = (self.random.below(2) == 0).then_some(gone.summary.description.as_str());
                assert_eq!(
                    self.index.remove(&gone.cid, told),
                    self.known.remove(&gone.cid).is_some()
                );
            }
        }
        self.index.finish();
    }

    /// A text that some record may hold, bent into a pattern.
    fn value(&mut self, text: String) -> String {
        let letters: Vec<char> = text.chars().collect();
        let from = self.below(letters.len() + 1);
        let to = from + self.below(letters.len() - from + 1);
        let part: String = letters[from..to].iter().collect();
        match self.below(9) {
            0 | 1 => text,
            2 => text.to_uppercase(),
            3 => format!("{part}*"),
            4 => format!("*{part}*"),
            5 => format!("*{part}"),
            6 if from < letters.len() => {
                let mut letters = letters;
                letters[from] = '?';
                letters.into_iter().collect()
            }
            7 => format!("{}*{part}?*", self.text(2)),
            _ => self.text(4) + self.pick(&["", "*", "?", "\\", "\\*"]),
        }
    }

    fn query(&mut self) -> Query {
        let kind = KINDS[self.below(KINDS.len())];
        let sample = match self.any_cid() {
            Some(cid) => self.known[&cid].summary.clone(),
            None => Summary::default(),
        };
        let (skill, domain) = (self.class(), self.class());
        let one = |list: &[(String, u64)], other: (String, u64)| list.first().cloned().unwrap_or(other);
        let value = match kind {
            QueryKind::Name => self.value(sample.name),
            QueryKind::Version | QueryKind::SchemaVersion | QueryKind::CreatedAt => {
                let text = match kind {
                    QueryKind::Version => sample.version,
                    QueryKind::SchemaVersion => sample.schema_version,
                    _ => sample.created_at,
                };
                if self.below(2) == 0 {
                    self.pick(&[">=", "<=", ">", "<", "=", "=>"]).to_owned() + &text
                } else {
                    self.value(text)
                }
            }
            QueryKind::SkillId => one(&sample.skills, skill).1.to_string(),
            QueryKind::DomainId => one(&sample.domains, domain).1.to_string(),
            QueryKind::ModuleId => self.pick(&["0", "1", "2", "007", "99"]).to_owned(),
            QueryKind::SkillName => {
                let name = one(&sample.skills, skill).0;
                if self.below(3) == 0 {
                    self.pick(&["a/*", "a/b/*", "A/B/*", "x/*", "*/"]).to_owned()
                } else {
                    self.value(name)
                }
            }
            QueryKind::DomainName => {
                let name = one(&sample.domains, domain).0;
                self.value(name)
            }
            QueryKind::ModuleName => {
                let name = sample
                    .modules
                    .first()
                    .map_or_else(String::new, |module| module.name.clone());
                self.value(name)
            }
            QueryKind::Locator => {
                let (kind, url) = sample.locators.first().cloned().unwrap_or_default();
                match self.below(5) {
                    0 => self.value(kind),
                    1 => "*".to_owned() + &self.value(url),
                    2 => format!("{}:{}", self.value(kind), self.value(url)),
                    3 => format!("{kind}:{url}"),
                    _ => self
                        .pick(&["", ":", " ", "*://*", "docker:", ":a*", "*"])
                        .to_owned(),
                }
            }
            QueryKind::Annotation => {
                let (key, value) = sample.annotations.into_iter().next().unwrap_or_default();
                match self.below(4) {
                    0 => self.value(key),
                    1 => format!("{}:{}", self.value(key), self.value(value)),
                    2 => format!("{key}:{value}"),
                    _ => self.pick(&["", ":", ":x", "*", "*:*", "a:"]).to_owned(),
                }
            }
            QueryKind::Author => {
                let author = sample.authors.and_then(|authors| authors.into_iter().next());
                self.value(author.unwrap_or_default())
            }
            QueryKind::Description => {
                let short: String = sample.description.chars().take(60).collect();
                let text = if self.below(3) == 0 {
                    sample.description
                } else {
                    short
                };
                self.value(text)
            }
            QueryKind::Verified | QueryKind::Trusted | QueryKind::ScanSafe => {
                self.pick(&["true", "TRUE", "false", "", "x"]).to_owned()
            }
            QueryKind::ScanSeverity => {
                let at = self.below(SEVERITIES.len() + 2);
                SEVERITIES.get(at).map_or("low", |name| *name).to_owned() + if at == 7 { "x" } else { "" }
            }
            QueryKind::Ignored => "anything".to_owned(),
        };
        Query {
            kind,
            value,
            negate: self.below(4) == 0,
        }
    }

    fn compare(&mut self, step: u64) {
        let count_of_queries = [0, 1, 1, 1, 1, 2, 2, 2, 3, 4];
        let queries: Vec<Query> = (0..count_of_queries[self.below(count_of_queries.len())])
            .map(|_| self.query())
            .collect();
        let sort = [Sort::Recency, Sort::Popularity, Sort::ProviderCount][self.below(3)];
        let limits = [0, 0, 1, 2, 5, 20, 1000, u32::MAX];
        let limit = limits[self.below(limits.len())];
        let offsets = [0, 0, 0, 1, 3, 50, 5000, u32::MAX];
        let offset = offsets[self.below(offsets.len())];

        let mut wanted: Vec<&Known> = self.known.values().filter(|known| known.fits(&queries)).collect();
        wanted.sort_by_key(|known| {
            let rank = match sort {
                Sort::Recency => 0,
                Sort::Popularity => known.usage,
                Sort::ProviderCount => known.providers,
            };
            std::cmp::Reverse((rank, known.inserted_at))
        });
        let total = wanted.len() as u64;
        let take = if limit == 0 { usize::MAX } else { limit as usize };
        let wanted: Vec<RecordCid> = wanted
            .iter()
            .skip(offset as usize)
            .take(take)
            .map(|known| known.cid)
            .collect();

        self.answers += u64::from(total > 0);
        let mut bound = || [0, 1, 5, 40, 3000][self.random.place(5)];
        let tuning = Tuning {
            look: bound(),
            gather: bound(),
            walk_results: bound(),
            candidates: bound(),
            walk_steps: bound(),
            sort_results: bound(),
        };
        self.index.tune(tuning);
        let plan = Plan::parse(&queries).unwrap();
        let budget = Budget::default();
        let mut found = search(self, &plan, sort, limit, offset, &budget).unwrap();
        let mut got = Vec::new();
        while let Some(page) = found.next_page(self, 100).unwrap() {
            got.extend(page);
        }
        assert_eq!(
            got,
            wanted,
            "step {step}: {queries:?} {sort:?} limit {limit} offset {offset} over {} records, {tuning:?}",
            self.known.len()
        );
        assert_eq!(
            count(self, &plan, &budget).unwrap(),
            total,
            "step {step}: count of {queries:?}"
        );
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

#[test]
fn the_index_agrees_with_a_plain_matcher() {
    let seed = setting("DIRNODE_ORACLE_SEED", 1);
    let queries = setting("DIRNODE_ORACLE_QUERIES", 10_000);
    println!("seed {seed}, {queries} queries");
    let mut world = World {
        random: Random::of(seed, 0),
        index: RecordIndex::default(),
        known: HashMap::new(),
        generator: Generator::new(seed),
        ticks: 0,
        answers: 0,
    };
    for step in 0..queries {
        // Worlds of different sizes: now and then most records go.
        if world.known.len() > 150 && world.below(40) == 0 {
            for _ in 0..100 {
                let cid = world.any_cid().unwrap();
                let known = world.known.remove(&cid).unwrap();
                assert!(world.index.remove(&cid, Some(&known.summary.description)));
            }
        }
        for _ in 0..world.below(4) {
            world.stir();
        }
        world.compare(step);
    }
    println!("{} queries matched something", world.answers);
    assert!(
        world.answers > queries / 5,
        "queries that match nothing prove little"
    );
    // When all records have gone, nothing is left of them.
    while let Some(cid) = world.any_cid() {
        let known = world.known.remove(&cid).unwrap();
        assert!(world.index.remove(&cid, Some(&known.summary.description)));
    }
    assert!(world.index.is_empty());
    assert_eq!(world.index.values_len(), 0);
}
