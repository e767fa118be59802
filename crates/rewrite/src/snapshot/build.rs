//! Collections built by commands, in chunks.

use bytes::Bytes;
use rdb::{KeyHead, Score};
use resp::encode;

use super::losses::Loss;
use super::write::{self, Expect, Method, Sent};
use super::{Current, Existing, Progress, SnapshotError, SnapshotRewriter};
use crate::Kind;
use crate::number::{self, Decimal};
use crate::slot::temporary_key;

/// About what the head of a bulk string and its end take.
const BULK_FRAME_BYTES: usize = 10;

/// The words of the next command, which is written when it is full.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    words: Vec<u8>,
    count: usize,
    /// The most words in a chunk.
    count_max: usize,
    /// Fields in it that have a time.
    timed: Vec<(u64, Bytes)>,
    /// Members whose score is -0, held back until the others are there: a small set is packed, and a packed -0 is 0.
    negative_zeros: Vec<Bytes>,
    negative_zeros_bytes: usize,
}

impl SnapshotRewriter {
    pub(super) fn elements_start(&mut self) -> Result<(), SnapshotError> {
        let mut current = self.take()?;
        if !matches!(current.value, Progress::Expected) {
            return Err(Self::out_of_order());
        }
        if current.restore.is_some() {
            self.count_hints(&current.head);
        }
        current.value = Progress::Elements {
            name: self.build_name(&current),
            begun: false,
            insert: None,
        };
        self.chunk.words.clear();
        self.chunk.count = 0;
        self.chunk.count_max = self.words_max();
        self.chunk.timed.clear();
        self.chunk.negative_zeros.clear();
        self.chunk.negative_zeros_bytes = 0;
        self.current = Some(current);
        Ok(())
    }

    /// The name under which a value of several commands is built.
    pub(super) fn build_name(&self, current: &Current) -> Bytes {
        match self.options.existing {
            Existing::Replace => current.head.key.clone(),
            Existing::Fail | Existing::Skip => temporary_key(&current.head.key).into(),
        }
    }

    /// One element: an item, a score and its member, a field and its value.
    #[inline]
    pub(super) fn words<const N: usize>(
        &mut self,
        words: [&[u8]; N],
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let bytes: usize = words.iter().map(|word| word.len() + BULK_FRAME_BYTES).sum();
        let full = self.chunk.count + N > self.chunk.count_max
            || self.chunk.words.len() + bytes > self.options.chunk_bytes;
        if full && self.chunk.count > 0 {
            self.flush(out, sent)?;
        }
        for word in words {
            encode::bulk(&mut self.chunk.words, word);
        }
        self.chunk.count += N;
        Ok(())
    }

    /// The most words in a chunk.
    fn words_max(&self) -> usize {
        let args_max = usize::try_from(self.options.target.args_max).unwrap_or(usize::MAX);
        self.options.chunk_items.min(args_max).max(8) - 2
    }

    pub(super) fn scored(
        &mut self,
        member: &[u8],
        score: Score,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        if score == Score(-0.0) {
            self.chunk.negative_zeros_bytes += member.len() + BULK_FRAME_BYTES;
            let member = Bytes::copy_from_slice(member);
            self.chunk.negative_zeros.push(member);
            if 2 * self.chunk.negative_zeros.len() < self.chunk.count_max
                && self.chunk.negative_zeros_bytes < self.options.chunk_bytes
            {
                return Ok(());
            }
            // Too many to be held. Under another score they make a set that is large, where -0 stays itself.
            for member in self.chunk.negative_zeros.clone() {
                self.words([b"1", &member], out, sent)?;
            }
            return self.negative_zeros(out, sent);
        }
        let mut text = [0; SCORE_BYTES_MAX];
        let text = score_text(score, &mut text);
        self.words([text, member], out, sent)
    }

    /// The members that were held back.
    fn negative_zeros(
        &mut self,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        self.chunk.negative_zeros_bytes = 0;
        for member in std::mem::take(&mut self.chunk.negative_zeros) {
            self.words([b"-0", &member], out, sent)?;
        }
        Ok(())
    }

    pub(super) fn pair(
        &mut self,
        field: &[u8],
        value: &[u8],
        expire_at_ms: Option<u64>,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let expire_at_ms = expire_at_ms.map(|at| self.leased_field(at));
        if let Some(at) = expire_at_ms {
            if at <= self.options.now_ms {
                self.counts.expired_fields += 1;
                return Ok(());
            }
            if !self.options.target.hash_field_ttl {
                let current = self.take()?;
                self.lose(&current.head, Loss::FieldTtl)?;
                self.current = Some(current);
                return self.words([field, value], out, sent);
            }
        }
        self.words([field, value], out, sent)?;
        if let Some(at) = expire_at_ms {
            self.chunk.timed.push((at, Bytes::copy_from_slice(field)));
        }
        Ok(())
    }

    /// The time to write for a field's expiry.
    fn leased_field(&mut self, at_ms: u64) -> u64 {
        let rule = self.options.field_lease.filter(|_| self.leases_fields());
        let own = i64::try_from(at_ms).ok();
        let later = rule.zip(own).and_then(|(rule, own)| rule.moved(own));
        match later.and_then(|later| u64::try_from(later).ok()) {
            Some(later_ms) => {
                self.has_leased_fields = true;
                later_ms
            }
            None => at_ms,
        }
    }

    /// Where an array inserts next, less one.
    pub(super) fn insert_index(&mut self, index: u64) -> Result<(), SnapshotError> {
        let value = self.current.as_mut().map(|current| &mut current.value);
        let Some(Progress::Elements { insert, .. }) = value else {
            return Err(Self::out_of_order());
        };
        *insert = Some(index);
        Ok(())
    }

    /// Writes what the chunk holds.
    fn flush(&mut self, out: &mut Vec<u8>, sent: &mut Vec<Sent>) -> Result<(), SnapshotError> {
        let mut current = self.take()?;
        self.begin(&mut current, out, sent);
        let Progress::Elements { name, .. } = &current.value else {
            return Err(Self::out_of_order());
        };
        let command: &[u8] = match current.head.kind {
            Kind::List => b"RPUSH",
            Kind::Set => b"SADD",
            Kind::Zset => b"ZADD",
            Kind::Hash if self.options.target.hset_variadic => b"HSET",
            Kind::Hash => b"HMSET",
            Kind::Array => b"ARMSET",
            Kind::String | Kind::Stream | Kind::Module | Kind::RateLimiter => {
                return Err(Self::out_of_order());
            }
        };
        encode::command_header(out, 2 + self.chunk.count);
        encode::bulk(out, command);
        encode::bulk(out, name);
        out.extend_from_slice(&self.chunk.words);
        let expect = if command == b"HMSET" {
            Expect::Ok
        } else {
            Expect::Int
        };
        sent.push(Sent::new(&current.head, Method::Commands, expect));
        self.chunk.words.clear();
        self.chunk.count = 0;
        self.expire_fields(&current.head, name, out, sent);
        self.current = Some(current);
        Ok(())
    }

    /// The first command of a value: makes room for it.
    fn begin(&mut self, current: &mut Current, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        let db = current.head.db;
        if let Progress::Elements { name, begun, .. } = &mut current.value
            && !std::mem::replace(begun, true)
        {
            self.select(db, out, sent);
            if self.options.deletes {
                write::delete(name, self.options.target.unlink, out);
                sent.push(Sent::new(&current.head, Method::Commands, Expect::Int));
            }
        }
    }

    /// `HPEXPIREAT name ms FIELDS n field...`, one for each time.
    fn expire_fields(
        &mut self,
        head: &KeyHead,
        name: &[u8],
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        self.chunk.timed.sort_unstable_by_key(|(at, _)| *at);
        for fields in self
            .chunk
            .timed
            .chunk_by(|(one, _), (other, _)| one == other)
        {
            let Some((at, _)) = fields.first() else {
                continue;
            };
            encode::command_header(out, 5 + fields.len());
            encode::bulk(out, b"HPEXPIREAT");
            encode::bulk(out, name);
            encode::bulk(
                out,
                Decimal::new(i64::try_from(*at).unwrap_or(i64::MAX)).text(),
            );
            encode::bulk(out, b"FIELDS");
            encode::bulk(
                out,
                Decimal::new(i64::try_from(fields.len()).unwrap_or(0)).text(),
            );
            for (_, field) in fields {
                encode::bulk(out, field);
            }
            sent.push(Sent::new(head, Method::Commands, Expect::Array));
        }
        self.chunk.timed.clear();
    }

    /// The end of a value that came in parts.
    pub(super) fn end(
        &mut self,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        self.negative_zeros(out, sent)?;
        if self.chunk.count > 0 {
            self.flush(out, sent)?;
        }
        let mut current = self.take()?;
        if !matches!(current.value, Progress::Elements { .. }) {
            return self.string_end(&mut current, out, sent);
        }
        let Progress::Elements {
            begun: any, insert, ..
        } = current.value
        else {
            return Ok(());
        };
        if !any && (self.options.existing != Existing::Replace || !self.options.deletes) {
            return Ok(());
        }
        self.begin(&mut current, out, sent);
        let Progress::Elements { name, .. } = &current.value else {
            return Ok(());
        };
        if let Some(next) = insert.and_then(|insert| insert.checked_add(1)) {
            encode::command(out, &[b"ARSEEK", name, Decimal::unsigned(next).text()]);
            sent.push(Sent::new(&current.head, Method::Commands, Expect::Int));
        }
        if any {
            self.finish(&current.head, name, Method::Commands, out, sent);
        } else if let Some(last) = sent.last_mut() {
            // Every field's time has come: the deletion is all there is.
            last.last_of_key = true;
        }
        Ok(())
    }

    /// The last commands of a value that took several: its time, and its name if it was built under another.
    pub(super) fn finish(
        &self,
        head: &KeyHead,
        name: &[u8],
        method: Method,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        let note = |expect| Sent::new(head, method, expect);
        if let Some(at) = head.expire_at_ms {
            write::expire(name, at, out);
            sent.push(note(Expect::Int));
        }
        if *name != *head.key {
            encode::command(out, &[b"RENAMENX", name, &head.key]);
            sent.push(note(Expect::ZeroMeansExists));
            write::delete(name, self.options.target.unlink, out);
            sent.push(note(Expect::Int));
        }
        if let Some(last) = sent.last_mut() {
            last.last_of_key = true;
        }
    }
}

/// No score is longer than this: a sign, seventeen digits, a point, zeros up to 1e-5 or an exponent.
const SCORE_BYTES_MAX: usize = 40;

/// The shortest text that reads back as the same score.
fn score_text(score: Score, buffer: &mut [u8; SCORE_BYTES_MAX]) -> &[u8] {
    use std::io::Write;
    if let Some(len) = number::short_decimal(score.0, buffer) {
        return buffer.get(..len).unwrap_or_default();
    }
    let mut rest = &mut buffer[..];
    // A slice takes what fits; the text always does.
    let _ = write!(rest, "{score}");
    let left = rest.len();
    buffer.get(..SCORE_BYTES_MAX - left).unwrap_or_default()
}
