//! What a link gives its caller.

use bytes::Bytes;

use crate::{RdbChannel, ReplId, ReplOffset, SnapshotAt};

/// What [`Link::poll`](crate::Link::poll) gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poll {
    /// Nothing until more bytes are fed.
    NeedMore,
    /// Something; poll again.
    Event(Event),
}

/// What a source says, in the order it says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A snapshot comes, and then the stream from the byte after `offset`. The history is a new
    /// one, or we are too far behind: nothing can be added to what we had.
    FullResync {
        /// The history.
        replid: ReplId,
        /// The offset the snapshot stands for.
        offset: ReplOffset,
    },
    /// The snapshot comes on a connection of its own: make a [`Link::on_rdb_channel`] on one, and
    /// tell this link by [`Link::join`] what that gives first.
    ///
    /// [`Link::on_rdb_channel`]: crate::Link::on_rdb_channel
    /// [`Link::join`]: crate::Link::join
    RdbChannel(RdbChannel),
    /// On an RDB channel, in the place of [`Event::FullResync`]: its snapshot follows.
    SnapshotAt(SnapshotAt),
    /// The stream goes on where we asked.
    Continue {
        /// The history's id from here on.
        replid: ReplId,
        /// Whether it is another than the one asked with: the source was promoted meanwhile.
        changed: bool,
    },
    /// The snapshot's first byte is next.
    SnapshotStart {
        /// Its size, where the source knows it beforehand.
        len: Option<u64>,
    },
    /// Some of its bytes; never empty.
    Snapshot(Bytes),
    /// All its bytes have come.
    SnapshotEnd {
        /// How many they were.
        bytes: u64,
    },
    /// Some bytes of the command stream, as they came; never empty. They may begin and end in the
    /// middle of a command.
    Stream {
        /// The bytes.
        bytes: Bytes,
        /// The offset of the last of them.
        end: ReplOffset,
    },
}
