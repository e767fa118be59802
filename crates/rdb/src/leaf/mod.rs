//! The smallest items of the format.

pub(crate) mod double;
pub(crate) mod lzf;
pub(crate) mod magic;
pub(crate) mod number;
pub(crate) mod reader;
