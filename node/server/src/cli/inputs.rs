//! Documents that a command is given: files, folders and standard input.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Largest document that is read; a record cannot be larger than 4 MiB on the wire, its text may be.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// One document, not read yet where it can be avoided.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    /// A file.
    File(PathBuf),
    /// Text that was read from standard input, and its place there.
    Text {
        /// Such as `stdin` or `stdin line 3`.
        name: String,
        /// The text.
        text: Vec<u8>,
    },
}

impl Document {
    /// How it is called in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { name, .. } => name.clone(),
        }
    }

    /// Its text.
    pub(crate) fn read(self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => read_file(&path),
            Self::Text { text, .. } => Ok(text),
        }
    }
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = Vec::new();
    file.take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > MAX_DOCUMENT_BYTES {
        bail!("{} is larger than {MAX_DOCUMENT_BYTES} bytes", path.display());
    }
    Ok(text)
}

/// Everything the arguments name. A folder stands for the `.json` files below it, `-` for standard input.
pub(crate) fn collect(paths: &[PathBuf], stdin: bool) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut wants_stdin = stdin;
    for path in paths {
        if path.as_os_str() == "-" {
            wants_stdin = true;
        } else if path.is_dir() {
            let before = documents.len();
            walk(path, &mut documents)?;
            if documents.len() == before {
                bail!("{} holds no .json file", path.display());
            }
        } else if path.exists() {
            documents.push(Document::File(path.clone()));
        } else {
            bail!("{} does not exist", path.display());
        }
    }
    if wants_stdin {
        documents.extend(read_stdin()?);
    }
    Ok(documents)
}

fn walk(folder: &Path, documents: &mut Vec<Document>) -> anyhow::Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .with_context(|| format!("cannot list {}", folder.display()))?;
    entries.sort();
    for path in entries {
        let kind =
            fs::symlink_metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        // A link to a folder may lead round in a circle.
        if kind.is_dir() {
            walk(&path, documents)?;
        } else if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
            documents.push(Document::File(path));
        }
    }
    Ok(())
}

/// One JSON document, or one on each line.
fn read_stdin() -> anyhow::Result<Vec<Document>> {
    const MAX_STDIN_BYTES: u64 = 1 << 30;
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN_BYTES + 1)
        .read_to_end(&mut text)
        .context("cannot read standard input")?;
    if text.len() as u64 > MAX_STDIN_BYTES {
        bail!("standard input is larger than {MAX_STDIN_BYTES} bytes; give files instead");
    }
    Ok(documents_in(text))
}

fn documents_in(text: Vec<u8>) -> Vec<Document> {
    let lines: Vec<(usize, &[u8])> = (1..)
        .zip(text.split(|byte| *byte == b'\n'))
        .map(|(number, line)| (number, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
        .collect();
    let is_whole = |line: &[u8]| line.starts_with(b"{") && line.ends_with(b"}");
    if lines.len() > 1 && lines.iter().all(|(_, line)| is_whole(line)) {
        let document = |(number, line): (usize, &[u8])| Document::Text {
            name: format!("stdin line {number}"),
            text: line.to_vec(),
        };
        return lines.into_iter().map(document).collect();
    }
    vec![Document::Text {
        name: "stdin".to_owned(),
        text,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_one_document_or_one_a_line() {
        let names = |text: &str| {
            documents_in(text.into())
                .iter()
                .map(Document::name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("{\n \"a\": 1\n}\n"), ["stdin"]);
        assert_eq!(
            names("{\"a\":1}\n\n{\"b\":2}\n"),
            ["stdin line 1", "stdin line 3"]
        );
        assert_eq!(names(""), ["stdin"]);
    }
}
