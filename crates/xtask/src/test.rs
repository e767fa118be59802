//! `cargo xtask test`
pub(crate) fn run(_args: &[String]) -> Result<(), String> {
    crate::engines::bring_small()
}
