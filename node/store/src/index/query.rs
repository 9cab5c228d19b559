//! Queries as callers state them, and the plan they become (grpc-api §4.9). Pure; safe on any text a client sends.
//!
//! Different kinds are joined by AND. Values of one kind are joined by OR, except that values with an operator are
//! joined by AND among themselves. Kinds that speak of the same row (a skill's name and id, a locator's type and URL,
//! an annotation's key and value) must hold on one row together. Negated values form exclusions by the same rules.

use super::facts::Severity;
use super::pattern::{Comparison, Pattern, VersionRule};

/// Most queries in one search.
pub const MAX_QUERIES: usize = 1024;
/// Most bytes of all query values together.
pub const MAX_QUERY_BYTES: usize = 64 << 10;
/// Bytes of a value that an error repeats.
const QUOTED_BYTES: usize = 128;

/// What a query asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the query type of the API of the same name")]
pub enum QueryKind {
    Name,
    Version,
    SkillId,
    SkillName,
    Locator,
    ModuleName,
    ModuleId,
    DomainId,
    DomainName,
    CreatedAt,
    Author,
    SchemaVersion,
    Annotation,
    Description,
    Verified,
    Trusted,
    ScanSeverity,
    ScanSafe,
    /// A kind this node does not know: no filter.
    Ignored,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What it asks about.
    pub kind: QueryKind,
    /// As the client sent it.
    pub value: String,
    /// True to exclude what matches.
    pub negate: bool,
}

/// Order of a search's results. Ties go to the later insertion, then to the smaller CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sort {
    /// Latest insertion first.
    #[default]
    Recency,
    /// Most pulls and lookups first.
    Popularity,
    /// Most providers first.
    ProviderCount,
}

/// Sorts [`QueryError`] by what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryErrorKind {
    /// The query itself is at fault.
    Invalid,
    /// It costs more than its budget; ask for less.
    TooExpensive,
    /// The index is being built; try again.
    Unavailable,
    /// The store failed.
    Internal,
}

/// Why a query was not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A class id that is not an unsigned decimal number of 64 bits.
    #[error("failed to parse {family} ID {value:?}: {why}")]
    Id {
        /// `skill`, `domain` or `module`.
        family: &'static str,
        /// The value, shortened when long.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than [`MAX_QUERIES`].
    #[error("search has {count} queries, limit is {MAX_QUERIES}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// More than [`MAX_QUERY_BYTES`].
    #[error("queries have {size_bytes} bytes, limit is {MAX_QUERY_BYTES}")]
    TooLong {
        /// How many there are.
        size_bytes: usize,
    },
    /// The budget of the query is spent.
    #[error("query needs more {what} than it may take; narrow it or set a limit")]
    TooExpensive {
        /// `steps`, `rows` or `time`.
        what: &'static str,
    },
    /// The index is being built.
    #[error("search index is being built")]
    NotReady,
    /// A row could not be read.
    #[error("row was not read")]
    Store(#[source] crate::StoreError),
}

impl QueryError {
    /// Sorts the error by what the caller can do.
    #[must_use]
    pub fn kind(&self) -> QueryErrorKind {
        match self {
            Self::Id { .. } | Self::TooMany { .. } | Self::TooLong { .. } => QueryErrorKind::Invalid,
            Self::TooExpensive { .. } => QueryErrorKind::TooExpensive,
            Self::NotReady => QueryErrorKind::Unavailable,
            Self::Store(_) => QueryErrorKind::Internal,
        }
    }
}

/// A field of one text, present in every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Version,
    SchemaVersion,
    CreatedAt,
}

/// A list whose rows have two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Skill,
    Domain,
    Module,
    Locator,
    Annotation,
}

impl RowKind {
    pub(super) const ALL: [Self; 5] = [
        Self::Skill,
        Self::Domain,
        Self::Module,
        Self::Locator,
        Self::Annotation,
    ];
}

/// Values of one single-text field: all of `all`, if there are any, or one of `any`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) all: Vec<Comparison>,
    pub(super) any: Vec<Pattern>,
}

/// A condition on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    Text(Field, Rules),
    /// One of these.
    Description(Vec<Pattern>),
    /// One of these in one of the authors; an author list without authors counts as one empty text.
    Author(Vec<Pattern>),
    /// One row with one of the left and one of the right texts; an empty side takes all.
    Rows {
        kind: RowKind,
        left: Vec<Pattern>,
        right: Vec<Pattern>,
    },
    Verified(bool),
    Trusted(bool),
    Safe(bool),
    /// A scan row at or above.
    Severity(Severity),
}

/// What a search asks, read and checked. Empty means everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub(super) include: Vec<Term>,
    pub(super) exclude: Vec<Term>,
}

/// Values of one polarity, gathered by kind.
#[derive(Default)]
struct Gathered {
    text: [Rules; 4],
    description: Vec<Pattern>,
    author: Vec<Pattern>,
    rows: [(Vec<Pattern>, Vec<Pattern>); 5],
    severity: Option<Severity>,
}

impl Plan {
    /// Reads queries. The first one at fault, in the order given, is told.
    ///
    /// # Errors
    /// `Invalid` only.
    pub fn parse(queries: &[Query]) -> Result<Self, QueryError> {
        if queries.len() > MAX_QUERIES {
            return Err(QueryError::TooMany { count: queries.len() });
        }
        let size_bytes: usize = queries.iter().map(|query| query.value.len()).sum();
        if size_bytes > MAX_QUERY_BYTES {
            return Err(QueryError::TooLong { size_bytes });
        }
        let mut include = Gathered::default();
        let mut exclude = Gathered::default();
        let (mut verified, mut trusted, mut safe) = (None, None, None);
        for query in queries {
            let flag = Some(Term::flag(query));
            match query.kind {
                QueryKind::Verified => verified = flag,
                QueryKind::Trusted => trusted = flag,
                QueryKind::ScanSafe => safe = flag,
                _ if query.negate => exclude.add(query)?,
                _ => include.add(query)?,
            }
        }
        let mut plan = Self {
            include: include.terms(true),
            exclude: exclude.terms(false),
        };
        plan.include.extend(verified.map(Term::Verified));
        plan.include.extend(trusted.map(Term::Trusted));
        plan.include.extend(safe.map(Term::Safe));
        Ok(plan)
    }

    /// True if everything is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

impl Term {
    fn flag(query: &Query) -> bool {
        query.value.eq_ignore_ascii_case("true") != query.negate
    }
}

impl Gathered {
    fn add(&mut self, query: &Query) -> Result<(), QueryError> {
        let value = query.value.as_str();
        let [skill, domain, module, locator, annotation] = &mut self.rows;
        let [name, version, schema, created] = &mut self.text;
        let blank = value.trim().is_empty();
        match query.kind {
            QueryKind::Name => name.any.push(Pattern::new(value)),
            QueryKind::Version => version.add(value),
            QueryKind::SchemaVersion => schema.add(value),
            QueryKind::CreatedAt => created.add(value),
            QueryKind::Description if !blank => self.description.push(Pattern::new(value)),
            QueryKind::Author => self.author.push(Pattern::within(value)),
            QueryKind::SkillName => skill.0.push(Pattern::new(value)),
            QueryKind::SkillId => skill.1.push(id("skill", value)?),
            QueryKind::DomainName => domain.0.push(Pattern::new(value)),
            QueryKind::DomainId => domain.1.push(id("domain", value)?),
            QueryKind::ModuleName if !blank => module.0.push(Pattern::new(value)),
            QueryKind::ModuleId => module.1.push(id("module", value)?),
            QueryKind::Locator if !blank => add_locator(locator, value),
            QueryKind::Annotation => add_annotation(annotation, value),
            QueryKind::ScanSeverity => {
                if let Some(level) = Severity::from_name(value) {
                    self.severity = Some(self.severity.map_or(level, |held| held.min(level)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn terms(self, include: bool) -> Vec<Term> {
        let mut terms = Vec::new();
        let fields = [
            Field::Name,
            Field::Version,
            Field::SchemaVersion,
            Field::CreatedAt,
        ];
        for (field, rules) in fields.into_iter().zip(self.text) {
            if !rules.all.is_empty() || !rules.any.is_empty() {
                terms.push(Term::Text(field, rules));
            }
        }
        for (kind, (left, right)) in RowKind::ALL.into_iter().zip(self.rows) {
            let class = matches!(kind, RowKind::Skill | RowKind::Domain | RowKind::Module);
            if left.is_empty() && right.is_empty() {
                continue;
            }
            if !include && class {
                // An excluded id and an excluded name each exclude, on whatever row.
                let (none, any) = (Vec::new, |side: &Vec<Pattern>| !side.is_empty());
                if any(&left) {
                    let right = none();
                    terms.push(Term::Rows { kind, left, right });
                }
                if any(&right) {
                    let left = none();
                    terms.push(Term::Rows { kind, left, right });
                }
            } else {
                terms.push(Term::Rows { kind, left, right });
            }
        }
        if !self.author.is_empty() {
            terms.push(Term::Author(self.author));
        }
        if !self.description.is_empty() {
            terms.push(Term::Description(self.description));
        }
        terms.extend(self.severity.map(Term::Severity));
        terms
    }
}

impl Rules {
    fn add(&mut self, value: &str) {
        match VersionRule::new(value) {
            VersionRule::Compare(comparison) => self.all.push(comparison),
            VersionRule::Match(pattern) => self.any.push(pattern),
        }
    }
}

/// A class id as the exact text the index holds.
fn id(family: &'static str, value: &str) -> Result<Pattern, QueryError> {
    let fault = |why| QueryError::Id {
        family,
        value: shortened(value),
        why,
    };
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault("invalid syntax"));
    }
    let id: u64 = value.parse().map_err(|_| fault("value out of range"))?;
    Ok(Pattern::new(&id.to_string()))
}

fn shortened(value: &str) -> String {
    let end = value
        .char_indices()
        .map(|(at, letter)| at.saturating_add(letter.len_utf8()))
        .take_while(|end| *end <= QUOTED_BYTES)
        .last()
        .unwrap_or(0);
    value.get(..end).unwrap_or_default().to_owned()
}

/// Types go left, URLs right.
fn add_locator((types, urls): &mut (Vec<Pattern>, Vec<Pattern>), value: &str) {
    let star = value.starts_with('*');
    match value.split_once(':') {
        None if star => urls.push(Pattern::new(value)),
        None => types.push(Pattern::new(value)),
        Some((_, rest)) if star && rest.starts_with("//") => urls.push(Pattern::new(value)),
        Some((kind, url)) => {
            if !kind.trim().is_empty() {
                types.push(Pattern::new(kind));
            }
            if !url.trim().is_empty() {
                urls.push(Pattern::new(url));
            }
        }
    }
}

/// Keys go left, values right.
fn add_annotation((keys, values): &mut (Vec<Pattern>, Vec<Pattern>), value: &str) {
    match value.split_once(':') {
        None if value.is_empty() => keys.push(Pattern::nothing()),
        None => keys.push(Pattern::new(value)),
        Some(("", _)) => {}
        Some((key, value)) => {
            keys.push(Pattern::new(key));
            if !value.is_empty() {
                values.push(Pattern::new(value));
            }
        }
    }
}
