//! Checks a store that nobody has open.
use crate::StoreError;
use std::path::Path;
/// p
#[derive(Debug)]
pub struct Progress;
/// r
#[derive(Debug)]
pub struct VerifyReport;
/// v
pub fn verify(_d: &Path, _r: bool, _p: &mut dyn FnMut(Progress)) -> Result<VerifyReport, StoreError> {
    Ok(VerifyReport)
}
