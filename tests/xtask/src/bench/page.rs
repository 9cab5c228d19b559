//! The page that the benchmarks share: each writes its own section and leaves the others.

/// Parts of a page: what stands before the first section, then each section with its heading.
fn parts(page: &str) -> (String, Vec<String>) {
    let mut head = String::new();
    let mut sections: Vec<String> = Vec::new();
    for line in page.lines() {
        if line.starts_with("## ") {
            sections.push(String::new());
        }
        let part = sections.last_mut().unwrap_or(&mut head);
        part.push_str(line);
        part.push('\n');
    }
    (head, sections)
}

fn heading(section: &str) -> &str {
    section.lines().next().unwrap_or_default()
}

/// `page` with the sections of `new` in place of its own of the same headings, and those it lacks at its end. Text
/// before the first section of `new` replaces that of `page`.
pub fn merge(page: &str, new: &str) -> String {
    let (old_head, mut sections) = parts(page);
    let (new_head, written) = parts(new);
    for section in written {
        match sections
            .iter_mut()
            .find(|held| heading(held) == heading(&section))
        {
            Some(held) => *held = section,
            None => sections.push(section),
        }
    }
    let head = if new_head.trim().is_empty() {
        old_head
    } else {
        new_head
    };
    let all: Vec<&str> = [&head]
        .into_iter()
        .chain(&sections)
        .map(|part| part.trim())
        .collect();
    all.join("\n\n").trim_start().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::merge;

    #[test]
    fn a_section_takes_the_place_of_its_own_and_leaves_the_others() {
        let page = "# Page\n\nhead\n\n## One\n\n1\n\n## Two\n\n2\n";
        assert_eq!(
            merge(page, "## Two\n\nnew"),
            "# Page\n\nhead\n\n## One\n\n1\n\n## Two\n\nnew\n"
        );
        assert_eq!(
            merge(page, "# Other\n\n## One\nnew"),
            "# Other\n\n## One\nnew\n\n## Two\n\n2\n"
        );
        assert_eq!(merge("", "## Three\n3"), "## Three\n3\n");
    }
}
