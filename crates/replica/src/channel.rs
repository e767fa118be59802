//! A snapshot on a connection of its own: Valkey's dual-channel replication and Redis's RDB channel,
//! both from 8.0 on.
//!
//! On one connection the source keeps in its own memory what is written while it sends the snapshot.
//! With two, the stream comes at once, and the replica keeps it:
//!
//! ```text
//! first connection                                    second connection
//! REPLCONF capa .. capa dual-channel
//!          capa rdb-channel-repl
//! PSYNC ? -1      +DUALCHANNELSYNC                                                             (Valkey)
//!                 +RDBCHANNELSYNC <this one's id>                                              (Redis)
//!                                                     REPLCONF capa eof rdb-only 1 rdb-channel 1
//!                                                              [main-ch-client-id <first's id>]   +OK
//!                                                     PSYNC ? -1   \\n*
//!                                                                  $ENDOFF:<offset> <replid> <db> <this one's id>  (Valkey)
//!                                                                  +FULLRESYNC <replid> <offset>
//! REPLCONF set-rdb-client-id <second's id>   +OK                                               (Valkey)
//! PSYNC <replid> <offset + 1>                +CONTINUE <replid>                                (Valkey)
//! stream from <offset> on                                          $EOF:<40 bytes> <bytes> <the same 40 bytes>
//! REPLCONF ACK .. from the snapshot's end on                        the source closes it
//! ```
//!
//! As servers are (tried on Valkey 8.1 and 9.1, Redis 8.0 and 8.10):
//!
//! - Both want `repl-diskless-sync yes` and their own setting (`dual-channel-replication-enabled`,
//!   `repl-rdb-channel`); without them they answer `+FULLRESYNC` as ever, whatever was offered.
//! - The first connection needs no `capa eof`; the second does, and it is the second's `REPLCONF
//!   version` that a snapshot of Valkey goes by.
//! - Without `rdb-only 1` Redis counts the second connection as one that the stream is kept for, and
//!   its memory grows as ever.
//! - Valkey takes SYNC on the second connection as well; PSYNC needs no other right, and may have
//!   another name.
//! - An ACK on the first connection shows us as online before the snapshot is there. Without one
//!   neither drops us meanwhile, however short `repl-timeout` is; both do after the snapshot's end.
//! - If the second connection breaks, Redis closes the first; Valkey goes on with it. If the first
//!   breaks, both go on with the second.
//! - A second connection whose first never joins is kept by Valkey up to a minute after the snapshot.
//! - The stream begins with a SELECT; the snapshot's `repl-stream-db` says the same as `<db>`, which is
//!   -1 where the source has selected none.

use resp::encode;

use crate::{
    ErrorKind, Event, Link, Options, ReplId, ReplOffset, Start,
    error::quoted,
    link::{Role, State, Step},
    reply::number,
    stream::Framer,
};

/// What the source says of the second connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RdbChannel {
    /// Valkey's: the second connection is told its id, which the first one passes on.
    DualChannel,
    /// Redis's: the second connection says the id of the first.
    RdbChannel {
        /// The first connection's id.
        client_id: u64,
    },
}

impl RdbChannel {
    /// Reads the words of the reply to PSYNC.
    pub(crate) fn parse(word: &[u8], id: Option<&[u8]>) -> Option<Self> {
        match (word, id) {
            (b"DUALCHANNELSYNC", _) => Some(Self::DualChannel),
            (b"RDBCHANNELSYNC", Some(id)) => {
                number(id).map(|client_id| Self::RdbChannel { client_id })
            }
            _ => None,
        }
    }

    /// What this is called at the server that has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DualChannel => "dual-channel",
            Self::RdbChannel { .. } => "rdb-channel",
        }
    }
}

/// Where the snapshot of an RDB channel was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotAt {
    /// The history.
    pub replid: ReplId,
    /// The offset the snapshot stands for.
    pub offset: ReplOffset,
    /// The id of its connection, where the first one has to pass it on.
    pub client_id: Option<u64>,
}

impl SnapshotAt {
    /// Reads what follows `$` in `$ENDOFF:<offset> <replid> <db> <id>`.
    fn parse(header: &[u8]) -> Option<Self> {
        let mut words = header.strip_prefix(b"ENDOFF:")?.split(|byte| *byte == b' ');
        let offset = number(words.next()?)?;
        let replid = ReplId::from_bytes(words.next()?)?;
        let _db = words.next()?;
        let client_id = number(words.next()?)?;
        Some(Self {
            replid,
            offset: ReplOffset(offset),
            client_id: Some(client_id),
        })
    }
}

impl Link {
    /// The link of the second connection. It gives [`Event::SnapshotAt`], the snapshot, and no more.
    #[must_use]
    pub fn on_rdb_channel(options: Options, channel: RdbChannel, now_ms: u64) -> Self {
        let mut link = Self::new(options, Start::Full, now_ms);
        link.role = Role::Snapshot(channel);
        link
    }

    /// The second connection has come as far as its snapshot: the stream is asked for from there on.
    /// An [`Event::Continue`] says that it comes. No ACK is sent before [`Link::snapshot_is_in`].
    pub fn join(&mut self, at: &SnapshotAt) {
        if !matches!(self.state, State::AwaitRdbChannel) {
            return;
        }
        self.replid = Some(at.replid);
        self.received = at.offset;
        self.acks.forget_applied();
        self.acks.hold();
        // It had nothing to say meanwhile.
        self.clock.heard = true;
        self.state = match at.client_id {
            Some(id) => {
                let id = id.to_string();
                let argv: [&[u8]; 3] = [b"REPLCONF", b"set-rdb-client-id", id.as_bytes()];
                encode::command(&mut self.commands, &argv);
                State::ReceiveChannelReply
            }
            None => State::Joined,
        };
    }

    /// The snapshot of the second connection has come to its end: from here on we ACK.
    pub fn snapshot_is_in(&mut self) {
        self.acks.let_go();
        self.acks.begin(self.clock.now_ms);
        self.acks.send_now();
    }

    /// Redis's stream comes without another word.
    pub(crate) fn joined(&mut self) -> Result<Step, ErrorKind> {
        let Some(replid) = self.replid else {
            return Ok(Step::NeedMore);
        };
        self.state = State::Connected {
            framer: Framer::new(),
        };
        Ok(Step::Event(Event::Continue {
            replid,
            changed: false,
        }))
    }

    /// What a second connection says for the source to know it.
    pub(crate) fn send_channel(&mut self, channel: RdbChannel) {
        let mut argv: Vec<&[u8]> = vec![
            b"REPLCONF",
            b"capa",
            b"eof",
            b"rdb-only",
            b"1",
            b"rdb-channel",
            b"1",
        ];
        let id;
        if let RdbChannel::RdbChannel { client_id } = channel {
            id = client_id.to_string();
            argv.extend([&b"main-ch-client-id"[..], id.as_bytes()]);
        }
        encode::command(&mut self.commands, &argv);
        self.state = State::ReceiveChannelReply;
    }

    /// Takes Valkey's `$ENDOFF`, which comes before its answer to PSYNC.
    pub(crate) fn take_end_offset(&mut self, header: &[u8]) -> Result<Step, ErrorKind> {
        let at = SnapshotAt::parse(header)
            .filter(|_| matches!(self.role, Role::Snapshot(RdbChannel::DualChannel)));
        if at.is_none() {
            let (expected, dollar) = ("a status or an error", [b"$", header].concat());
            let got = quoted(&dollar, 64);
            return Err(ErrorKind::Protocol { expected, got });
        }
        self.snapshot_at = at;
        Ok(Step::Again)
    }

    /// Where the snapshot was taken that follows here.
    pub(crate) fn snapshot_at(
        &self,
        channel: RdbChannel,
        replid: ReplId,
        offset: ReplOffset,
    ) -> Result<SnapshotAt, ErrorKind> {
        let found = SnapshotAt {
            replid,
            offset,
            client_id: self.snapshot_at.and_then(|at| at.client_id),
        };
        match channel {
            RdbChannel::DualChannel if self.snapshot_at != Some(found) => {
                let expected = "$ENDOFF and +FULLRESYNC at one offset";
                let got = format!("{:?}, then +FULLRESYNC {replid} {offset}", self.snapshot_at);
                Err(ErrorKind::Protocol { expected, got })
            }
            RdbChannel::DualChannel | RdbChannel::RdbChannel { .. } => Ok(found),
        }
    }
}
