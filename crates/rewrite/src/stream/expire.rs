//! Times to live: absolute ones only, since a time that counts from now would count from another now at the target.

use bytes::Bytes;
use resp::encode;

use super::plan::{From, Time, Unit};
use super::{Done, Granted, Work};
use crate::number::{Decimal, parse_i64};
use crate::outcome::ErrorKind;

impl Work<'_> {
    /// The Unix time in milliseconds that a time given in a command means. `None`: no number, or beyond all time.
    pub(super) fn at_ms(&self, text: &[u8], time: Time) -> Option<i64> {
        let number = parse_i64(text)?;
        let number = match time.unit {
            Unit::Seconds => number.checked_mul(1000)?,
            Unit::Milliseconds => number,
        };
        match time.from {
            From::Epoch => Some(number),
            From::Now => number.checked_add(i64::try_from(self.received_at_ms).ok()?),
        }
    }

    /// The time to write for the key's expiry: its own, or a later one while the target is behind.
    pub(super) fn leased(&mut self, key: &[u8], at_ms: i64) -> i64 {
        match self.lease.and_then(|rule| rule.moved(at_ms)) {
            Some(later_ms) => {
                let key = Bytes::copy_from_slice(key);
                self.granted.push(Granted {
                    db: self.db,
                    key,
                    at_ms,
                });
                later_ms
            }
            None => at_ms,
        }
    }

    /// The time to write for a field's expiry.
    fn leased_field(&mut self, at_ms: i64) -> i64 {
        match self.options.field_lease.and_then(|rule| rule.moved(at_ms)) {
            Some(later_ms) => {
                *self.has_leased_fields = true;
                later_ms
            }
            None => at_ms,
        }
    }

    /// `EXPIRE key s [NX | XX | GT | LT]` and its three relatives. The condition was met at the source.
    pub(super) fn expire(mut self, time: Time) -> Done {
        let words = self.words;
        if time == Time::PXAT && words.len() == 3 && self.lease.is_none() {
            return Done::Forward;
        }
        let conditions: [&[u8]; 4] = [b"NX", b"XX", b"GT", b"LT"];
        let condition = |at| conditions.iter().any(|word| words.is(at, word));
        // More than one may be given as long as they agree: XX with GT or LT.
        if words.len() < 3 || words.len() > 5 || !(3..words.len()).all(condition) {
            return Done::Forward;
        }
        let Some(at) = self.at_ms(words.at(2), time) else {
            return Done::Forward;
        };
        if self.options.conditions_stay && words.len() > 3 {
            return self.replace(&[(0, b"PEXPIREAT"), (2, Decimal::new(at).text())], &[]);
        }
        let at = self.leased(words.at(1), at);
        self.emit(&[b"PEXPIREAT", words.at(1), Decimal::new(at).text()]);
        Done::Rewritten(1)
    }

    /// `HEXPIRE key s [condition] FIELDS n field...` and its three relatives. A condition stays: it may have been met by
    /// some of the fields only. Expiries that are moved are all moved by the same, so that it says the same of them; that of
    /// a single field was met.
    pub(super) fn field_expire(mut self, time: Time) -> Result<Done, ErrorKind> {
        if !self.options.target.hash_field_ttl {
            return self.lacks("TTLs of hash fields (Redis 7.4, Valkey 9.0)");
        }
        let words = self.words;
        let Some(own) = self.at_ms(words.at(2), time) else {
            return Ok(Done::Forward);
        };
        let at = self.leased_field(own);
        // What it is compared with may have been moved, though this one is not.
        let without = self
            .options
            .field_lease
            .and_then(|_| self.condition_of_one());
        if time == Time::PXAT && at == own && without.is_none() {
            return Ok(Done::Forward);
        }
        let at = Decimal::new(at);
        let replaced = [(0, &b"HPEXPIREAT"[..]), (2, at.text())];
        Ok(self.replace(&replaced, without.as_slice()))
    }

    /// Where the condition on an expiry of just one field stands.
    fn condition_of_one(&self) -> Option<usize> {
        let words = self.words;
        let conditions: [&[u8]; 4] = [b"NX", b"XX", b"GT", b"LT"];
        let is_of_one = words.len() == 7 && words.is(4, b"FIELDS") && words.at(5) == b"1";
        let is_condition = conditions.iter().any(|word| words.is(3, word));
        (is_of_one && is_condition && !self.options.conditions_stay).then_some(3)
    }

    /// `HSETEX key [FNX | FXX] [EX s | ...] FIELDS n (field value)...`, `HGETEX key [EX s | ...] FIELDS n field...`.
    pub(super) fn field_options(self) -> Result<Done, ErrorKind> {
        if !self.options.target.hash_field_ttl {
            return self.lacks("TTLs of hash fields (Redis 7.4, Valkey 9.0)");
        }
        let end = (2..self.words.len()).find(|at| self.words.is(*at, b"FIELDS"));
        Ok(self.timed_option(2, end.unwrap_or(2), Self::leased_field))
    }

    /// `HSETEX key [FNX | FXX] [EX s | ... | KEEPTTL] FIELDS n (field value)...` for a target without it: the fields, then
    /// their expiry where it has such. The condition was met.
    pub(super) fn hsetex_apart(mut self) -> Result<Done, ErrorKind> {
        let words = self.words;
        let Some(fields) = (2..words.len()).find(|at| words.is(*at, b"FIELDS")) else {
            return self.unknown_there();
        };
        let from = fields + 2;
        let pairs = words.len().saturating_sub(from);
        if pairs == 0 || !pairs.is_multiple_of(2) {
            return self.unknown_there();
        }
        let target = &self.options.target;
        let (has_ttls, is_variadic) = (target.hash_field_ttl, target.hset_variadic);
        if has_ttls && (2..fields).any(|at| words.is(at, b"KEEPTTL")) {
            return self.lacks("HSETEX ... KEEPTTL (Redis 8.0, Valkey 9.0)");
        }
        let timed = (2..fields).find_map(|at| Some((at, Time::of_option(words.at(at))?)));
        let at = timed.and_then(|(at, time)| self.at_ms(words.at(at + 1), time));
        if timed.is_some() && !has_ttls {
            self.leave_out("TTLs of hash fields (Redis 7.4, Valkey 9.0)")?;
        }
        let name: &[u8] = if is_variadic { b"HSET" } else { b"HMSET" };
        let mut argv = vec![name, words.at(1)];
        argv.extend((from..words.len()).map(|at| words.at(at)));
        encode::command(self.out, &argv);
        let Some(at) = at.filter(|_| has_ttls) else {
            return Ok(Done::Rewritten(1));
        };
        let at = self.leased_field(at);
        let (at, count) = (Decimal::new(at), Decimal::unsigned(pairs as u64 / 2));
        let mut argv = vec![
            b"HPEXPIREAT",
            words.at(1),
            at.text(),
            b"FIELDS",
            count.text(),
        ];
        argv.extend((from..words.len()).step_by(2).map(|at| words.at(at)));
        encode::command(self.out, &argv);
        Ok(Done::Rewritten(2))
    }

    /// `MSETEX n (key value)... [NX | XX] [EX s | ...]`.
    pub(super) fn msetex(self) -> Done {
        let count = parse_i64(self.words.at(1)).and_then(|count| usize::try_from(count).ok());
        let end = self.words.len();
        let from = count
            .and_then(|count| count.checked_mul(2)?.checked_add(2))
            .unwrap_or(end);
        self.timed_option(from, end, |work, at_ms| {
            let words = work.words;
            // The same for all of them.
            (2..from.min(end))
                .step_by(2)
                .fold(at_ms, |_, key| work.leased(words.at(key), at_ms))
        })
    }

    /// Makes the time among the options at `from..end` absolute and takes the conditions off, which were met by all.
    pub(super) fn absolute_option(self, from: usize, end: usize) -> Done {
        self.timed_option(from, end, |_, at| at)
    }

    /// The same, with the time that is to be written for this one.
    fn timed_option(
        mut self,
        from: usize,
        end: usize,
        written: impl Fn(&mut Self, i64) -> i64,
    ) -> Done {
        let words = self.words;
        let conditions: [&[u8]; 4] = [b"NX", b"XX", b"FNX", b"FXX"];
        let is_source = !self.options.conditions_stay;
        let without: Vec<usize> = (from..end)
            .filter(|_| is_source)
            .filter(|at| conditions.iter().any(|word| words.is(*at, word)))
            .collect();
        let timed = (from..end).find_map(|at| Some((at, Time::of_option(words.at(at))?)));
        let own = timed.and_then(|(option, time)| self.at_ms(words.at(option + 1), time));
        let at = own.map(|own| written(&mut self, own));
        let decimal = Decimal::new(at.unwrap_or_default());
        match (timed, at) {
            (Some((option, time)), Some(_)) if time != Time::PXAT || at != own => {
                self.replace(&[(option, b"PXAT"), (option + 1, decimal.text())], &without)
            }
            _ if !without.is_empty() => self.replace(&[], &without),
            _ => Done::Forward,
        }
    }

    /// The same command with some words replaced and some left out.
    fn replace(self, replaced: &[(usize, &[u8])], without: &[usize]) -> Done {
        let words = self.words;
        encode::command_header(self.out, words.len() - without.len());
        for at in (0..words.len()).filter(|at| !without.contains(at)) {
            let other = replaced.iter().find(|(place, _)| *place == at);
            encode::bulk(self.out, other.map_or(words.at(at), |(_, word)| word));
        }
        Done::Rewritten(1)
    }
}
