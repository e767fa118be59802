//! A second look at a value. The pending messages of a stream stand behind all messages in the file, and have to be known
//! before the first one is written ([`SnapshotRewriter::ahead`]). How long a table is has to be known before it goes as one
//! RESTORE ([`SnapshotRewriter::pieces`]).
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
    state: State,
}

/// What is looked for.
#[derive(Debug)]
enum State {
    /// Nothing as long as it is not known whether the value is given in elements.
    Idle,
    /// What the rewriter has to know; the value's first event waits.
    Waiting(Event),
    /// Where the value ends, if not further away than this.
    Measuring { end_max: u64 },
}

/// How far a look ahead is.
#[derive(Debug)]
pub(super) enum Looked {
    /// To the end of the value, whose first event this is.
    Done(Event),
    /// The value ends there, counted from where the file begins; `None`: too far away.
    Measured(Option<u64>),
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
            state: State::Idle,
        }
    }

    /// As [`Self::new`], to find out where the value ends, if it has so many bytes at most.
    pub(super) fn measuring(mut decoder: Decoder, read_pos: u64, bytes_max: u64) -> Self {
        decoder.want(Want::Skip);
        Self {
            state: State::Measuring {
                end_max: decoder.offset().saturating_add(bytes_max),
            },
            decoder,
            read_pos,
        }
    }

    /// The value is given in elements: this is the first.
    pub(super) fn begin(&mut self, first: Event) {
        self.state = State::Waiting(first);
    }

    /// Whether nothing of the value can be given before the end of the look.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Looks on.
    pub(super) fn look(
        &mut self,
        feed: &Feed,
        rewriter: &mut SnapshotRewriter,
    ) -> Result<Looked, Failed> {
        let turn_end = self.read_pos + TURN_BYTES;
        loop {
            let polled = self.decoder.poll().map_err(Failed::Damaged)?;
            if let State::Measuring { end_max } = self.state
                && self.decoder.offset() > end_max
            {
                self.state = State::Idle;
                return Ok(Looked::Measured(None));
            }
            match polled {
                Poll::Event(event) => rewriter.ahead(&event).map_err(Failed::Refused)?,
                Poll::End => {
                    return Ok(match std::mem::replace(&mut self.state, State::Idle) {
                        State::Waiting(first) => Looked::Done(first),
                        State::Measuring { .. } => Looked::Measured(Some(self.decoder.offset())),
                        State::Idle => Looked::Starved,
                    });
                }
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
