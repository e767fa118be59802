//! Strings, and the hash commands that are like them.

use super::plan::Time;
use super::{Done, Work};
use crate::number::Decimal;
use crate::outcome::DropReason;

/// Gives a string a new value and leaves its TTL as it is, for targets whose `SET` knows no `KEEPTTL`.
const SET_KEEPTTL_SCRIPT: &[u8] =
    b"local t=redis.call('PTTL',KEYS[1]) redis.call('SET',KEYS[1],ARGV[1]) \
if t>0 then redis.call('PEXPIRE',KEYS[1],t) end";

/// What the options of a `SET` come to.
#[derive(Default)]
struct SetOptions {
    expire_at_ms: Option<i64>,
    keep_ttl: bool,
    conditional: bool,
    /// Something goes: a condition that was met, a `GET`, a time that is not absolute.
    changed: bool,
}

impl Work<'_> {
    /// `SET key value [NX | XX | IFEQ v ...] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
    pub(super) fn set(mut self) -> Done {
        let words = self.words;
        if words.len() == 3
            || (words.len() == 5
                && words.is(3, b"PXAT")
                && self.options.target.set_pxat
                && self.lease.is_none())
        {
            return Done::Forward;
        }
        let Some(options) = self.set_options() else {
            return Done::Forward;
        };
        if options.conditional && self.options.conditions_stay {
            if !self.options.target.set_pxat {
                return Done::Forward;
            }
            return self.absolute_option(3, words.len());
        }
        let (key, value) = (words.at(1), words.at(2));
        let target = &self.options.target;
        match options.expire_at_ms {
            Some(at) if options.changed || !target.set_pxat || self.lease.is_some() => {
                Done::Rewritten(self.set_until(key, value, at))
            }
            None if options.keep_ttl && (options.changed || !target.set_keepttl) => {
                Done::Rewritten(self.set_keeping(key, value))
            }
            None if options.changed => {
                self.emit(&[b"SET", key, value]);
                Done::Rewritten(1)
            }
            Some(_) | None => Done::Forward,
        }
    }

    /// `None`: not a `SET` as any server knows it.
    fn set_options(&self) -> Option<SetOptions> {
        let words = self.words;
        let mut options = SetOptions::default();
        let mut at = 3;
        while at < words.len() {
            let is = |word: &[u8]| words.is(at, word);
            if is(b"NX") || is(b"XX") {
                options.changed = true;
                options.conditional = true;
            } else if is(b"GET") {
                options.changed = true;
            } else if is(b"IFEQ") || is(b"IFNE") || is(b"IFDEQ") || is(b"IFDNE") {
                options.changed = true;
                options.conditional = true;
                at += 1;
            } else if is(b"KEEPTTL") {
                options.keep_ttl = true;
            } else {
                let time = Time::of_option(words.at(at))?;
                at += 1;
                options.expire_at_ms = Some(self.at_ms(words.args.get(at)?.of(words.frame), time)?);
                options.changed |= time != Time::PXAT;
            }
            at += 1;
        }
        (words.len() >= 3 && !(options.keep_ttl && options.expire_at_ms.is_some()))
            .then_some(options)
    }

    /// A new value with the old TTL; how many commands that takes.
    pub(super) fn set_keeping(&mut self, key: &[u8], value: &[u8]) -> u32 {
        if self.options.target.set_keepttl {
            self.emit(&[b"SET", key, value, b"KEEPTTL"]);
        } else {
            self.emit(&[b"EVAL", SET_KEEPTTL_SCRIPT, b"1", key, value]);
        }
        1
    }

    /// A new value and a new expiry; how many commands that takes.
    pub(super) fn set_until(&mut self, key: &[u8], value: &[u8], at_ms: i64) -> u32 {
        let at = Decimal::new(self.leased(key, at_ms));
        if self.options.target.set_pxat {
            self.emit(&[b"SET", key, value, b"PXAT", at.text()]);
            return 1;
        }
        self.emit(&[b"SET", key, value]);
        self.emit(&[b"PEXPIREAT", key, at.text()]);
        2
    }

    /// `SETEX key s value`, `PSETEX key ms value`.
    pub(super) fn set_expiring(mut self, time: Time) -> Done {
        let words = self.words;
        match self.at_ms(words.at(2), time) {
            Some(at) if words.len() == 4 => {
                Done::Rewritten(self.set_until(words.at(1), words.at(3), at))
            }
            Some(_) | None => Done::Forward,
        }
    }

    /// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`: only the TTL matters.
    pub(super) fn getex(mut self) -> Done {
        let words = self.words;
        let key = words.at(1);
        match words.len() {
            2 => Done::Dropped(DropReason::NoEffect),
            3 if words.is(2, b"PERSIST") => {
                self.emit(&[b"PERSIST", key]);
                Done::Rewritten(1)
            }
            4 => {
                let time = Time::of_option(words.at(2));
                let Some(at) = time.and_then(|time| self.at_ms(words.at(3), time)) else {
                    return Done::Forward;
                };
                let at = self.leased(key, at);
                self.emit(&[b"PEXPIREAT", key, Decimal::new(at).text()]);
                Done::Rewritten(1)
            }
            _ => Done::Forward,
        }
    }

    /// `DELEX key ...`, `DELIFEQ key value`: the condition was met.
    pub(super) fn del_first(mut self) -> Done {
        if self.words.len() < 2 {
            return Done::Forward;
        }
        let key = self.words.at(1);
        self.emit(&[b"DEL", key]);
        Done::Rewritten(1)
    }

    /// `HSET key field value...`: of several fields it is `HMSET` to a target before 4.0.
    pub(super) fn hset(self) -> Done {
        if self.options.target.hset_variadic || self.words.len() <= 4 {
            return Done::Forward;
        }
        self.rename("HMSET")
    }
}
