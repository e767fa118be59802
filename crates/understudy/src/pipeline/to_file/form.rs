//! How a command stands in a file that is written.
//!
//! ```text
//! cmd    SELECT 3                        a line, words quoted where they have to be: what redis-cli reads
//!        SET "a key" value
//! aof    *2\r\n$6\r\nSELECT\r\n..        RESP: what a server loads
//! json   {"DbId":3,"Argv":["SET",..]     a line, as RedisShake's; bytes that are no text are base64
//! ```

use resp::{Arg, CommandDecoder};
use rewrite::{Db, Table};

use crate::config::FileKind;
use crate::pipeline::stream::stream_limits;
use crate::rdb::text;

/// Puts commands into the form of a file, one after the other.
#[derive(Debug)]
pub(super) struct Form {
    kind: FileKind,
    table: Table,
    /// The database that what was written last is in; `None` where nothing was.
    written: Option<Db>,
    /// The one of the next command.
    db: Db,
    in_transaction: bool,
    /// Its beginning waits for a command in it.
    is_open: bool,
    places: Vec<usize>,
}

impl Form {
    pub(super) fn new(kind: FileKind) -> Self {
        Self {
            kind,
            table: Table::new(),
            written: None,
            db: Db(0),
            in_transaction: false,
            is_open: false,
            places: Vec::new(),
        }
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// The database of the next command.
    pub(super) fn select(&mut self, db: Db) {
        self.db = db;
    }

    /// A transaction begins; it is written if there is a command in it.
    pub(super) fn begin(&mut self) {
        self.in_transaction = true;
        self.is_open = false;
    }

    /// It ends.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        self.in_transaction = false;
        if std::mem::take(&mut self.is_open) {
            self.words(&[b"EXEC"], out);
        }
    }

    /// Appends the whole commands that `bytes` begins with; gives how many bytes they are.
    ///
    /// # Errors
    /// What is no command.
    pub(super) fn commands(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, resp::Error> {
        let mut decoder = CommandDecoder::new(stream_limits());
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(frame) = decoder.poll(rest)? else {
                return Ok(at);
            };
            let command = rest.get(..frame.len).unwrap_or_default();
            self.command(command, decoder.args(), out);
            at += frame.len;
        }
    }

    fn command(&mut self, frame: &[u8], args: &[Arg], out: &mut Vec<u8>) {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        if word(0).eq_ignore_ascii_case(b"select") {
            let text = std::str::from_utf8(word(1)).unwrap_or_default();
            self.db = text.parse().map_or(self.db, Db);
            return;
        }
        self.settle(out);
        self.append(frame, args, out);
    }

    /// Writes what has to stand before the next command.
    fn settle(&mut self, out: &mut Vec<u8>) {
        if self.written != Some(self.db) && self.kind != FileKind::Json {
            self.words(&[b"SELECT", self.db.0.to_string().as_bytes()], out);
        }
        self.written = Some(self.db);
        if self.in_transaction && !std::mem::replace(&mut self.is_open, true) {
            self.words(&[b"MULTI"], out);
        }
    }

    fn words(&mut self, words: &[&[u8]], out: &mut Vec<u8>) {
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, words);
        let mut decoder = CommandDecoder::new(stream_limits());
        // It was encoded here.
        if let Ok(Some(_)) = decoder.poll(&frame) {
            self.append(&frame, decoder.args(), out);
        }
    }

    fn append(&mut self, frame: &[u8], args: &[Arg], out: &mut Vec<u8>) {
        match self.kind {
            // A snapshot is written otherwise.
            FileKind::Aof | FileKind::Rdb => out.extend_from_slice(frame),
            FileKind::Cmd => line(frame, args, out),
            FileKind::Json => self.json(frame, args, out),
        }
    }

    fn json(&mut self, frame: &[u8], args: &[Arg], out: &mut Vec<u8>) {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        let lower = word(0).to_ascii_lowercase();
        let found = self
            .table
            .find(&lower)
            .and_then(|id| self.table.command(id));
        self.places.clear();
        if let Some(command) = found {
            rewrite::keys_of(command, frame, args, &mut self.places);
        }
        let group = found.map_or("", |command| command.group.name());
        out.extend_from_slice(format!("{{\"DbId\":{},\"Argv\":", self.db.0).as_bytes());
        list(out, args.iter(), |out, arg| {
            text::string(out, arg.of(frame))
        });
        out.extend_from_slice(b",\"CmdName\":");
        text::string(out, &word(0).to_ascii_uppercase());
        out.extend_from_slice(format!(",\"Group\":\"{group}\",\"Keys\":").as_bytes());
        list(out, self.places.iter(), |out, at| {
            text::string(out, word(*at))
        });
        out.extend_from_slice(b",\"KeyIndexes\":");
        // Counted from one, as Lua does.
        list(out, self.places.iter(), |out, at| number(out, at + 1));
        out.extend_from_slice(b",\"Slots\":");
        list(out, self.places.iter(), |out, at| {
            number(out, usize::from(rewrite::slot_of(word(*at)).0));
        });
        out.extend_from_slice(format!(",\"SerializedSize\":{}}}\n", frame.len()).as_bytes());
    }
}

fn number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// Appends a list in brackets.
fn list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, each: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}

/// Appends a line for redis-cli.
fn line(frame: &[u8], args: &[Arg], out: &mut Vec<u8>) {
    for (at, arg) in args.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        let word = arg.of(frame);
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
        if !word.is_empty() && word.iter().all(is_plain) {
            out.extend_from_slice(word);
        } else {
            quoted(word, out);
        }
    }
    out.push(b'\n');
}

fn quoted(word: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in word {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b' '..=b'~' => out.push(*byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resp(commands: &[&[&[u8]]]) -> Vec<u8> {
        let mut out = Vec::new();
        for words in commands {
            resp::encode::command(&mut out, words);
        }
        out
    }

    fn formed(kind: FileKind, bytes: &[u8]) -> String {
        let (mut form, mut out) = (Form::new(kind), Vec::new());
        let taken = form.commands(bytes, &mut out).unwrap();
        assert_eq!(taken, bytes.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_a_command() {
        let bytes = resp(&[
            &[b"SET", b"k", b"v"],
            &[b"SELECT", b"3"],
            &[b"SET", b"a b", b"\"\\\n\xff\0"],
            &[b"SET", b"e", b""],
        ]);
        assert_eq!(
            formed(FileKind::Cmd, &bytes),
            "SELECT 0\nSET k v\nSELECT 3\nSET \"a b\" \"\\\"\\\\\\n\\xff\\x00\"\nSET e \"\"\n"
        );
    }

    #[test]
    fn the_fields_of_redisshake() {
        let bytes = resp(&[&[b"SELECT", b"2"], &[b"mset", b"k", b"\xff", b"l", b"x"]]);
        let line = formed(FileKind::Json, &bytes);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let slot = |key: &[u8]| rewrite::slot_of(key).0;
        let expected = serde_json::json!({
            "DbId": 2, "Argv": ["mset", "k", "base64:/w==", "l", "x"], "CmdName": "MSET", "Group": "STRING",
            "Keys": ["k", "l"], "KeyIndexes": [2, 4], "Slots": [slot(b"k"), slot(b"l")], "SerializedSize": 42,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn transactions_stay_whole_and_empty_ones_go() {
        let (mut form, mut out) = (Form::new(FileKind::Cmd), Vec::new());
        form.begin();
        form.end(&mut out);
        form.begin();
        form.select(Db(1));
        let incr = resp(&[&[b"INCR", b"n"]]);
        form.commands(&incr, &mut out).unwrap();
        form.commands(&incr, &mut out).unwrap();
        form.end(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "SELECT 1\nMULTI\nINCR n\nINCR n\nEXEC\n");
    }

    #[test]
    fn what_is_not_whole_waits() {
        let bytes = resp(&[&[b"SET", b"k", b"v"], &[b"SET", b"k", b"w"]]);
        let whole = bytes.len() / 2;
        for cut in 0..bytes.len() {
            let (mut form, mut out) = (Form::new(FileKind::Aof), Vec::new());
            let taken = form.commands(&bytes[..cut], &mut out).unwrap();
            assert_eq!(taken, cut / whole * whole);
        }
    }
}
