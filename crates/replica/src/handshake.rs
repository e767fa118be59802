//! A link's handshake: from PING's reply to PSYNC's.

use bytes::Bytes;
use resp::encode;

use crate::{
    ErrorKind,
    error::quoted,
    event::Event,
    input::Line,
    link::{Link, Role, State, Step, stream_error},
    reply::{Asked, Psync, refusal},
    stream::Framer,
    transfer::Transfer,
};

impl Link {
    /// Takes the reply to what was asked last, and asks the next.
    pub(crate) fn reply(&mut self, asked: Asked) -> Result<Step, ErrorKind> {
        let status = match self.input.line()? {
            None => return Ok(Step::NeedMore),
            Some(Line::Status(status)) => status,
            Some(Line::Error(error)) => match refusal(asked, &error, &self.options) {
                Some(kind) => return Err(kind),
                None => Vec::new(),
            },
            // A server that was told to rename PSYNC looks at the name that it is called by, and takes any other one for SYNC.
            Some(Line::Header(header))
                if matches!((asked, &self.role), (Asked::Psync, Role::Main)) =>
            {
                let got = quoted(&[b"$", &*header].concat(), 16);
                let reply = format!("it answers as to SYNC ({got}), which tells no offset");
                return Err(ErrorKind::PsyncRefused { reply });
            }
            Some(Line::Header(header)) if matches!(asked, Asked::Psync) => {
                return self.take_end_offset(&header);
            }
            Some(Line::Header(header)) => {
                let got = quoted(&[b"$", &*header].concat(), 64);
                return Err(ErrorKind::Protocol {
                    expected: "a status or an error",
                    got,
                });
            }
        };
        match asked {
            Asked::Ping if self.options.password.is_some() => self.send_auth(),
            Asked::Ping | Asked::Auth => match self.role {
                Role::Main => self.send_capa(),
                Role::Snapshot(channel) => self.send_channel(channel),
            },
            // The one of the first connection is not the last: it has said its version already.
            Asked::Channel if matches!(self.role, Role::Main) => self.send_psync(),
            Asked::Capa | Asked::Channel if self.options.version.is_some() => self.send_version(),
            Asked::Capa | Asked::Channel | Asked::Version => self.send_psync(),
            Asked::Psync => {
                let offered = self.offers_rdb_channel();
                return self.psync_reply(Psync::parse(&status, offered)?);
            }
        }
        Ok(Step::Again)
    }

    fn send_auth(&mut self) {
        let username = self.options.username.iter();
        let argv: Vec<&[u8]> = std::iter::once("AUTH")
            .chain(username.chain(&self.options.password).map(String::as_str))
            .map(str::as_bytes)
            .collect();
        encode::command(&mut self.commands, &argv);
        self.state = State::ReceiveAuthReply;
    }

    fn send_capa(&mut self) {
        let mut argv: Vec<&[u8]> = vec![b"REPLCONF"];
        if self.options.capa_eof {
            argv.extend([&b"capa"[..], b"eof"]);
        }
        argv.extend([&b"capa"[..], b"psync2"]);
        if self.offers_rdb_channel() {
            argv.extend([&b"capa"[..], b"dual-channel", b"capa", b"rdb-channel-repl"]);
        }
        encode::command(&mut self.commands, &argv);
        self.state = State::ReceiveCapaReply;
    }

    /// Whether this connection asks for a snapshot, and may be told to fetch it on another one.
    fn offers_rdb_channel(&self) -> bool {
        self.options.rdb_channel && self.replid.is_none() && matches!(self.role, Role::Main)
    }

    fn send_version(&mut self) {
        let version = self.options.version.as_deref().unwrap_or_default();
        encode::command(
            &mut self.commands,
            &[b"REPLCONF", b"version", version.as_bytes()],
        );
        self.state = State::ReceiveVersionReply;
    }

    /// Always three words: with a fourth, `FAILOVER`, the source would hand over its role.
    fn send_psync(&mut self) {
        let (replid, offset) = match &self.replid {
            Some(replid) => (
                replid.to_string(),
                self.received.0.saturating_add(1).to_string(),
            ),
            None => ("?".to_owned(), "-1".to_owned()),
        };
        let argv = [
            self.options.psync_command.as_bytes(),
            replid.as_bytes(),
            offset.as_bytes(),
        ];
        encode::command(&mut self.commands, &argv);
        self.state = State::ReceivePsyncReply;
    }

    fn psync_reply(&mut self, reply: Psync) -> Result<Step, ErrorKind> {
        match reply {
            Psync::RdbChannel(channel) => {
                self.state = State::AwaitRdbChannel;
                Ok(Step::Event(Event::RdbChannel(channel)))
            }
            Psync::FullResync { replid, offset } => {
                let event = match self.role {
                    Role::Main => Event::FullResync { replid, offset },
                    Role::Snapshot(channel) => {
                        Event::SnapshotAt(self.snapshot_at(channel, replid, offset)?)
                    }
                };
                self.replid = Some(replid);
                self.received = offset;
                self.primed = Bytes::new();
                self.acks.forget_applied();
                self.state = State::Transfer {
                    transfer: Transfer::new(),
                };
                Ok(Step::Event(event))
            }
            Psync::Continue { replid } => {
                let Some(asked) = self.replid else {
                    let expected = "+FULLRESYNC, as we asked for no offset";
                    return Err(ErrorKind::Protocol {
                        expected,
                        got: "+CONTINUE".to_owned(),
                    });
                };
                let replid = replid.unwrap_or(asked);
                let framer = Framer::primed(&self.primed)
                    .map_err(|(fault, left)| stream_error(self.received.before(left), fault))?;
                self.replid = Some(replid);
                self.acks.begin(self.clock.now_ms);
                self.acks.send_now();
                self.state = State::Connected { framer };
                Ok(Step::Event(Event::Continue {
                    replid,
                    changed: replid != asked,
                }))
            }
        }
    }
}
