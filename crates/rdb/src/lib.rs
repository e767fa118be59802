//! Decodes RDB, the format of Redis's and Valkey's snapshots, and makes DUMP payloads.
//!
//! No I/O, no clock: bytes are fed as they arrive, events are taken as they become complete.
//!
//! ```text
//! file     = magic (opcode | key)* FF [checksum]
//! key      = (expiry | idle | freq | key meta)* type-byte string value
//! value    = see `types::ROWS`, one body a type
//! payload  = [F3 key-meta] type-byte value version checksum
//! ```
//!
//! [`Decoder`] gives a value in one of three ways, as asked after each key ([`Want`]): whole and
//! undecoded ([`Event::Raw`]), which is what a RESTORE takes; in elements; or not at all.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

mod arena;
mod checksum;
mod container;
mod decode;
pub mod dump;
mod error;
mod event;
pub mod fuzzing;
mod grammar;
mod leaf;
mod limits;
mod opcode;
mod templates;
pub mod types;
mod value;
mod walk;
mod window;

pub use checksum::crc64;
pub use decode::{Decoder, Record};
pub use error::{Error, ErrorKind};
pub use event::{
    Element, Event, KeyHead, ModuleId, ModuleValue, Poll, Score, StreamCounters, StreamId,
    StreamInfo, Want,
};
pub use limits::Limits;
pub use types::{Db, Dialect, Encoding, Kind, RdbVersion};
pub use value::module::{KeyMeta, KeyMetaClass, key_meta, module_aux};
