//! Commands for targets that do not know all their words, or not the command: said otherwise where it comes to the same.
//! Where no older command does, a script does: both run alone, and every target has scripts.

use resp::encode;

use super::plan::{End, Time};
use super::{Done, Work};
use crate::number::{Decimal, parse_i64};
use crate::outcome::{DropReason, ErrorKind};

/// Adds to a sorted set member by member, each if the conditions say so.
const ZADD_SCRIPT: &[u8] = b"for i=2,#ARGV,2 do \
local old=redis.call('ZSCORE',KEYS[1],ARGV[i+1]) local go=true \
if old then local a,b=tonumber(ARGV[i]),tonumber(old) \
if ARGV[1]:find('NX') or (ARGV[1]:find('GT') and a<=b) or (ARGV[1]:find('LT') and a>=b) then go=false end \
elseif ARGV[1]:find('XX') then go=false end \
if go then redis.call('ZADD',KEYS[1],ARGV[i],ARGV[i+1]) end end";

/// Takes a value from one list and gives it to another.
const LMOVE_SCRIPT: &[u8] =
    b"local v=redis.call(ARGV[1],KEYS[1]) if v then redis.call(ARGV[2],KEYS[2],v) end";

/// Copies a key with its TTL.
const COPY_SCRIPT: &[u8] =
    b"local v=redis.call('DUMP',KEYS[1]) local t=redis.call('PTTL',KEYS[1]) \
redis.call('DEL',KEYS[2]) redis.call('RESTORE',KEYS[2],math.max(t,0),v)";

/// Operations of `BITOP` that came with 8.2.
const NEW_BITOPS: [&[u8]; 4] = [b"DIFF", b"DIFF1", b"ANDOR", b"ONE"];

impl Work<'_> {
    /// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] (score member)...`. It has changed something at the source: of a single
    /// member the condition was met. Of several, some may not have met it.
    pub(super) fn zadd(mut self) -> Done {
        let words = self.words;
        let is_option = |at: usize| {
            let options: [&[u8]; 6] = [b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"];
            options.into_iter().find(|name| words.is(at, name))
        };
        let given: Vec<&[u8]> = (2..words.len()).map_while(is_option).collect();
        let has = |name: &[u8]| given.contains(&name);
        let known = self.options.target.zadd_options && !has(b"GT") && !has(b"LT");
        let from = 2 + given.len();
        let members = words.len() - from;
        if given.is_empty() || known || members < 2 || !members.is_multiple_of(2) {
            return Done::Forward;
        }
        let key = words.at(1);
        if members == 2 {
            let name: &[u8] = if has(b"INCR") { b"ZINCRBY" } else { b"ZADD" };
            self.emit(&[name, key, words.at(from), words.at(from + 1)]);
            return Done::Rewritten(1);
        }
        let conditional: [&[u8]; 4] = [b"NX", b"XX", b"GT", b"LT"];
        let conditions: Vec<&[u8]> = conditional.into_iter().filter(|name| has(name)).collect();
        let conditions = conditions.join(&b' ');
        let mut argv = if conditions.is_empty() {
            vec![&b"ZADD"[..], key]
        } else {
            vec![b"EVAL", ZADD_SCRIPT, b"1", key, &conditions]
        };
        argv.extend((from..words.len()).map(|at| words.at(at)));
        self.emit(&argv);
        Done::Rewritten(1)
    }

    /// `LPOP key count`, `RPOP key count`: what is left stays.
    pub(super) fn pop_many(mut self, end: End) -> Done {
        let words = self.words;
        let Some(count) = parse_i64(words.at(2)).filter(|count| *count >= 0 && words.len() == 3)
        else {
            return Done::Forward;
        };
        if count == 0 {
            return Done::Dropped(DropReason::NoEffect);
        }
        let key = words.at(1);
        match end {
            End::First => self.emit(&[b"LTRIM", key, Decimal::new(count).text(), b"-1"]),
            End::Last => {
                let last = Decimal::new((-1_i64).saturating_sub(count));
                self.emit(&[b"LTRIM", key, b"0", last.text()]);
            }
        }
        Done::Rewritten(1)
    }

    /// `ZPOPMIN key [count]`, `ZPOPMAX key [count]`
    pub(super) fn zpop_many(mut self, end: End) -> Done {
        let words = self.words;
        let count = match words.len() {
            2 => Some(1),
            _ => parse_i64(words.at(2)).filter(|count| *count >= 0 && words.len() == 3),
        };
        let Some(count) = count else {
            return Done::Forward;
        };
        if count == 0 {
            return Done::Dropped(DropReason::NoEffect);
        }
        let key = words.at(1);
        match end {
            End::First => {
                let last = Decimal::new(count - 1);
                self.emit(&[b"ZREMRANGEBYRANK", key, b"0", last.text()]);
            }
            End::Last => {
                let first = Decimal::new(-count);
                self.emit(&[b"ZREMRANGEBYRANK", key, first.text(), b"-1"]);
            }
        }
        Done::Rewritten(1)
    }

    /// `LMOVE from to LEFT | RIGHT LEFT | RIGHT`
    pub(super) fn lmove(mut self) -> Done {
        let words = self.words;
        let side = |at: usize| match (words.is(at, b"LEFT"), words.is(at, b"RIGHT")) {
            (true, _) => Some(End::First),
            (_, true) => Some(End::Last),
            _ => None,
        };
        let (Some(from), Some(to), 5) = (side(3), side(4), words.len()) else {
            return Done::Forward;
        };
        let (source, destination) = (words.at(1), words.at(2));
        if (from, to) == (End::Last, End::First) {
            self.emit(&[b"RPOPLPUSH", source, destination]);
            return Done::Rewritten(1);
        }
        let pop: &[u8] = if from == End::First { b"LPOP" } else { b"RPOP" };
        let push: &[u8] = if to == End::First { b"LPUSH" } else { b"RPUSH" };
        self.emit(&[b"EVAL", LMOVE_SCRIPT, b"2", source, destination, pop, push]);
        Done::Rewritten(1)
    }

    /// `COPY source destination [DB db] [REPLACE]`: it was done at the source, so that there was no need to replace, or the
    /// right to.
    pub(super) fn copy_by_value(mut self) -> Result<Done, ErrorKind> {
        let (to, filtered) = self.copy_to();
        if !matches!(filtered, Done::Forward) || to.is_none() {
            return Ok(filtered);
        }
        if to != Some(self.db) {
            return self.lacks("COPY to another db (Redis 6.2)");
        }
        let (source, destination) = (self.words.at(1), self.words.at(2));
        self.emit(&[b"EVAL", COPY_SCRIPT, b"2", source, destination]);
        Ok(Done::Rewritten(1))
    }

    /// `BITOP operation destination source...`
    pub(super) fn bitop(self) -> Result<Done, ErrorKind> {
        if NEW_BITOPS.iter().any(|name| self.words.is(1, name)) {
            return self.lacks("BITOP DIFF, DIFF1, ANDOR and ONE (Redis 8.2)");
        }
        Ok(Done::Forward)
    }

    /// `MSETEX n (key value)... [NX | XX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]` for a target without it. The
    /// condition was met.
    pub(super) fn msetex_apart(mut self) -> Result<Done, ErrorKind> {
        let words = self.words;
        let count = parse_i64(words.at(1)).and_then(|count| usize::try_from(count).ok());
        let end = count.and_then(|count| count.checked_mul(2)?.checked_add(2));
        let Some(end) = end.filter(|end| (4..=words.len()).contains(end)) else {
            return self.unknown_there();
        };
        let (mut at, mut expire_at_ms, mut keep_ttl) = (end, None, false);
        while at < words.len() {
            if let Some(time) = Time::of_option(words.at(at)) {
                at += 1;
                expire_at_ms = self.at_ms(words.at(at), time);
                if expire_at_ms.is_none() {
                    return self.unknown_there();
                }
            } else if words.is(at, b"KEEPTTL") {
                keep_ttl = true;
            } else if !words.is(at, b"NX") && !words.is(at, b"XX") {
                return self.unknown_there();
            }
            at += 1;
        }
        let mut commands = 0;
        for at in (2..end).step_by(2) {
            let (key, value) = (words.at(at), words.at(at + 1));
            commands += match expire_at_ms {
                Some(at_ms) => self.set_until(key, value, at_ms),
                None if keep_ttl => self.set_keeping(key, value),
                None => {
                    self.emit(&[b"SET", key, value]);
                    1
                }
            };
        }
        Ok(Done::Rewritten(commands))
    }

    /// The command with a command name and words of ours before the rest of it.
    pub(super) fn emit_with(&mut self, head: &[&[u8]], rest_from: usize) {
        let words = self.words;
        let rest = words.len().saturating_sub(rest_from);
        encode::command_header(self.out, head.len() + rest);
        for word in head {
            encode::bulk(self.out, word);
        }
        for at in rest_from..words.len() {
            encode::bulk(self.out, words.at(at));
        }
    }
}
