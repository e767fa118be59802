//! The replica side of PSYNC as a state machine over bytes: no socket, no clock, no thread.
//!
//! A [`Link`] is one connection to a source. The caller moves bytes and time, the link does the
//! protocol:
//!
//! ```text
//!            feed(bytes) ──►┌──────┐──► poll()   -> Event
//!   socket                  │ Link │
//!            ◄── output() ──└──────┘◄── tick(now), applied(offset)
//! ```
//!
//! What passes over the wire, in order:
//!
//! ```text
//! we send                                the source answers
//! PING                                   +PONG | -NOAUTH ..
//! AUTH [user] password                   +OK
//! REPLCONF capa [eof capa] psync2        +OK | -ERR ..   (an error is not critical)
//! REPLCONF version <x>                   +OK | -ERR ..   (only where configured)
//! PSYNC <replid> <offset + 1> | ? -1     \n* +CONTINUE [replid]
//!                                        \n* +FULLRESYNC <replid> <offset>
//!                                            \n* $<len>\r\n <len bytes>
//!                                            \n* $EOF:<40 bytes>\r\n <bytes> <the same 40 bytes>
//! REPLCONF ACK <offset>   each second    the command stream, `\n` between commands at times
//! ```
//!
//! A source may send the snapshot on a connection of its own, while the stream comes on the first:
//! see [`RdbChannel`].
//!
//! Every byte of the command stream counts as one offset, except those lone newlines. Never sent:
//! `REPLCONF listening-port` and `ip-address` (Sentinel would take whoever listens there for a
//! replica and convert it), and `PSYNC .. FAILOVER` (it promotes the server that receives it).
//!
//! The link does not decode the snapshot and does not act on the stream's commands: it only finds
//! where a command ends, so that newlines are told from data and `REPLCONF GETACK` is answered.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

mod ack;
mod channel;
mod error;
mod event;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod id;
mod input;
mod link;
mod mark;
mod options;
mod reply;
mod stream;
mod transfer;

pub use channel::{RdbChannel, SnapshotAt};
pub use error::{Class, Error, ErrorKind};
pub use event::{Event, Poll};
pub use id::{InvalidReplId, ReplId, ReplOffset};
pub use link::Link;
pub use options::{AckMode, Options, Start, Timeouts};
pub use stream::Tail;
