//! `XADD` and `XTRIM`. A source writes into its stream what it would not take from a client: ids beside `IDMP`, and
//! `LIMIT` beside an exact length. To the target we are a client.

use super::{Done, Work};
use crate::idempotence;
use crate::number::id_text;
use crate::outcome::{DropReason, ErrorKind};

/// Removes the messages up to an id.
const TRIM_SCRIPT: &[u8] = b"for _,m in ipairs(redis.call('XRANGE',KEYS[1],'-',ARGV[1])) do \
redis.call('XDEL',KEYS[1],m[1]) end";

/// Notes by which name a producer sent a message. A message that is trimmed already cannot be noted, nor a name that the
/// target remembers for longer than the source did: neither is a reason to stop.
const RECORD_SCRIPT: &[u8] = b"redis.pcall('XIDMPRECORD',KEYS[1],ARGV[1],ARGV[2],ARGV[3])";

const IDEMPOTENCE: &str = "what a stream remembers of its producers (Redis 8.6.2)";
const ACKED: &str =
    "trimming of acknowledged messages alone (XADD and XTRIM with ACKED, Redis 8.2)";
const DELREF: &str =
    "trimming of a stream and its pending messages at once (XADD and XTRIM with DELREF, Redis 8.2)";

/// What stands before the id of an `XADD`, and behind the key of an `XTRIM`.
#[derive(Default)]
struct Options<'a> {
    no_stream: bool,
    limit: bool,
    /// `MAXLEN` or `MINID`, perhaps `=` or `~`, and the bound.
    trim: Vec<&'a [u8]>,
    by_id: bool,
    /// `KEEPREF`, `DELREF` or `ACKED`.
    references: Option<&'a [u8]>,
    producer: Option<&'a [u8]>,
    /// Its name of the message; none where the message's content is its name (`IDMPAUTO`).
    message: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn approximate(&self) -> bool {
        self.trim.get(1) == Some(&&b"~"[..])
    }

    fn is(&self, word: &[u8]) -> bool {
        self.references
            .is_some_and(|found| found.eq_ignore_ascii_case(word))
    }

    fn bound(&self) -> &'a [u8] {
        self.trim.last().copied().unwrap_or_default()
    }
}

impl<'a> Work<'a> {
    /// `XADD key [NOMKSTREAM] [KEEPREF | DELREF | ACKED] [IDMPAUTO producer | IDMP producer name]
    /// [MAXLEN | MINID [= | ~] bound [LIMIT n]] id (field value)...`
    pub(super) fn xadd(mut self) -> Result<Done, ErrorKind> {
        // Nearly all begin with the id.
        if self.words.at(2).first().is_some_and(u8::is_ascii_digit) {
            return Ok(Done::Forward);
        }
        let (options, id_at) = self.trim_options();
        let id = self.words.at(id_at);
        if options.producer.is_some() && id == b"*" {
            // So the source writes a message that it had already: it did nothing.
            return Ok(Done::Dropped(DropReason::NoEffect));
        }
        if !self.needs(&options) || self.words.len() < id_at + 3 {
            return Ok(Done::Forward);
        }
        let (key, head) = (self.words.at(1), self.trimming(&options)?);
        let mut words = vec![&b"XADD"[..], key];
        words.extend(head);
        self.emit_with(&words, id_at);
        let mut commands = 1 + self.trim_by_script(&options);
        match (options.producer, options.message) {
            (None, _) => {}
            (Some(producer), message) if self.options.target.stream_idempotence => {
                let own = self.words.args.get(id_at + 1..).unwrap_or_default();
                let own = idempotence::name(own.iter().map(|arg| arg.of(self.words.frame)));
                let message = message.unwrap_or(&own);
                self.emit(&[b"EVAL", RECORD_SCRIPT, b"1", key, producer, message, id]);
                commands += 1;
            }
            (Some(_), _) => self.leave_out(IDEMPOTENCE)?,
        }
        Ok(Done::Rewritten(commands))
    }

    /// `XTRIM key MAXLEN | MINID [= | ~] bound [LIMIT n] [KEEPREF | DELREF | ACKED]`
    pub(super) fn xtrim(mut self) -> Result<Done, ErrorKind> {
        let (options, end) = self.trim_options();
        if !self.needs(&options) || options.trim.is_empty() || end != self.words.len() {
            return Ok(Done::Forward);
        }
        let (key, head) = (self.words.at(1), self.trimming(&options)?);
        if head.is_empty() {
            return Ok(match self.trim_by_script(&options) {
                0 => Done::Dropped(DropReason::NoEffect),
                commands => Done::Rewritten(commands),
            });
        }
        let mut words = vec![&b"XTRIM"[..], key];
        words.extend(head);
        self.emit(&words);
        Ok(Done::Rewritten(1))
    }

    /// The options, and where something else begins.
    fn trim_options(&self) -> (Options<'a>, usize) {
        let words = self.words;
        let mut options = Options::default();
        let mut at = 2;
        while at < words.len() {
            let is = |word: &[u8]| words.is(at, word);
            if is(b"NOMKSTREAM") {
                options.no_stream = true;
            } else if is(b"KEEPREF") || is(b"DELREF") || is(b"ACKED") {
                options.references = Some(words.at(at));
            } else if is(b"LIMIT") {
                options.limit = true;
                at += 1;
            } else if is(b"IDMPAUTO") {
                options.producer = Some(words.at(at + 1));
                at += 1;
            } else if is(b"IDMP") {
                options.producer = Some(words.at(at + 1));
                options.message = Some(words.at(at + 2));
                at += 2;
            } else if is(b"MAXLEN") || is(b"MINID") {
                options.by_id = is(b"MINID");
                options.trim = vec![words.at(at)];
                if words.is(at + 1, b"=") || words.is(at + 1, b"~") {
                    at += 1;
                    options.trim.push(words.at(at));
                }
                at += 1;
                options.trim.push(words.at(at));
            } else {
                break;
            }
            at += 1;
        }
        (options, at.min(words.len()))
    }

    /// Whether the target would not take it as it is.
    fn needs(&self, options: &Options<'_>) -> bool {
        let target = &self.options.target;
        let newer = options.no_stream || options.limit || options.by_id;
        (!target.words_of_6_2 && newer)
            || (!target.words_of_8_2 && options.references.is_some())
            || (options.limit && !options.approximate())
            || options.producer.is_some()
    }

    /// The words of the trimming that the target knows.
    fn trimming(&mut self, options: &Options<'a>) -> Result<Vec<&'a [u8]>, ErrorKind> {
        let (newer, by_references) = {
            let target = &self.options.target;
            (target.words_of_6_2, target.words_of_8_2)
        };
        let mut words = Vec::new();
        if options.trim.is_empty() {
            return Ok(words);
        }
        if !by_references && options.is(b"ACKED") {
            // Rather too many messages than too few.
            self.leave_out(ACKED)?;
            return Ok(words);
        }
        if !by_references && options.is(b"DELREF") {
            self.leave_out(DELREF)?;
        }
        if options.by_id && !newer {
            return Ok(words);
        }
        if by_references {
            words.extend(options.references);
        }
        words.extend(&options.trim);
        Ok(words)
    }

    /// What `MINID` does, for a target that does not know it; how many commands that takes.
    fn trim_by_script(&mut self, options: &Options<'_>) -> u32 {
        let target = &self.options.target;
        let kept_whole = !target.words_of_8_2 && options.is(b"ACKED");
        if !options.by_id || target.words_of_6_2 || kept_whole {
            return 0;
        }
        let Some(last) = before(options.bound()) else {
            return 0;
        };
        let (key, last) = (self.words.at(1), id_text(last));
        self.emit(&[b"EVAL", TRIM_SCRIPT, b"1", key, last.text()]);
        1
    }
}

/// The largest id below this one, which may lack its second part; none if there is none.
fn before(id: &[u8]) -> Option<rdb::StreamId> {
    let text = std::str::from_utf8(id).ok()?;
    let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
    let (ms, seq): (u64, u64) = (ms.parse().ok()?, seq.parse().ok()?);
    match (ms, seq.checked_sub(1)) {
        (ms, Some(seq)) => Some(rdb::StreamId { ms, seq }),
        (ms, None) => Some(rdb::StreamId {
            ms: ms.checked_sub(1)?,
            seq: u64::MAX,
        }),
    }
}
