//! RESP2 and RESP3, the wire format between Redis-family servers and their peers.
//!
//! Pure: bytes in, frames or values out; no socket, no clock, no file. Its parts:
//!
//! - [`CommandDecoder`]: finds the commands of a replication stream or an AOF file and says where
//!   their arguments stand. The frame itself can then be passed on as the bytes it came in.
//!   [`plain_set`] is a short way for the command that most streams consist of.
//! - [`ReplyScanner`]: counts a target's replies and reports only the errors among them.
//! - [`ValueDecoder`]: whole replies as a [`Value`], sliced out of the read buffer.
//! - [`encode`]: commands, and values in either protocol.
//!
//! All decoders are incremental. The caller keeps the bytes in its own buffer and calls `poll` with
//! everything from the start of the unfinished frame; the decoder continues where it stopped. It
//! holds positions alone, and what it returns does not depend on how the input was cut: neither
//! the frames, nor an error and its place. An error is final, polling again repeats it.
//!
//! Numbers are strict (no `+`, no leading zero, no overflow), line ends are strict (`\r\n`), and no
//! allocation is sized by a length that the peer merely declares.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::wildcard_enum_match_arm
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::wildcard_enum_match_arm
    )
)]
#![warn(missing_docs)]

mod code;
mod command;
mod decode;
pub mod encode;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod inline;
mod limits;
mod number;
mod plain;
mod reply;
mod token;
mod value;
mod walk;

pub use code::{ErrorCode, ErrorReply, Redirect};
pub use command::{Arg, CommandDecoder, Frame, FrameKind, Progress};
pub use decode::ValueDecoder;
pub use encode::Protocol;
pub use error::{Error, ErrorKind, Limited};
pub use limits::Limits;
pub use plain::{PlainSet, plain_bulks, plain_set};
pub use reply::{ReplyKind, ReplyScanner, Summary};
pub use value::Value;
