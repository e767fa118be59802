//! A unit: what goes to the target in one MULTI/EXEC, checkpoint included.
//!
//! ```text
//! [SELECT start_db]  <commands>  [SELECT 0]  SET checkpoint <position>  EXEC
//! WATCH checkpoint  GET checkpoint  MULTI
//! ```
//! The connection is in MULTI when a unit begins, and again when it ends: the next unit is only sent once WATCH and MULTI
//! have answered OK (a busy server may refuse the one and take what follows), and GET what this unit wrote, which was
//! there when WATCH began.
//! The connection is in database 0 before and after. A transaction of the source is never split: its
//! commands lie behind `mark` until its EXEC has come.

use resp::ReplyKind;
use rewrite::Db;

use super::growing::Growing;
use super::lane::array_head;
use super::sets::Sets;
use super::stream::{Hole, TOKEN_MARK, Token};

/// Commands collected for the target.
#[derive(Debug)]
pub(crate) struct Unit {
    /// What follows MULTI, up to the checkpoint.
    out: Vec<u8>,
    commands: u32,
    /// Plain SETs that follow `out`, in `target_db`.
    sets: Sets,
    /// A command that follows `out`, in `target_db`, and grows. It or `sets` is empty.
    growing: Growing,
    /// Commands that are none of their own in `out`: they have joined others.
    merged: u32,
    /// Database in force at the target after `out`.
    target_db: Db,
    mark: Option<Mark>,
    end: Option<End>,
    /// Databases selected in `out`, each once.
    databases: Vec<Db>,
    /// Words that are left in the feed, in order.
    gaps: Vec<Gap>,
    /// The places of the commands that have to answer 1, in order.
    ones: Vec<u32>,
}

/// A word that is put into a unit when it is written to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Where in the unit the word's header stands; what follows is a token in the word's place.
    pub(crate) at: usize,
    pub(crate) hole: Hole,
}

impl Gap {
    /// What stands in the unit in the place of the word's header and bytes.
    fn bytes() -> usize {
        format!("${TOKEN_BYTES}\r\n").len() + TOKEN_BYTES
    }

    /// Where it ends in the unit.
    pub(crate) fn end(&self) -> usize {
        self.at + Self::bytes()
    }
}

const TOKEN_BYTES: usize = std::mem::size_of::<Token>();

/// Where whole commands end and an unfinished transaction begins.
#[derive(Debug, Clone, Copy)]
struct Mark {
    bytes: usize,
    commands: u32,
    merged: u32,
    target_db: Db,
}

/// The position that a unit completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) offset: u64,
    /// Database selected in the source's stream.
    pub(crate) db: Db,
    /// When the oldest of it was received.
    pub(crate) received_ms: u64,
}

impl Default for Unit {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Unit {
    /// An empty unit in `buffer`, whose content is thrown away.
    pub(crate) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            out: buffer,
            commands: 0,
            sets: Sets::default(),
            growing: Growing::default(),
            merged: 0,
            target_db: Db(0),
            mark: None,
            end: None,
            databases: Vec::new(),
            gaps: Vec::new(),
            ones: Vec::new(),
        }
    }

    /// The next command, which goes as it is, in `db`; a plain SET joins those before it.
    pub(crate) fn forward(&mut self, db: Db, frame: &[u8]) {
        let Some(pair) = Sets::pair(frame) else {
            self.body(db).extend_from_slice(frame);
            return self.added(1, db);
        };
        self.set(db, pair);
    }

    /// A plain SET, whose key and value are `pair` as they stand in the command: it joins those before it.
    #[inline]
    pub(crate) fn set(&mut self, db: Db, pair: &[u8]) {
        if db != self.target_db || !self.sets.has_room(pair) || !self.growing.is_empty() {
            self.body(db);
        }
        self.sets.push(pair);
    }

    /// The next command in `db`, if what stands `behind` it joins it: whether it was taken.
    pub(crate) fn begin_growing(
        &mut self,
        db: Db,
        frame: &[u8],
        args: &[resp::Arg],
        behind: &[u8],
    ) -> bool {
        self.body(db);
        self.growing.begin(frame, args, behind)
    }

    /// Whether there is a command that others in `db` may join.
    #[inline]
    pub(crate) fn grows(&self, db: Db) -> bool {
        !self.growing.is_empty() && db == self.target_db
    }

    /// The command at the start of `bytes` joins the one that came last, where it may: its length.
    #[inline]
    pub(crate) fn join(&mut self, bytes: &[u8]) -> Option<usize> {
        self.growing.join(bytes)
    }

    /// Writes what waits for company.
    fn write_waiting(&mut self) {
        if !self.growing.is_empty() {
            self.merged += self.growing.count() - 1;
            self.commands += 1;
            self.growing.write(&mut self.out);
        }
        if !self.sets.is_empty() {
            self.merged += self.sets.count() - 1;
            self.commands += 1;
            self.sets.write(&mut self.out);
        }
    }

    /// Space for the next command's bytes, in `db`.
    pub(crate) fn body(&mut self, db: Db) -> &mut Vec<u8> {
        self.write_waiting();
        if db != self.target_db {
            select(&mut self.out, db);
            self.commands += 1;
            self.target_db = db;
            if !self.databases.contains(&db) {
                self.databases.push(db);
            }
        }
        &mut self.out
    }

    /// `commands` more were written to the body, which left the target in `db`.
    pub(crate) fn added(&mut self, commands: u32, db: Db) {
        self.commands += commands;
        self.target_db = db;
    }

    /// The command that was put in last has done something at the source, and has to here: it answers 1.
    pub(crate) fn expect_one(&mut self) {
        self.ones.push(self.commands.saturating_sub(1));
    }

    /// `commands` more in `db`, the bytes of which have tokens in the place of `holes`.
    pub(crate) fn with_holes(&mut self, db: Db, bytes: &[u8], commands: u32, holes: &[Hole]) {
        let out = self.body(db);
        let begin = out.len();
        out.extend_from_slice(bytes);
        self.added(commands, db);
        self.gaps.extend(gaps_of(bytes, holes).map(|gap| Gap {
            at: gap.at + begin,
            ..gap
        }));
    }

    /// A transaction of the source begins.
    pub(crate) fn begin_transaction(&mut self) {
        self.write_waiting();
        self.mark = Some(Mark {
            bytes: self.out.len(),
            commands: self.commands,
            merged: self.merged,
            target_db: self.target_db,
        });
    }

    /// It ends.
    pub(crate) fn end_transaction(&mut self) {
        self.mark = None;
    }

    /// It ends without effect.
    pub(crate) fn discard_transaction(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.sets.clear();
            self.growing.clear();
            self.cut(mark);
        }
    }

    fn cut(&mut self, mark: Mark) {
        self.out.truncate(mark.bytes);
        self.commands = mark.commands;
        self.merged = mark.merged;
        self.target_db = mark.target_db;
        self.gaps.retain(|gap| gap.at < mark.bytes);
        self.ones.retain(|place| *place < mark.commands);
    }

    /// Everything up to `offset` is in the unit; inside a transaction this waits for its end.
    pub(crate) fn set_end(&mut self, offset: u64, db: Db, received_ms: u64) {
        if self.mark.is_some() {
            return;
        }
        let received_ms = self.end.map_or(received_ms, |end| end.received_ms);
        self.end = Some(End {
            offset,
            db,
            received_ms,
        });
    }

    /// The databases that the unit selects.
    pub(crate) fn databases(&self) -> &[Db] {
        &self.databases
    }

    /// What the unit completes, if it completes anything.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Commands that may be sent now, each SET counted.
    pub(crate) fn commands(&self) -> u32 {
        match self.mark {
            Some(mark) => mark.commands + mark.merged,
            None => self.commands + self.merged + self.sets.count() + self.growing.count(),
        }
    }

    /// Bytes that may be sent now.
    pub(crate) fn bytes(&self) -> usize {
        let (end, waiting) = match self.mark {
            Some(mark) => (mark.bytes, 0),
            None => (self.out.len(), self.waiting_bytes()),
        };
        end + waiting + usize::try_from(left_out(&self.gaps, end)).unwrap_or(usize::MAX)
    }

    /// Bytes that are held in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.out.len() + self.waiting_bytes()
    }

    fn waiting_bytes(&self) -> usize {
        self.sets.bytes() + self.growing.bytes()
    }

    /// Closes the unit with its checkpoint. What lies behind the mark becomes the beginning of
    /// `next`.
    pub(crate) fn close(mut self, key: &[u8], checkpoint: &[u8], next: &mut Self) -> Sealed {
        self.write_waiting();
        if let Some(mark) = self.mark.take() {
            next.begin_transaction();
            let rest = next.body(mark.target_db);
            let begin = rest.len();
            rest.extend_from_slice(self.out.get(mark.bytes..).unwrap_or_default());
            let behind = self.gaps.iter().filter(|gap| gap.at >= mark.bytes);
            next.gaps.extend(behind.map(|gap| Gap {
                at: gap.at - mark.bytes + begin,
                ..*gap
            }));
            let places = self.ones.iter().filter(|place| **place >= mark.commands);
            let first = next.commands;
            next.ones
                .extend(places.map(|place| place - mark.commands + first));
            next.added(self.commands - mark.commands, self.target_db);
            next.merged += self.merged - mark.merged;
            next.databases.extend_from_slice(&self.databases);
            self.cut(mark);
        }
        if self.target_db != Db(0) {
            select(&mut self.out, Db(0));
            self.commands += 1;
        }
        self.commands += 1;
        seal(&mut self.out, key, checkpoint);
        Sealed {
            out: self.out,
            commands: self.commands,
            merged: self.merged,
            guard: guard(checkpoint),
            gaps: self.gaps,
            ones: self.ones,
        }
    }
}

/// Where tokens stand in `bytes`, each for one of `holes`. One may be there more than once, or not at all.
pub(crate) fn gaps_of<'a>(bytes: &'a [u8], holes: &'a [Hole]) -> impl Iterator<Item = Gap> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let (at, hole) = first_of(bytes, from, holes)?;
        from = at + TOKEN_BYTES;
        let header = Gap::bytes() - TOKEN_BYTES;
        Some(Gap {
            at: at - header,
            hole,
        })
    })
}

/// The first token of any of `holes` in `bytes` from `from` on.
fn first_of(bytes: &[u8], from: usize, holes: &[Hole]) -> Option<(usize, Hole)> {
    let mut places = bytes.windows(TOKEN_BYTES).enumerate().skip(from);
    places.find_map(|(at, window)| {
        if !window.starts_with(TOKEN_MARK) {
            return None;
        }
        let hole = holes.iter().find(|hole| hole.token == window)?;
        Some((at, *hole))
    })
}

/// Bytes of all words that are left in the feed and stand before `end`.
fn left_out(gaps: &[Gap], end: usize) -> u64 {
    let gaps = gaps.iter().take_while(|gap| gap.at < end);
    gaps.map(|gap| gap.hole.len).sum()
}

/// What ends a unit: its checkpoint, EXEC, and the watch over the next unit.
pub(crate) fn seal(out: &mut Vec<u8>, key: &[u8], checkpoint: &[u8]) {
    resp::encode::command(out, &[b"SET", key, checkpoint]);
    out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
    resp::encode::command(out, &[b"WATCH", key]);
    resp::encode::command(out, &[b"GET", key]);
    resp::encode::command(out, &[b"MULTI"]);
}

/// The reply to the last command of a unit, if the target is still ours.
pub(crate) fn guard(checkpoint: &[u8]) -> Vec<u8> {
    let mut guard = Vec::with_capacity(checkpoint.len() + 8);
    resp::encode::bulk(&mut guard, checkpoint);
    guard
}

/// A unit as it goes out.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) out: Vec<u8>,
    /// Commands between MULTI and EXEC.
    pub(crate) commands: u32,
    /// The source's commands that have joined one of them, beside the first of each.
    pub(crate) merged: u32,
    /// What the GET at its end has to answer.
    pub(crate) guard: Vec<u8>,
    /// What is not in `out` but comes from the feed.
    pub(crate) gaps: Vec<Gap>,
    /// The places of the commands that have to answer 1, in order.
    pub(crate) ones: Vec<u32>,
}

impl Sealed {
    /// Bytes that go out.
    pub(crate) fn bytes(&self) -> u64 {
        self.out.len() as u64 + left_out(&self.gaps, usize::MAX)
    }

    /// The places of the commands that had to answer 1, and in this reply to EXEC answered 0.
    pub(crate) fn zeros(&self, exec: &[u8]) -> Vec<usize> {
        zeros(exec, &self.ones)
    }

    /// Calls `f` with each command before EXEC, the checkpoint's included: its place, its frame, its words.
    pub(crate) fn each(&self, mut f: impl FnMut(usize, &[u8], &[resp::Arg])) {
        each_command(&self.out, |at, frame, args| {
            if at < self.commands as usize {
                f(at, frame, args);
            }
        });
    }

    /// The words of the `index`th command before EXEC, to name it in an error.
    pub(crate) fn command(&self, index: usize) -> Option<Vec<Vec<u8>>> {
        words_of(&self.out, index).filter(|_| index < self.commands as usize)
    }
}

/// Those of the places `ones`, in order, at which this array has a 0.
pub(crate) fn zeros(array: &[u8], ones: &[u32]) -> Vec<usize> {
    let mut zeros = Vec::new();
    let mut items = items(array);
    let mut next = 0;
    for &one in ones {
        let mut last = None;
        while next <= one {
            let Some(item) = items.next() else {
                return zeros;
            };
            last = Some(item);
            next += 1;
        }
        // XCLAIM answers what it has claimed.
        if matches!(last, Some(ReplyKind::Int(0) | ReplyKind::Array(0))) {
            zeros.push(one as usize);
        }
    }
    zeros
}

/// What the items of this array are.
pub(crate) fn items_of(array: &[u8]) -> Vec<ReplyKind> {
    items(array).collect()
}

fn items(array: &[u8]) -> impl Iterator<Item = ReplyKind> + '_ {
    let head = array_head(array).map_or(array.len(), |(_, head)| head);
    let mut rest = array.get(head..).unwrap_or_default();
    let mut scanner = resp::ReplyScanner::new(resp::Limits::default());
    std::iter::from_fn(move || {
        // The whole reply was scanned before.
        let reply = scanner.poll(rest).ok().flatten()?;
        rest = rest.get(reply.len..).unwrap_or_default();
        Some(reply.kind)
    })
}

/// Calls `f` with each of these encoded commands: its place, its frame, its words.
pub(crate) fn each_command(bytes: &[u8], mut f: impl FnMut(usize, &[u8], &[resp::Arg])) {
    let mut decoder = resp::CommandDecoder::new(super::stream_limits());
    let mut rest = bytes;
    let mut at = 0;
    while let Ok(Some(frame)) = decoder.poll(rest) {
        f(
            at,
            rest.get(..frame.len).unwrap_or_default(),
            decoder.args(),
        );
        rest = rest.get(frame.len..).unwrap_or_default();
        at += 1;
    }
}

/// The words of the `index`th of these encoded commands.
pub(crate) fn words_of(bytes: &[u8], index: usize) -> Option<Vec<Vec<u8>>> {
    let mut found = None;
    each_command(bytes, |at, frame, args| {
        if at == index {
            found = Some(args.iter().map(|arg| arg.of(frame).to_vec()).collect());
        }
    });
    found
}

fn select(out: &mut Vec<u8>, db: Db) {
    resp::encode::command_header(out, 2);
    resp::encode::bulk(out, b"SELECT");
    resp::encode::int_arg(out, i64::from(db.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sealed: &Sealed) -> String {
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        let mut rest = sealed.out.as_slice();
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

    fn put(unit: &mut Unit, db: u32, words: &[&str]) {
        let argv: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        resp::encode::command(unit.body(Db(db)), &argv);
        unit.added(1, Db(db));
    }

    #[test]
    fn databases_are_selected_and_left() {
        let mut unit = Unit::default();
        put(&mut unit, 0, &["SET", "a", "1"]);
        put(&mut unit, 3, &["SET", "b", "1"]);
        put(&mut unit, 3, &["SET", "c", "1"]);
        unit.set_end(10, Db(3), 1);
        let sealed = unit.close(b"K", b"v", &mut Unit::default());
        assert_eq!(
            text(&sealed),
            "SET a 1 ; SELECT 3 ; SET b 1 ; SET c 1 ; SELECT 0 ; SET K v ; EXEC ; WATCH K ; GET K ; MULTI"
        );
        assert_eq!(sealed.commands, 6);
        assert_eq!(sealed.command(2).unwrap()[1], b"b");
    }

    #[test]
    fn words_in_the_feed_keep_their_places() {
        let hole = |at, len| Hole {
            token: super::super::stream::token(at),
            at,
            len,
        };
        let (a, b) = (hole(0, 5_000), hole(1, 70));
        let frame = |words: &[&[u8]]| {
            let mut frame = Vec::new();
            resp::encode::command(&mut frame, words);
            frame
        };
        let both = frame(&[b"MSET", b"a", &a.token, b"b", &b.token, b"c", &a.token]);
        let filled = |sealed: &Sealed| {
            let (mut out, mut from) = (Vec::new(), 0);
            for gap in &sealed.gaps {
                out.extend_from_slice(&sealed.out[from..gap.at]);
                out.extend_from_slice(format!("<{}>", gap.hole.len).as_bytes());
                from = gap.end();
            }
            out.extend_from_slice(&sealed.out[from..]);
            String::from_utf8(out).unwrap()
        };
        let mut unit = Unit::default();
        put(&mut unit, 0, &["INCR", "n"]);
        unit.with_holes(Db(0), &both, 1, &[a, b]);
        assert_eq!(unit.bytes(), unit.held_bytes() + 10_070);
        unit.set_end(10, Db(0), 1);
        unit.begin_transaction();
        let before = unit.bytes();
        unit.with_holes(Db(2), &frame(&[b"SET", b"x", &b.token]), 1, &[a, b]);
        assert_eq!(unit.bytes(), before);
        let mut next = Unit::default();
        let sealed = unit.close(b"K", b"v", &mut next);
        assert_eq!(sealed.bytes(), sealed.out.len() as u64 + 10_070);
        let text = filled(&sealed);
        assert!(
            text.contains(
                "a\r\n<5000>\r\n$1\r\nb\r\n<70>\r\n$1\r\nc\r\n<5000>\r\n*3\r\n$3\r\nSET\r\n$1\r\nK"
            ),
            "{text:?}"
        );
        next.end_transaction();
        next.set_end(20, Db(2), 1);
        let text = filled(&next.close(b"K", b"v", &mut Unit::default()));
        assert!(
            text.starts_with(
                "*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n*3\r\n$3\r\nSET\r\n$1\r\nx\r\n<70>\r\n*2"
            ),
            "{text:?}"
        );
        let mut unit = Unit::default();
        unit.begin_transaction();
        unit.with_holes(Db(0), &both, 1, &[a, b]);
        unit.discard_transaction();
        unit.set_end(30, Db(0), 1);
        assert!(unit.close(b"K", b"v", &mut Unit::default()).gaps.is_empty());
    }

    fn set(unit: &mut Unit, db: u32, key: &str) {
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &[b"SET", key.as_bytes(), b"1"]);
        unit.forward(Db(db), &frame);
    }

    #[test]
    fn plain_sets_go_together_and_never_past_another_command() {
        let mut unit = Unit::default();
        set(&mut unit, 0, "a");
        set(&mut unit, 0, "b");
        assert_eq!((unit.commands(), unit.bytes()), (2, 28));
        put(&mut unit, 0, &["INCR", "a"]);
        set(&mut unit, 0, "c");
        set(&mut unit, 2, "d");
        set(&mut unit, 2, "e");
        unit.begin_transaction();
        set(&mut unit, 2, "x");
        unit.discard_transaction();
        set(&mut unit, 2, "f");
        unit.set_end(10, Db(2), 1);
        unit.begin_transaction();
        set(&mut unit, 2, "g");
        set(&mut unit, 3, "h");
        set(&mut unit, 3, "i");
        assert_eq!(unit.commands(), 8);
        let mut next = Unit::default();
        let sealed = unit.close(b"K", b"v", &mut next);
        assert_eq!(
            text(&sealed),
            "MSET a 1 b 1 ; INCR a ; SET c 1 ; SELECT 2 ; MSET d 1 e 1 ; SET f 1 ; SELECT 0 ; SET K v ; EXEC ; WATCH K ; GET K ; MULTI"
        );
        assert_eq!((sealed.commands, sealed.merged), (8, 2));
        next.end_transaction();
        set(&mut next, 3, "j");
        next.set_end(20, Db(3), 1);
        let sealed = next.close(b"K", b"v", &mut Unit::default());
        assert_eq!(
            text(&sealed),
            "SELECT 2 ; SET g 1 ; SELECT 3 ; MSET h 1 i 1 ; SET j 1 ; SELECT 0 ; SET K v ; EXEC ; WATCH K ; GET K ; MULTI"
        );
        assert_eq!((sealed.commands, sealed.merged), (7, 1));
    }

    #[test]
    fn who_had_to_answer_one_and_did_not_is_found() {
        fn save(unit: &mut Unit, db: u32, key: &str) {
            put(unit, db, &["PERSIST", key]);
            unit.expect_one();
        }
        let mut unit = Unit::default();
        set(&mut unit, 0, "a");
        save(&mut unit, 0, "b");
        save(&mut unit, 2, "c");
        unit.set_end(10, Db(2), 1);
        unit.begin_transaction();
        set(&mut unit, 2, "d");
        save(&mut unit, 2, "e");
        let mut next = Unit::default();
        let sealed = unit.close(b"K", b"v", &mut next);
        // SET, PERSIST, SELECT, PERSIST, SELECT, SET.
        let exec = b"*6\r\n+OK\r\n:0\r\n+OK\r\n:1\r\n+OK\r\n+OK\r\n";
        assert_eq!(sealed.zeros(exec), [1]);
        let exec = b"*6\r\n+OK\r\n:1\r\n+OK\r\n:0\r\n+OK\r\n+OK\r\n";
        assert_eq!(sealed.zeros(exec), [3]);
        assert_eq!(sealed.command(3).unwrap()[1], b"c");
        next.discard_transaction();
        save(&mut next, 0, "f");
        next.begin_transaction();
        save(&mut next, 0, "g");
        next.end_transaction();
        next.set_end(20, Db(0), 1);
        let sealed = next.close(b"K", b"v", &mut Unit::default());
        assert_eq!(
            sealed.zeros(b"*3\r\n:0\r\n:0\r\n+OK\r\n"),
            [0, 1],
            "{}",
            text(&sealed)
        );
        let mut unit = Unit::default();
        unit.set_end(10, Db(0), 1);
        unit.begin_transaction();
        set(&mut unit, 3, "d");
        save(&mut unit, 3, "e");
        let mut next = Unit::default();
        unit.close(b"K", b"v", &mut next);
        next.end_transaction();
        next.set_end(20, Db(3), 1);
        let sealed = next.close(b"K", b"v", &mut Unit::default());
        let exec = b"*5\r\n+OK\r\n:0\r\n:0\r\n+OK\r\n+OK\r\n";
        let places = sealed.zeros(exec);
        let commands: Vec<_> = places.iter().map(|at| sealed.command(*at)).collect();
        assert_eq!(commands, [Some(vec![b"PERSIST".to_vec(), b"e".to_vec()])]);
    }

    #[test]
    fn an_unfinished_transaction_waits_for_the_next_unit() {
        let mut unit = Unit::default();
        put(&mut unit, 2, &["SET", "a", "1"]);
        unit.set_end(10, Db(2), 1);
        unit.begin_transaction();
        put(&mut unit, 2, &["INCR", "x"]);
        put(&mut unit, 4, &["INCR", "y"]);
        unit.set_end(20, Db(4), 1);
        assert_eq!((unit.end().unwrap().offset, unit.commands()), (10, 2));
        let mut next = Unit::default();
        let sealed = unit.close(b"K", b"v", &mut next);
        assert_eq!(
            text(&sealed),
            "SELECT 2 ; SET a 1 ; SELECT 0 ; SET K v ; EXEC ; WATCH K ; GET K ; MULTI"
        );
        assert_eq!(next.end(), None);
        next.end_transaction();
        next.set_end(30, Db(4), 2);
        let sealed = next.close(b"K", b"w", &mut Unit::default());
        assert_eq!(
            text(&sealed),
            "SELECT 2 ; INCR x ; SELECT 4 ; INCR y ; SELECT 0 ; SET K w ; EXEC ; WATCH K ; GET K ; MULTI"
        );
    }
}
