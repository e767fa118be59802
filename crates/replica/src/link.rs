//! One connection to a source, from PING to its end.
//!
//! ```text
//! RECEIVE_PING_REPLY -> RECEIVE_AUTH_REPLY? -> RECEIVE_CAPA_REPLY -> RECEIVE_VERSION_REPLY?
//!     -> RECEIVE_PSYNC_REPLY -+- +FULLRESYNC -> TRANSFER -+-> CONNECTED
//!                             +- +CONTINUE ---------------+
//! ```
//!
//! With an RDB channel (see `channel.rs`):
//!
//! ```text
//! first:   .. RECEIVE_PSYNC_REPLY -> AWAIT_RDB_CHANNEL -+- RECEIVE_CHANNEL_REPLY -> RECEIVE_PSYNC_REPLY -+-> CONNECTED
//!                                                       +- JOINED ---------------------------------------+
//! second:  .. RECEIVE_CHANNEL_REPLY -> RECEIVE_VERSION_REPLY? -> RECEIVE_PSYNC_REPLY -> TRANSFER -> DELIVERED
//! ```
//!
//! One command at a time, each reply awaited: PSYNC is refused while another reply is pending.
//! Mirrors `replication.c: syncWithMaster`, `readSyncBulkPayload` and `replicationCron`.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use resp::encode;

use crate::{
    Error, ErrorKind, Options, RdbChannel, ReplId, ReplOffset, SnapshotAt, Start,
    ack::Acks,
    error::quoted,
    event::{Event, Poll},
    input::Input,
    reply::{Asked, shown},
    stream::{Fault, Framer},
    transfer::{Progress, Transfer},
};

/// A connection to a source. See the crate's page for who moves what.
///
/// After an error every call gives that error again or does nothing.
pub struct Link {
    pub(crate) options: Options,
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) input: Input,
    /// Commands of the handshake to send. ACKs are made when they are taken.
    pub(crate) commands: Vec<u8>,
    pub(crate) acks: Acks,
    pub(crate) clock: Clock,
    pub(crate) replid: Option<ReplId>,
    pub(crate) received: ReplOffset,
    /// What the framer begins with if the source continues.
    pub(crate) primed: Bytes,
    /// What an RDB channel was told before its answer to PSYNC.
    pub(crate) snapshot_at: Option<SnapshotAt>,
}

/// What comes on a connection.
pub(crate) enum Role {
    /// The stream, and the snapshot before it unless that has a connection of its own.
    Main,
    /// The snapshot alone.
    Snapshot(RdbChannel),
}

pub(crate) enum State {
    ReceivePingReply,
    ReceiveAuthReply,
    ReceiveCapaReply,
    ReceiveVersionReply,
    /// Of an RDB channel, or of what tells the first connection of it.
    ReceiveChannelReply,
    ReceivePsyncReply,
    /// Nothing comes until the second connection has come as far as its snapshot.
    AwaitRdbChannel,
    /// The stream comes; nobody was told yet.
    Joined,
    Transfer {
        transfer: Transfer,
    },
    Connected {
        framer: Framer,
    },
    /// The snapshot of an RDB channel is given out, and the source closes the connection.
    Delivered,
    Failed {
        error: Error,
    },
}

/// What one step of a state comes to.
pub(crate) enum Step {
    Again,
    NeedMore,
    Event(Event),
}

/// The caller's time. Bytes are fed without one, so they count as heard at the next tick: a caller
/// that was held up between reading and ticking does not take that for the source's silence.
pub(crate) struct Clock {
    pub(crate) now_ms: u64,
    heard_ms: u64,
    pub(crate) heard: bool,
}

impl Link {
    /// A link on a connection just made. The first [`Link::output`] is a PING.
    #[must_use]
    pub fn new(options: Options, start: Start, now_ms: u64) -> Self {
        let acks = Acks::new(options.ack);
        let (replid, received, primed) = match start {
            Start::Full => (None, ReplOffset(0), Bytes::new()),
            Start::Resume {
                replid,
                received,
                partial,
            } => (Some(replid), received, partial),
        };
        let mut link = Self {
            options,
            role: Role::Main,
            state: State::ReceivePingReply,
            input: Input::default(),
            commands: Vec::new(),
            acks,
            clock: Clock {
                now_ms,
                heard_ms: now_ms,
                heard: false,
            },
            replid,
            received,
            primed,
            snapshot_at: None,
        };
        encode::command(&mut link.commands, &[b"PING"]);
        link
    }

    /// Takes what the socket gave.
    pub fn feed(&mut self, bytes: Bytes) {
        if !matches!(self.state, State::Failed { .. }) {
            self.clock.heard |= !bytes.is_empty();
            self.input.push(bytes);
        }
    }

    /// The next event out of what was fed.
    pub fn poll(&mut self) -> Result<Poll, Error> {
        loop {
            let step = match &mut self.state {
                State::Failed { error } => return Err(error.clone()),
                State::ReceivePingReply => self.reply(Asked::Ping),
                State::ReceiveAuthReply => self.reply(Asked::Auth),
                State::ReceiveCapaReply => self.reply(Asked::Capa),
                State::ReceiveVersionReply => self.reply(Asked::Version),
                State::ReceiveChannelReply => self.reply(Asked::Channel),
                State::ReceivePsyncReply => self.reply(Asked::Psync),
                State::AwaitRdbChannel | State::Delivered => Ok(Step::NeedMore),
                State::Joined => self.joined(),
                State::Transfer { .. } => self.transfer(),
                State::Connected { .. } => self.connected(),
            };
            match step {
                Ok(Step::Again) => {}
                Ok(Step::NeedMore) => return Ok(Poll::NeedMore),
                Ok(Step::Event(event)) => return Ok(Poll::Event(event)),
                Err(kind) => return Err(self.fail(kind)),
            }
        }
    }

    /// The socket ended: the error for that. Poll until [`Poll::NeedMore`] first, there may be
    /// events left, and a better error.
    pub fn eof(&mut self) -> Error {
        let kind = self
            .input
            .junk_at_end()
            .unwrap_or_else(|| ErrorKind::Closed {
                waited_for: self.waits_for().0,
                unfinished: shown(self.input.unfinished(), &self.options),
            });
        self.fail(kind)
    }

    /// Tells the time, a few times a second; read and feed what there is before. An error means the
    /// source was silent for too long.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), Error> {
        if let State::Failed { error } = &self.state {
            return Err(error.clone());
        }
        self.clock.now_ms = now_ms;
        if std::mem::take(&mut self.clock.heard) {
            self.clock.heard_ms = now_ms;
        }
        self.acks.tick(now_ms);
        let (waited_for, limit_ms) = self.waits_for();
        let silent_ms = now_ms.saturating_sub(self.clock.heard_ms);
        if silent_ms < limit_ms {
            return Ok(());
        }
        let timeout = ErrorKind::Timeout {
            waited_for,
            silent_ms,
        };
        let kind = self.input.junk_at_end().unwrap_or(timeout);
        Err(self.fail(kind))
    }

    /// Tells what the target confirmed. An offset beyond [`Link::received`] is of another history,
    /// one a full resync has just ended, and is passed over.
    pub fn applied(&mut self, offset: ReplOffset) {
        if offset <= self.received {
            self.acks.applied(offset);
        }
    }

    /// Bytes to write to the socket.
    pub fn output(&mut self) -> Option<Bytes> {
        if matches!(self.state, State::Failed { .. }) {
            return None;
        }
        let mut out = std::mem::take(&mut self.commands);
        if let Some(offset) = self.acks.take() {
            let offset = offset.to_string();
            encode::command(&mut out, &[b"REPLCONF", b"ACK", offset.as_bytes()]);
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// The state in Redis's words, for logs.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.state {
            State::ReceivePingReply => "RECEIVE_PING_REPLY",
            State::ReceiveAuthReply => "RECEIVE_AUTH_REPLY",
            State::ReceiveCapaReply => "RECEIVE_CAPA_REPLY",
            State::ReceiveVersionReply => "RECEIVE_VERSION_REPLY",
            State::ReceiveChannelReply => "RECEIVE_CHANNEL_REPLY",
            State::ReceivePsyncReply => "RECEIVE_PSYNC_REPLY",
            State::AwaitRdbChannel => "AWAIT_RDB_CHANNEL",
            State::Joined => "JOINED",
            State::Transfer { .. } => "TRANSFER",
            State::Connected { .. } => "CONNECTED",
            State::Delivered => "DELIVERED",
            State::Failed { error } => error.state,
        }
    }

    /// The offset of the last stream byte given out; before the source answered, where we asked
    /// from.
    #[must_use]
    pub fn received(&self) -> ReplOffset {
        self.received
    }

    /// The history of [`Link::received`].
    #[must_use]
    pub fn replid(&self) -> Option<ReplId> {
        self.replid
    }

    /// The stream bytes given out after the last whole command, or, if they are many, others that leave as much of
    /// it to come: what the next link's [`Start::Resume`] wants as `partial`.
    #[must_use]
    pub fn partial(&self) -> Cow<'_, [u8]> {
        match &self.state {
            State::Connected { framer } => framer.partial(),
            State::ReceivePingReply
            | State::ReceiveAuthReply
            | State::ReceiveCapaReply
            | State::ReceiveVersionReply
            | State::ReceiveChannelReply
            | State::ReceivePsyncReply
            | State::AwaitRdbChannel
            | State::Joined
            | State::Transfer { .. }
            | State::Delivered
            | State::Failed { .. } => Cow::Borrowed(&self.primed),
        }
    }

    /// What should come now, and how long the source may take.
    /// Whether what comes next, or should have come, is an answer to REPLCONF or PSYNC.
    #[must_use]
    pub fn waits_for_psync(&self) -> bool {
        matches!(
            self.state,
            State::ReceiveCapaReply | State::ReceiveVersionReply | State::ReceivePsyncReply
        )
    }

    fn waits_for(&self) -> (&'static str, u64) {
        let timeouts = &self.options.timeouts;
        match &self.state {
            State::ReceivePingReply => ("the reply to PING", timeouts.reply_ms),
            State::ReceiveAuthReply => ("the reply to AUTH", timeouts.reply_ms),
            State::ReceiveCapaReply => ("the reply to REPLCONF capa", timeouts.reply_ms),
            State::ReceiveVersionReply => ("the reply to REPLCONF version", timeouts.reply_ms),
            State::ReceiveChannelReply => ("the reply to REPLCONF", timeouts.reply_ms),
            State::ReceivePsyncReply => ("the reply to PSYNC", timeouts.bgsave_ms),
            // The second connection hears whether the source is there.
            State::AwaitRdbChannel => ("the RDB channel", u64::MAX),
            State::Transfer { transfer } if transfer.has_begun() => {
                ("the end of the snapshot", timeouts.snapshot_ms)
            }
            State::Transfer { .. } => ("the snapshot's header", timeouts.bgsave_ms),
            State::Joined | State::Connected { .. } => ("more of the stream", timeouts.stream_ms),
            State::Delivered | State::Failed { .. } => ("nothing", u64::MAX),
        }
    }

    fn fail(&mut self, kind: ErrorKind) -> Error {
        if let State::Failed { error } = &self.state {
            return error.clone();
        }
        let error = Error {
            state: self.state(),
            kind,
        };
        self.primed = Bytes::copy_from_slice(&self.partial());
        self.input.clear();
        self.state = State::Failed {
            error: error.clone(),
        };
        error
    }

    fn transfer(&mut self) -> Result<Step, ErrorKind> {
        let State::Transfer { transfer } = &mut self.state else {
            return Ok(Step::Again);
        };
        Ok(Step::Event(match transfer.next(&mut self.input)? {
            Progress::NeedMore => return Ok(Step::NeedMore),
            Progress::Failed(error) => {
                let reply = shown(&error.text, &self.options);
                return Err(ErrorKind::SnapshotFailed { reply });
            }
            Progress::Begin { len } => {
                if matches!(self.role, Role::Main) {
                    self.acks.begin(self.clock.now_ms);
                }
                Event::SnapshotStart { len }
            }
            Progress::Part(bytes) => Event::Snapshot(bytes),
            Progress::End { bytes } if matches!(self.role, Role::Snapshot(_)) => {
                self.state = State::Delivered;
                Event::SnapshotEnd { bytes }
            }
            Progress::End { bytes } => {
                // In the `$EOF` form the stream begins after an ACK. The source may not heed this
                // one, if it has not noticed its child's end yet, but then the next.
                self.acks.send_now();
                self.state = State::Connected {
                    framer: Framer::new(),
                };
                Event::SnapshotEnd { bytes }
            }
        }))
    }

    fn connected(&mut self) -> Result<Step, ErrorKind> {
        let State::Connected { framer } = &mut self.state else {
            return Ok(Step::Again);
        };
        let Some(mut chunk) = self.input.chunk() else {
            return Ok(Step::NeedMore);
        };
        let base = self.received;
        let acks = &mut self.acks;
        let scan = framer
            .scan(&chunk, base, |end| acks.asked(end))
            .map_err(|fault| stream_error(base, fault))?;
        let bytes = chunk.split_to(scan.stream);
        drop(chunk.split_to(scan.newlines));
        self.input.put_back(chunk);
        if bytes.is_empty() {
            return Ok(Step::Again);
        }
        self.received = base.after(bytes.len());
        Ok(Step::Event(Event::Stream {
            bytes,
            end: self.received,
        }))
    }
}

/// `base` is the offset before the chunk that the fault was found in.
pub(crate) fn stream_error(base: ReplOffset, fault: Fault) -> ErrorKind {
    let begin = base.0.saturating_sub(fault.before);
    ErrorKind::Stream {
        at: ReplOffset(begin.saturating_add(fault.at).saturating_add(1)),
        got: quoted(&fault.got, usize::MAX),
        fault: fault.kind,
    }
}

impl fmt::Debug for Link {
    /// Without the commands to send: AUTH may be among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("state", &self.state())
            .field("replid", &self.replid)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
