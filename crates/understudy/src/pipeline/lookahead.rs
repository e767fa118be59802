//! A second look at a stream's value: its pending messages stand behind all messages in the file, and have to be known
//! before the first one is written ([`SnapshotRewriter::ahead`]).
//!
//! The decoder proper waits at the value's beginning while a second one reads on to its end, out of the spool, which
//! keeps the whole snapshot on disk.

use std::io;

use rdb::{Decoder, Event, Poll, Want};
use rewrite::{SnapshotError, SnapshotRewriter};

use crate::spool::Feed;

/// Decoded before others have a turn on this thread.
const TURN_BYTES: u64 = 4 << 20;

/// The look ahead of one value.
#[derive(Debug)]
pub(super) struct Lookahead {
    decoder: Decoder,
    /// How far it has read.
    read_pos: u64,
    /// The value's first event, which waits; `None` as long as it is not known whether the value is given in elements.
    waiting: Option<Event>,
}

/// How far a look ahead is.
#[derive(Debug)]
pub(super) enum Looked {
    /// To the end of the value, whose first event this is.
    Done(Event),
    /// There is more; others have their turn.
    Busy,
    /// The bytes have not arrived.
    Starved,
}

/// Why there is no looking ahead.
#[derive(Debug)]
pub(super) enum Failed {
    Spool(io::Error),
    Damaged(rdb::Error),
    Refused(SnapshotError),
}

impl Lookahead {
    /// A look ahead with a decoder at the beginning of a value, which has been fed up to `read_pos`.
    pub(super) fn new(mut decoder: Decoder, read_pos: u64) -> Self {
        decoder.want(Want::Groups);
        Self {
            decoder,
            read_pos,
            waiting: None,
        }
    }

    /// The value is given in elements: this is the first.
    pub(super) fn begin(&mut self, first: Event) {
        self.waiting = Some(first);
    }

    /// Whether the value's first event waits.
    pub(super) fn has_begun(&self) -> bool {
        self.waiting.is_some()
    }

    /// Looks on.
    pub(super) fn look(
        &mut self,
        feed: &Feed,
        rewriter: &mut SnapshotRewriter,
    ) -> Result<Looked, Failed> {
        let turn_end = self.read_pos + TURN_BYTES;
        loop {
            match self.decoder.poll().map_err(Failed::Damaged)? {
                Poll::Event(event) => rewriter.ahead(&event).map_err(Failed::Refused)?,
                Poll::End => return Ok(self.waiting.take().map_or(Looked::Starved, Looked::Done)),
                Poll::NeedMore if self.read_pos > turn_end => return Ok(Looked::Busy),
                Poll::NeedMore => match feed.read(self.read_pos).map_err(Failed::Spool)? {
                    Some(chunk) => {
                        self.read_pos += chunk.bytes.len() as u64;
                        self.decoder.feed(chunk.bytes);
                    }
                    None => return Ok(Looked::Starved),
                },
            }
        }
    }
}
