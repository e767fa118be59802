//! Files in the place of a source: RDB files as the snapshot, append-only files as the stream.
//!
//! Both appliers read a feed. Here its bytes are not received and spooled but read where they are ([`Set`]), at the same
//! positions as they have in the files, one file behind the other. So a position in the target's checkpoint is a file and
//! an offset, in the transaction of its data as with a live source.

pub(crate) mod aof;
mod identity;
mod manifest;
pub(crate) mod packed;
mod scan;
mod set;

pub(crate) use identity::{begins_with, identify, identify_bytes, identify_whole};
pub(crate) use manifest::parts;
pub(crate) use set::{Set, read_failed};
