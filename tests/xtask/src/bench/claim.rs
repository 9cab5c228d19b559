//! Figures held against their bounds, and the pieces that every page of figures is made of.

use std::fmt::Write as _;

use anyhow::bail;

/// On which side of its bound a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    AtLeast,
    AtMost,
}

/// A figure with a bound.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What was measured, with its unit.
    pub text: String,
    pub bound: Bound,
    pub wanted: f64,
    pub measured: f64,
}

impl Claim {
    pub fn at_least(text: impl Into<String>, wanted: f64, measured: f64) -> Self {
        Self {
            text: text.into(),
            bound: Bound::AtLeast,
            wanted,
            measured,
        }
    }

    pub fn at_most(text: impl Into<String>, wanted: f64, measured: f64) -> Self {
        Self {
            bound: Bound::AtMost,
            ..Self::at_least(text, wanted, measured)
        }
    }

    /// Whether the figure is on the right side of its bound; what is no number is on neither.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast => self.measured >= self.wanted,
            Bound::AtMost => self.measured <= self.wanted,
        }
    }
}

/// Fails when a wanted figure is missed, naming each.
///
/// # Errors
/// When one is missed.
pub fn check(claims: &[Claim]) -> anyhow::Result<()> {
    let missed: Vec<String> = claims
        .iter()
        .filter(|claim| !claim.is_met())
        .map(|claim| {
            format!(
                "{}: {:.2}, wanted {:.2}",
                claim.text, claim.measured, claim.wanted
            )
        })
        .collect();
    if missed.is_empty() {
        Ok(())
    } else {
        bail!("missed: {}", missed.join("; "))
    }
}

/// The table of what was wanted and what was measured.
pub fn table(out: &mut String, claims: &[Claim]) -> std::fmt::Result {
    writeln!(out, "| figure | wanted | measured | |\n|---|---|---|---|")?;
    for claim in claims {
        let bound = match claim.bound {
            Bound::AtLeast => "at least",
            Bound::AtMost => "at most",
        };
        let verdict = if claim.is_met() { "met" } else { "**missed**" };
        writeln!(
            out,
            "| {} | {bound} {} | {:.2} | {verdict} |",
            claim.text, claim.wanted, claim.measured
        )?;
    }
    Ok(())
}

/// The line that says what the figures were measured on.
pub fn machine_line(out: &mut String, machine: &str, load_average: &str) -> std::fmt::Result {
    writeln!(
        out,
        "Machine: {machine}. Load average at the end: {load_average}.\n"
    )
}

/// What a writer of tables wrote.
pub fn text_of(write: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text);
    text
}

/// A part of a whole; 0 of nothing.
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The middle of several figures of one kind, between the two in the middle of an even number; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let at = |place: usize| figures.get(place).copied().unwrap_or_default();
    if figures.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    }
}

/// A count or size as a number to divide and print.
#[expect(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_may_reach_its_bound_and_not_pass_it() {
        assert!(Claim::at_least("a", 2.0, 2.0).is_met());
        assert!(!Claim::at_least("a", 2.0, 1.99).is_met());
        assert!(Claim::at_most("a", 2.0, 2.0).is_met());
        assert!(!Claim::at_most("a", 2.0, 2.01).is_met());
        assert!(!Claim::at_most("a", 2.0, f64::NAN).is_met());
    }

    #[test]
    fn what_is_missed_is_named_with_both_figures() {
        let claims = [
            Claim::at_least("rate", 2.0, 3.0),
            Claim::at_most("size", 2.0, 3.0),
        ];
        assert!(check(claims.get(..1).unwrap()).is_ok());
        let missed = check(&claims).unwrap_err().to_string();
        assert_eq!(missed, "missed: size: 3.00, wanted 2.00");
        let text = text_of(|out| table(out, &claims));
        assert!(text.contains("| rate | at least 2 | 3.00 | met |"), "{text}");
        assert!(
            text.contains("| size | at most 2 | 3.00 | **missed** |"),
            "{text}"
        );
    }

    #[test]
    fn the_middle_is_taken_by_size() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
        assert_eq!(ratio(1.0, 0.0), 0.0);
    }
}
