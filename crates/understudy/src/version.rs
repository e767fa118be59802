//! Which understudy this is.

/// The version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from.
pub(crate) const COMMIT: &str = env!("UNDERSTUDY_COMMIT");
/// Both, for people.
pub(crate) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("UNDERSTUDY_COMMIT"),
    ")"
);
