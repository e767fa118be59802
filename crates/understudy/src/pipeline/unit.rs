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

use rewrite::Db;

/// Commands collected for the target.
#[derive(Debug)]
pub(crate) struct Unit {
    /// What follows MULTI, up to the checkpoint.
    out: Vec<u8>,
    commands: u32,
    /// Database in force at the target after `out`.
    target_db: Db,
    mark: Option<Mark>,
    end: Option<End>,
    /// Databases selected in `out`, each once.
    databases: Vec<Db>,
}

/// Where whole commands end and an unfinished transaction begins.
#[derive(Debug, Clone, Copy)]
struct Mark {
    bytes: usize,
    commands: u32,
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
            target_db: Db(0),
            mark: None,
            end: None,
            databases: Vec::new(),
        }
    }

    /// Space for the next command's bytes, in `db`.
    pub(crate) fn body(&mut self, db: Db) -> &mut Vec<u8> {
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

    /// A transaction of the source begins.
    pub(crate) fn begin_transaction(&mut self) {
        self.mark = Some(Mark {
            bytes: self.out.len(),
            commands: self.commands,
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
            self.out.truncate(mark.bytes);
            self.commands = mark.commands;
            self.target_db = mark.target_db;
        }
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

    /// Commands that may be sent now.
    pub(crate) fn commands(&self) -> u32 {
        self.mark.map_or(self.commands, |mark| mark.commands)
    }

    /// Bytes that may be sent now.
    pub(crate) fn bytes(&self) -> usize {
        self.mark.map_or(self.out.len(), |mark| mark.bytes)
    }

    /// Closes the unit with its checkpoint. What lies behind the mark becomes the beginning of
    /// `next`.
    pub(crate) fn close(mut self, key: &[u8], checkpoint: &[u8], next: &mut Self) -> Sealed {
        if let Some(mark) = self.mark.take() {
            next.begin_transaction();
            let rest = next.body(mark.target_db);
            rest.extend_from_slice(self.out.get(mark.bytes..).unwrap_or_default());
            next.added(self.commands - mark.commands, self.target_db);
            next.databases.extend_from_slice(&self.databases);
            self.out.truncate(mark.bytes);
            self.commands = mark.commands;
            self.target_db = mark.target_db;
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
            guard: guard(checkpoint),
        }
    }
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
    /// What the GET at its end has to answer.
    pub(crate) guard: Vec<u8>,
}

impl Sealed {
    /// The frame of the `index`th command before EXEC, to name it in an error.
    pub(crate) fn command(&self, index: usize) -> Option<Vec<Vec<u8>>> {
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        let mut rest = self.out.as_slice();
        for at in 0.. {
            let frame = decoder.poll(rest).ok()??;
            if at == index {
                return Some(
                    decoder
                        .args()
                        .iter()
                        .map(|arg| arg.of(rest).to_vec())
                        .collect(),
                );
            }
            rest = rest.get(frame.len..)?;
        }
        None
    }
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
