//! The derived index: what can be rebuilt from the rows. So far names; matching rules are shared with search.

pub mod names;
pub mod pattern;
