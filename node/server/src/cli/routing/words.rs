//! What a sentence is about: skills and domains of the built-in OASF taxonomies whose names have its words. Announcements
//! hold labels and no text, so this is all of a sentence that can be looked for on other nodes. Pure.
//!
//! Words are compared without endings and the rarer a word is among the names, the more it says. A name is meant when the
//! words found make up half of what it says: `fraud` means `fraud_prevention`, `detection` alone means nothing.

use std::collections::{BTreeMap, BTreeSet};

use dirnode_proto::routing::v1::RecordQueryType as Type;
use dirnode_record::Validator;

/// Conditions made of one text at most; the best are kept.
pub(crate) const MAX_CONDITIONS: usize = 16;

/// The part of what a name says that has to be in the text.
const ENOUGH: f64 = 0.5;

/// Words that say nothing here.
const IDLE: &[&str] = &[
    "a", "agent", "agents", "an", "and", "any", "are", "as", "at", "be", "by", "can", "do", "find", "for",
    "from", "how", "i", "in", "into", "is", "it", "me", "my", "of", "on", "or", "please", "record",
    "records", "show", "that", "the", "this", "to", "use", "using", "want", "which", "who", "with",
];

/// Endings, longer ones before those that they end in.
const ENDINGS: &[&str] = &[
    "ings", "ions", "ing", "ion", "ers", "ors", "ies", "er", "or", "es", "ed", "s", "e", "y",
];

/// What is left of a word at least.
const SHORTEST_STEM: usize = 3;

/// From this length on a stem stands for the longer ones that it begins.
const TELLING_STEM: usize = 5;

/// Stems of the words of a text that say something.
fn stems(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| word.chars().nth(1).is_some() && !IDLE.contains(word))
        .map(stem)
        .collect()
}

/// A word without its ending; `optimise` and `optimize` are one.
fn stem(word: &str) -> String {
    let word = word.replace('z', "s");
    let cut = ENDINGS.iter().find_map(|ending| {
        let rest = word.strip_suffix(ending)?;
        (rest.chars().count() >= SHORTEST_STEM).then(|| rest.to_owned())
    });
    cut.unwrap_or(word)
}

fn alike(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() {
        (one, other)
    } else {
        (other, one)
    };
    short == long || (short.chars().count() >= TELLING_STEM && long.starts_with(short))
}

/// A class or a group of classes: its kind, its path, and the stems of its last segment.
struct Name {
    kind: Type,
    path: String,
    stems: BTreeSet<String>,
}

fn names(versions: &[String]) -> anyhow::Result<Vec<Name>> {
    let validator = Validator::builtin();
    let known: Vec<&str> = validator.versions().collect();
    if let Some(odd) = versions.iter().find(|version| !known.contains(&version.as_str())) {
        anyhow::bail!(
            "no taxonomy is known for --schema-version {odd:?}; known are {}",
            known.join(", ")
        );
    }
    let mut paths = BTreeSet::new();
    let wanted = known
        .iter()
        .filter(|version| versions.is_empty() || versions.iter().any(|wanted| wanted == *version));
    for class in wanted.flat_map(|version| validator.taxonomy(version)) {
        let is_domain = match class.family {
            "skill" => false,
            "domain" => true,
            _ => continue,
        };
        // A condition on the leading segments meets every class below them.
        let ends = class.name.match_indices('/').map(|(place, _)| place);
        for end in ends.chain([class.name.len()]) {
            paths.extend(class.name.get(..end).map(|path| (is_domain, path)));
        }
    }
    let name = |(is_domain, path): (bool, &str)| Name {
        kind: if is_domain { Type::Domain } else { Type::Skill },
        path: path.to_owned(),
        stems: stems(path.rsplit('/').next().unwrap_or(path))
            .into_iter()
            .collect(),
    };
    Ok(paths.into_iter().map(name).collect())
}

/// Skills and domains that a text is about, the surest first, at most [`MAX_CONDITIONS`], by the taxonomies of the given
/// schema versions or of all.
///
/// # Errors
/// A version without a built-in taxonomy.
pub(crate) fn conditions(text: &str, versions: &[String]) -> anyhow::Result<Vec<(Type, String)>> {
    let names = names(versions)?;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for stem in names.iter().flat_map(|name| &name.stems) {
        *seen.entry(stem).or_default() += 1;
    }
    let count = f64::from(u32::try_from(names.len()).unwrap_or(u32::MAX));
    let weight = |stem: &String| {
        let times = seen.get(stem.as_str()).copied().unwrap_or(1);
        (1.0 + count / f64::from(times)).ln()
    };
    let asked = stems(text);
    let mut meant: Vec<(f64, f64, &Name)> = names
        .iter()
        .filter_map(|name| {
            let whole: f64 = name.stems.iter().map(weight).sum();
            let is_asked = |stem: &&String| asked.iter().any(|asked| alike(stem, asked));
            let part: f64 = name.stems.iter().filter(is_asked).map(weight).sum();
            (part > 0.0 && part >= ENOUGH * whole).then(|| (part / whole, part, name))
        })
        .collect();
    // Equal ones stay in the order of kind and path.
    meant.sort_by(|one, other| other.0.total_cmp(&one.0).then(other.1.total_cmp(&one.1)));
    meant.truncate(MAX_CONDITIONS);
    Ok(meant
        .into_iter()
        .map(|(_, _, name)| (name.kind, name.path.clone()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, versions: &[&str]) -> Vec<(Type, String)> {
        let versions: Vec<String> = versions.iter().map(|version| (*version).to_owned()).collect();
        conditions(text, &versions).unwrap()
    }

    fn check(text: &str, kind: Type, path: &str) {
        let found = found(text, &[]);
        assert!(found.contains(&(kind, path.to_owned())), "{text:?}: {found:?}");
    }

    #[test]
    fn a_sentence_means_skills_and_domains() {
        let translation = "natural_language_processing/language_translation/translation";
        check("translate documents to French", Type::Skill, translation);
        check("Translating!", Type::Skill, translation);
        let summary = "natural_language_processing/natural_language_generation/summarization";
        check("agents that summarise long text", Type::Skill, summary);
        check("agents that summarize long text", Type::Skill, summary);
        check(
            "fraud detection in banking",
            Type::Domain,
            "finance_and_business/banking",
        );
        check(
            "fraud detection in banking",
            Type::Domain,
            "trust_and_safety/fraud_prevention",
        );
        check(
            "the logistics of a supply chain",
            Type::Domain,
            "transportation/logistics",
        );
        check("computer vision", Type::Skill, "images_computer_vision");
    }

    #[test]
    fn the_name_that_is_all_there_comes_first_and_the_number_is_bounded() {
        let first = found("optimize supply chain logistics", &[]);
        assert_eq!(first[0], (Type::Domain, "transportation/supply_chain".to_owned()));
        let all: String = Validator::builtin()
            .taxonomy("1.0.0")
            .map(|class| format!("{} ", class.name))
            .collect();
        assert_eq!(found(&all, &[]).len(), MAX_CONDITIONS);
    }

    #[test]
    fn what_no_name_has_means_nothing() {
        for text in [
            "",
            "  ",
            "find agents that can do this",
            "detection",
            "qwertzuiop",
            "…",
        ] {
            assert_eq!(found(text, &[]), [], "{text:?}");
        }
    }

    #[test]
    fn a_schema_version_says_which_names_there_are() {
        let old = found("translation", &["0.7.0"]);
        let new = found("translation", &["1.1.0"]);
        let has =
            |found: &[(Type, String)], start: &str| found.iter().any(|(_, path)| path.starts_with(start));
        assert!(
            has(&old, "natural_language_processing/") && !has(&old, "language_processing/"),
            "{old:?}"
        );
        assert!(
            has(&new, "language_processing/") && !has(&new, "natural_language_processing/"),
            "{new:?}"
        );
        assert_eq!(
            found("translation", &["1.1.0", "0.7.0"]).len(),
            old.len() + new.len()
        );
        let error = conditions("translation", &["9.9.9".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("9.9.9") && error.contains("1.1.0"), "{error}");
    }
}
