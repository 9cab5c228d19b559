//! The wire of the Agent Directory.
pub mod value;
pub use value::{Struct, Value};
