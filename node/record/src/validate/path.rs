//! Where in a record the rules are. A path is a chain of steps on the stack and becomes text only for a finding.
//! Follows validation §3.

#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub(super) fn key(&'p self, key: &'p str) -> Self {
        Self::Key(self, key)
    }

    pub(super) fn index(&'p self, index: usize) -> Self {
        Self::Index(self, index)
    }

    /// `a.b[0].c`; keys are not escaped.
    pub(super) fn render(&self) -> String {
        let mut steps = Vec::new();
        let mut at = self;
        loop {
            match at {
                Self::Root => break,
                Self::Key(parent, _) | Self::Index(parent, _) => {
                    steps.push(at);
                    at = parent;
                }
            }
        }
        let mut text = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Self::Key(_, key) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(key);
                }
                Self::Index(_, index) => {
                    text.push('[');
                    text.push_str(&index.to_string());
                    text.push(']');
                }
                Self::Root => {}
            }
        }
        text
    }
}
