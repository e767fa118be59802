//! The way of a snapshot's commands to the target: in transactions, one in flight.
//!
//! ```text
//! [SELECT db]  <commands>  [SELECT 0]  SET checkpoint <progress>  EXEC  WATCH checkpoint  GET checkpoint  MULTI
//! ```
//! The watch keeps a late or a replaced writer out, as in the stream (see [`super::unit`]). While a unit is on its way
//! the next one is collected; with none on its way, what is collected goes out at once and only its end waits, so that
//! a command of any size passes. The progress that a unit writes is that of the unit before it, whose replies were
//! looked at: a run that goes on from there repeats one unit at most, which does no harm.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use resp::{ErrorReply, Limits, ReplyKind, ReplyScanner};
use rewrite::{Db, Expect, Method, Sent};

use super::sets::Sets;
use super::unit::{guard, seal};

/// A unit on a near target: some hundred small keys, which keep it busy for most of a millisecond. In four times as much the
/// words of the commands no longer wait for EXEC in a processor's cache, which costs the target some 5 %.
const UNIT_BYTES: usize = 64 << 10;
/// What goes to a cluster at once.
const CLUSTER_BYTES: usize = 1 << 20;
/// What a target takes in a second, at most: a unit outlasts the way there and back.
const BYTES_PER_SECOND: f64 = 4e8;

/// A unit, open or on its way.
#[derive(Debug)]
struct Batch {
    /// What is to be written; a part of it may be.
    out: Vec<u8>,
    written: usize,
    /// Bytes that were written and thrown away: nothing is sent twice over one connection.
    given: usize,
    commands: usize,
    /// Each command, and how many keys it is for.
    sent: VecDeque<(Sent, u32)>,
    /// Set when it is sealed: what GET has to answer, and which byte of the RDB it reaches.
    sealed: Option<(Vec<u8>, u64)>,
    stage: Stage,
    refused: Option<(Option<Sent>, ErrorReply)>,
    outcome: Option<Outcome>,
    /// Watched, and as this unit wrote it.
    is_ours: bool,
}

/// Which reply comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many commands were queued.
    Queued(usize),
    /// So many replies of EXEC are still to come.
    Inside(usize),
    Watch,
    Guard,
    Multi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Fenced,
    Aborted,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To one command for so many keys (the first is named), which has been carried out.
    Command {
        sent: Sent,
        keys: u32,
        kind: ReplyKind,
    },
    /// The unit is done, and with it everything before this byte of the RDB.
    Done { rdb_bytes: u64 },
    /// The unit was refused as a whole, for the sake of one command where that is known.
    Aborted {
        sent: Option<Sent>,
        error: ErrorReply,
    },
    /// The checkpoint was changed by somebody else.
    Fenced,
    /// Something that no server should say.
    Nonsense(String),
}

/// The units of one connection.
#[derive(Debug)]
pub(crate) struct Lane {
    key: Vec<u8>,
    unit_bytes: usize,
    open: Batch,
    flight: Option<Batch>,
    /// Plain SETs that follow what is open, and the first of them.
    sets: Sets,
    first: Option<Sent>,
    /// What the rewriter writes while SETs wait.
    scratch: Vec<u8>,
    /// Where in the open unit's bytes its next commands begin.
    body_at: usize,
    /// Database that the rewriter is in.
    db: Db,
    scanner: ReplyScanner,
    spare: Vec<u8>,
    /// SETs that follow one another go together: not to a cluster, where they are of several slots.
    merges: bool,
    /// The open unit ends in a command that is not complete: it grows until it is.
    is_stretched: bool,
}

impl Batch {
    fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            out: buffer,
            written: 0,
            given: 0,
            commands: 0,
            sent: VecDeque::new(),
            sealed: None,
            stage: Stage::Queued(0),
            is_ours: true,
            refused: None,
            outcome: None,
        }
    }

    fn bytes(&self) -> usize {
        self.given + self.out.len()
    }

    fn select(&mut self, db: Db) {
        resp::encode::command(&mut self.out, &[b"SELECT", db.0.to_string().as_bytes()]);
        self.note(Sent {
            key: Bytes::new(),
            db,
            kind: rdb::Kind::String,
            method: Method::Select,
            expect: Expect::Ok,
            last_of_key: false,
        });
    }

    fn note(&mut self, sent: Sent) {
        self.note_many(sent, 1);
    }

    fn note_many(&mut self, first: Sent, keys: u32) {
        self.sent.push_back((first, keys));
        self.commands += 1;
    }

    /// The command at a place of the queue, while all are still there.
    fn command(&self, index: usize) -> Option<Sent> {
        self.sent.get(index).map(|(sent, _)| sent.clone())
    }

    /// The next reply; `None` if it is not complete.
    fn reply(&mut self, scanner: &mut ReplyScanner, replies: &mut BytesMut) -> Option<Reply> {
        loop {
            if self.stage == Stage::Queued(self.commands + 1)
                && self.sealed.is_some()
                && let Some((items, len)) = array_head(replies)
            {
                replies.advance(len);
                if items != self.commands + 1 {
                    return Some(Reply::Nonsense(format!("EXEC answered {items} replies")));
                }
                self.stage = Stage::Inside(items);
                continue;
            }
            let summary = match scanner.poll(replies) {
                Ok(summary) => summary?,
                Err(error) => return Some(Reply::Nonsense(format!("it is not RESP: {error}"))),
            };
            let bytes = replies.split_to(summary.len);
            if let Some(reply) = self.take(summary.kind, &bytes) {
                return Some(reply);
            }
        }
    }

    fn take(&mut self, kind: ReplyKind, bytes: &[u8]) -> Option<Reply> {
        match (self.stage, kind) {
            // The checkpoint's SET is one command more than were noted.
            (Stage::Queued(seen), kind) if seen <= self.commands => {
                if let ReplyKind::Error(error) = kind {
                    let sent = self.command(seen);
                    self.refused.get_or_insert((sent, error));
                }
                self.stage = Stage::Queued(seen + 1);
            }
            (Stage::Queued(_), kind) => {
                self.outcome = Some(match kind {
                    ReplyKind::Null => Outcome::Fenced,
                    ReplyKind::Error(error) => {
                        self.refused.get_or_insert((None, error));
                        Outcome::Aborted
                    }
                    other => return Some(Reply::Nonsense(format!("EXEC: {other:?}"))),
                });
                self.stage = Stage::Watch;
            }
            (Stage::Inside(left), kind) => {
                self.stage = Stage::Inside(left - 1);
                if left > 1 {
                    let (sent, keys) = self.sent.pop_front()?;
                    return Some(Reply::Command { sent, keys, kind });
                }
                self.outcome = Some(Outcome::Done);
                self.stage = Stage::Watch;
            }
            (Stage::Watch, kind) => {
                self.is_ours = kind == ReplyKind::Simple;
                self.stage = Stage::Guard;
            }
            (Stage::Guard, _) => {
                self.is_ours &= self
                    .sealed
                    .as_ref()
                    .is_some_and(|(guard, _)| bytes == guard.as_slice());
                self.stage = Stage::Multi;
            }
            (Stage::Multi, kind) => {
                self.is_ours &= kind == ReplyKind::Simple;
                return Some(self.end());
            }
        }
        None
    }

    /// The last reply of a unit is in.
    fn end(&mut self) -> Reply {
        match (self.outcome, self.refused.take(), &self.sealed) {
            (Some(Outcome::Aborted), Some((sent, error)), _) => Reply::Aborted { sent, error },
            (Some(Outcome::Done), _, Some((_, rdb_bytes))) if self.is_ours => Reply::Done {
                rdb_bytes: *rdb_bytes,
            },
            _ => Reply::Fenced,
        }
    }
}

impl Lane {
    /// Units for the checkpoint `key`, of a size that suits the way to the target and `bytes_max`.
    pub(crate) fn new(key: Vec<u8>, round_trip: Duration, bytes_max: usize) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size that is clamped next"
        )]
        let wanted = (round_trip.as_secs_f64() * BYTES_PER_SECOND) as usize;
        Self {
            key,
            unit_bytes: wanted.max(UNIT_BYTES).min(bytes_max),
            open: Batch::new(Vec::new()),
            flight: None,
            sets: Sets::default(),
            first: None,
            scratch: Vec::new(),
            body_at: 0,
            db: Db(0),
            scanner: ReplyScanner::new(Limits::default()),
            spare: Vec::new(),
            merges: true,
            is_stretched: false,
        }
    }

    /// One that only collects: what goes to a cluster is put into its slots' transactions elsewhere.
    pub(crate) fn for_cluster(bytes_max: usize) -> Self {
        let mut lane = Self::new(Vec::new(), Duration::ZERO, bytes_max);
        lane.unit_bytes = CLUSTER_BYTES.min(bytes_max);
        lane.merges = false;
        lane
    }

    /// Whether SETs that follow one another go together.
    pub(crate) fn merges(&self) -> bool {
        self.merges
    }

    /// What is open ends in a command that has to be completed before it is taken.
    pub(crate) fn stretch(&mut self) {
        self.is_stretched = true;
    }

    /// Takes what is open: the commands, and what each is.
    pub(crate) fn take_open(&mut self) -> (Vec<u8>, Vec<(Sent, u32)>) {
        let batch = std::mem::replace(&mut self.open, Batch::new(Vec::new()));
        self.is_stretched = false;
        (batch.out, batch.sent.into())
    }

    /// Whether more commands may be collected.
    pub(crate) fn has_room(&self) -> bool {
        match &self.flight {
            Some(_) => self.open.out.len() < self.unit_bytes,
            None => self.open.out.len() - self.open.written < self.unit_bytes || self.is_stretched,
        }
    }

    /// Whether the open unit is as long as it should be.
    pub(crate) fn is_full(&self) -> bool {
        self.open.bytes() >= self.unit_bytes
    }

    /// Whether nothing is open or on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.flight.is_none() && self.is_empty()
    }

    /// Whether nothing is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.commands == 0 && self.open.bytes() == 0 && self.sets.is_empty()
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Space for the next commands.
    pub(crate) fn body(&mut self) -> &mut Vec<u8> {
        if !self.sets.is_empty() {
            return &mut self.scratch;
        }
        if self.is_empty() {
            self.begin();
        }
        self.body_at = self.open.out.len();
        &mut self.open.out
    }

    /// A unit begins in database 0, the rewriter's commands in its own.
    fn begin(&mut self) {
        if self.db != Db(0) {
            self.open.select(self.db);
        }
    }

    /// These commands were written to the body. A plain SET joins those before it.
    pub(crate) fn added(&mut self, sent: &mut Vec<Sent>) {
        let waits = !self.sets.is_empty();
        let body = if waits {
            self.scratch.as_slice()
        } else {
            self.open.out.get(self.body_at..).unwrap_or_default()
        };
        let pair = match sent.as_slice() {
            [one]
                if self.merges
                    && one.method == Method::Set
                    && one.expect == Expect::Ok
                    && one.last_of_key =>
            {
                Sets::pair(body).filter(|pair| self.sets.has_room(pair))
            }
            _ => None,
        };
        if let Some(pair) = pair {
            self.sets.push(pair);
            let one = sent.pop();
            self.first = self.first.take().or(one);
            if waits {
                self.scratch.clear();
            } else {
                self.open.out.truncate(self.body_at);
            }
            return;
        }
        if waits {
            self.write_sets();
            self.open.out.append(&mut self.scratch);
        }
        for sent in sent.drain(..) {
            if sent.method == Method::Select {
                self.db = sent.db;
            }
            self.open.note(sent);
        }
    }

    /// A plain SET of `key` joins those before it, if `write` appends its key and value, of about so many bytes, as they
    /// stand in a command; `write` says whether it did. The rewriter is in its database.
    pub(crate) fn add_pair(
        &mut self,
        db: Db,
        key: &[u8],
        bytes: usize,
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) {
        if !self.sets.has_room_for(bytes) {
            self.write_sets();
        }
        let is_first_of_unit = self.is_empty();
        if !self.sets.push_by(write) {
            return;
        }
        if is_first_of_unit {
            self.begin();
        }
        if self.first.is_none() {
            self.first = Some(Sent {
                key: Bytes::copy_from_slice(key),
                db,
                kind: rdb::Kind::String,
                method: Method::Set,
                expect: Expect::Ok,
                last_of_key: true,
            });
        }
    }

    /// Writes the SETs that wait.
    fn write_sets(&mut self) {
        let keys = self.sets.count();
        if let Some(first) = self.first.take() {
            self.sets.write(&mut self.open.out);
            self.open.note_many(first, keys);
        }
    }

    /// Ends the open unit, which reaches byte `rdb_bytes` of the RDB; it goes on its way.
    pub(crate) fn seal(&mut self, checkpoint: &str, rdb_bytes: u64) {
        self.write_sets();
        let next = Batch::new(std::mem::take(&mut self.spare));
        let mut batch = std::mem::replace(&mut self.open, next);
        if self.db != Db(0) {
            batch.select(Db(0));
        }
        seal(&mut batch.out, &self.key, checkpoint.as_bytes());
        batch.sealed = Some((guard(checkpoint.as_bytes()), rdb_bytes));
        self.flight = Some(batch);
    }

    /// What may be written now.
    pub(crate) fn to_write(&self) -> &[u8] {
        match &self.flight {
            Some(flight) => flight.out.get(flight.written..).unwrap_or_default(),
            None => self.open.out.get(self.open.written..).unwrap_or_default(),
        }
    }

    /// So much of it was written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        let batch = self.flight.as_mut().unwrap_or(&mut self.open);
        batch.written += bytes;
        if batch.written == batch.out.len() {
            batch.given += batch.out.len();
            batch.out.clear();
            batch.written = 0;
        }
    }

    /// The next of the replies that came; `None` if there is none.
    pub(crate) fn reply(&mut self, replies: &mut BytesMut) -> Option<Reply> {
        let batch = self.flight.as_mut().unwrap_or(&mut self.open);
        let reply = batch.reply(&mut self.scanner, replies)?;
        if matches!(reply, Reply::Done { .. }) {
            if let Some(done) = self.flight.take() {
                self.spare = done.out;
            }
            self.scanner.reset();
        }
        Some(reply)
    }

    /// Commands and bytes on their way.
    pub(crate) fn inflight(&self) -> (usize, usize) {
        self.flight
            .as_ref()
            .map_or((0, 0), |flight| (flight.commands, flight.bytes()))
    }
}

/// The number of items and the length of an array's first line, once it is complete; not for a null array.
pub(super) fn array_head(replies: &[u8]) -> Option<(usize, usize)> {
    let line = replies.strip_prefix(b"*")?;
    let digits = line.iter().take(20).take_while(|c| c.is_ascii_digit());
    let digits = line.get(..digits.count())?;
    let rest = line.get(digits.len()..)?;
    if digits.is_empty() || !rest.starts_with(b"\r\n") {
        return None;
    }
    let items = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((items, 1 + digits.len() + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane::new(b"K".to_vec(), Duration::ZERO, 1 << 20)
    }

    fn put(lane: &mut Lane, words: &[&str]) {
        let argv: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        resp::encode::command(lane.body(), &argv);
        let method = if words[0] == "SELECT" {
            Method::Select
        } else {
            Method::Set
        };
        let db = if words[0] == "SELECT" {
            Db(words[1].parse().unwrap())
        } else {
            Db(0)
        };
        lane.added(&mut vec![Sent {
            key: Bytes::copy_from_slice(words[1].as_bytes()),
            db,
            kind: rdb::Kind::String,
            method,
            expect: Expect::Ok,
            last_of_key: true,
        }]);
    }

    fn text(mut rest: &[u8]) -> String {
        let mut decoder = resp::CommandDecoder::new(Limits::default());
        let mut lines = Vec::new();
        while let Some(frame) = decoder.poll(rest).unwrap() {
            let words: Vec<_> = decoder
                .args()
                .iter()
                .map(|arg| String::from_utf8_lossy(arg.of(rest)).into_owned())
                .collect();
            lines.push(words.join(" "));
            rest = &rest[frame.len..];
        }
        assert!(rest.is_empty());
        lines.join(" ; ")
    }

    fn replies(lane: &mut Lane, text: &str) -> Vec<String> {
        let mut buffer = BytesMut::new();
        let mut said = Vec::new();
        // Byte by byte: no cut may matter.
        for byte in text.bytes() {
            buffer.extend_from_slice(&[byte]);
            while let Some(reply) = lane.reply(&mut buffer) {
                said.push(match reply {
                    Reply::Command { sent, keys, kind } => {
                        format!("{} {keys} {kind:?}", sent.key.escape_ascii())
                    }
                    Reply::Done { rdb_bytes } => format!("done {rdb_bytes}"),
                    Reply::Aborted { sent, error } => format!(
                        "aborted {} {}",
                        sent.map_or_else(String::new, |sent| sent.key.escape_ascii().to_string()),
                        String::from_utf8_lossy(&error.text)
                    ),
                    Reply::Fenced => "fenced".to_owned(),
                    Reply::Nonsense(what) => format!("nonsense {what}"),
                });
            }
        }
        assert!(buffer.is_empty());
        said
    }

    #[test]
    fn a_unit_begins_and_ends_in_database_0() {
        let mut lane = lane();
        put(&mut lane, &["SELECT", "3"]);
        put(&mut lane, &["SET", "a", "1"]);
        lane.seal("v", 10);
        assert_eq!(
            text(lane.to_write()),
            "SELECT 3 ; SET a 1 ; SELECT 0 ; SET K v ; EXEC ; WATCH K ; GET K ; MULTI"
        );
        put(&mut lane, &["SET", "b", "1"]);
        let len = lane.to_write().len();
        lane.wrote(len);
        assert!(lane.to_write().is_empty(), "one unit in flight");
        let said = replies(
            &mut lane,
            "+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n$-1\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nv\r\n+OK\r\n",
        );
        assert_eq!(said, ["3 1 Simple", "a 1 Null", " 1 Simple", "done 10"]);
        assert!(!lane.is_in_flight());
        lane.seal("w", 20);
        assert!(text(lane.to_write()).starts_with("SELECT 3 ; SET b 1 ; SELECT 0 ;"));
    }

    #[test]
    fn plain_sets_go_together_and_never_past_another_command() {
        let mut lane = lane();
        put(&mut lane, &["SELECT", "3"]);
        put(&mut lane, &["SET", "a", "1"]);
        put(&mut lane, &["SET", "b", "1"]);
        put(&mut lane, &["SET", "c", "1", "PXAT", "5"]);
        put(&mut lane, &["SET", "d", "1"]);
        put(&mut lane, &["SELECT", "0"]);
        put(&mut lane, &["SET", "e", "1"]);
        put(&mut lane, &["SET", "f", "1"]);
        lane.seal("v", 10);
        assert_eq!(
            text(lane.to_write()),
            "SELECT 3 ; MSET a 1 b 1 ; SET c 1 PXAT 5 ; SET d 1 ; SELECT 0 ; MSET e 1 f 1 ; SET K v ; EXEC ; WATCH K ; GET K ; MULTI"
        );
        let said = replies(
            &mut lane,
            &format!(
                "{}*7\r\n{}+OK\r\n$1\r\nv\r\n+OK\r\n",
                "+QUEUED\r\n".repeat(7),
                "+OK\r\n".repeat(7)
            ),
        );
        assert_eq!(
            said,
            [
                "3 1 Simple",
                "a 2 Simple",
                "c 1 Simple",
                "d 1 Simple",
                "0 1 Simple",
                "e 2 Simple",
                "done 10"
            ]
        );
    }

    #[test]
    fn pairs_join_the_sets_before_them() {
        let mut lane = lane();
        let add = |lane: &mut Lane, key: &str| {
            let pair = format!("$1\r\n{key}\r\n$1\r\n1\r\n");
            lane.add_pair(Db(3), key.as_bytes(), pair.len(), |out| {
                out.extend_from_slice(pair.as_bytes());
                true
            });
            // One that does not pass leaves no trace.
            lane.add_pair(Db(3), b"none", pair.len(), |_| false);
        };
        put(&mut lane, &["SELECT", "3"]);
        put(&mut lane, &["SET", "a", "1"]);
        add(&mut lane, "b");
        put(&mut lane, &["INCR", "n"]);
        add(&mut lane, "c");
        lane.seal("v", 10);
        // The next unit is in the rewriter's database, too.
        add(&mut lane, "d");
        assert_eq!(
            text(lane.to_write()),
            "SELECT 3 ; MSET a 1 b 1 ; INCR n ; SET c 1 ; SELECT 0 ; SET K v ; EXEC ; WATCH K ; GET K ; MULTI"
        );
        let said = replies(
            &mut lane,
            &format!(
                "{}*6\r\n{}+OK\r\n$1\r\nv\r\n+OK\r\n",
                "+QUEUED\r\n".repeat(6),
                "+OK\r\n".repeat(6)
            ),
        );
        assert_eq!(
            said,
            [
                "3 1 Simple",
                "a 2 Simple",
                "n 1 Simple",
                "c 1 Simple",
                " 1 Simple",
                "done 10"
            ]
        );
        for _ in 0..super::super::sets::PAIRS_MAX {
            add(&mut lane, "e");
        }
        lane.seal("w", 20);
        let sent = text(lane.to_write());
        assert!(
            sent.starts_with("SELECT 3 ; MSET d 1 e 1 ") && sent.contains(" ; SET e 1 ; SELECT 0"),
            "{sent}"
        );
    }

    #[test]
    fn a_value_that_comes_in_parts_does_not_overtake() {
        let mut lane = lane();
        put(&mut lane, &["SET", "a", "1"]);
        lane.body()
            .extend_from_slice(b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$2\r\n1");
        lane.added(&mut Vec::new());
        lane.body().extend_from_slice(b"2\r\n");
        lane.added(&mut vec![Sent {
            key: Bytes::from_static(b"b"),
            db: Db(0),
            kind: rdb::Kind::String,
            method: Method::Set,
            expect: Expect::Ok,
            last_of_key: true,
        }]);
        put(&mut lane, &["SET", "c", "1"]);
        lane.seal("v", 10);
        assert!(text(lane.to_write()).starts_with("SET a 1 ; SET b 12 ; SET c 1 ; SET K v"));
    }

    #[test]
    fn whoever_is_not_the_owner_any_more_is_told() {
        let ends = [
            "*2\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nw\r\n+OK\r\n",
            "*-1\r\n+OK\r\n$1\r\nv\r\n+OK\r\n",
            "*2\r\n+OK\r\n+OK\r\n-BUSY watch\r\n$1\r\nv\r\n+OK\r\n",
            "*2\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nv\r\n-BUSY multi\r\n",
        ];
        for end in ends {
            let mut lane = lane();
            put(&mut lane, &["SET", "a", "1"]);
            lane.seal("v", 10);
            let said = replies(&mut lane, &format!("+QUEUED\r\n+QUEUED\r\n{end}"));
            assert_eq!(said.last().unwrap(), "fenced", "{end}");
        }
    }

    #[test]
    fn a_refused_unit_names_the_command() {
        let mut lane = lane();
        put(&mut lane, &["SET", "a", "1", "PXAT", "5"]);
        put(&mut lane, &["SET", "b", "1", "PXAT", "5"]);
        lane.seal("v", 10);
        let said = replies(
            &mut lane,
            "+QUEUED\r\n-OOM full\r\n+QUEUED\r\n-EXECABORT no\r\n+OK\r\n$1\r\nu\r\n+OK\r\n",
        );
        assert_eq!(said, ["aborted b OOM full"]);
    }

    #[test]
    fn what_is_collected_goes_out_while_nothing_is_on_its_way() {
        let mut lane = lane();
        assert!(lane.to_write().is_empty() && lane.is_idle());
        lane.body().extend_from_slice(&vec![b'x'; 3 << 20]);
        let len = lane.to_write().len();
        lane.wrote(len);
        assert!(lane.is_full() && lane.to_write().is_empty() && !lane.is_idle());
        lane.body().extend_from_slice(b"rest");
        assert_eq!(lane.to_write(), b"rest");
    }
}
