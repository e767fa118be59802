//! Payloads within commands: `RESTORE`, `RESTORE-ASKING`, `FUNCTION RESTORE`.

use resp::encode;

use super::{Done, Losses, Work};
use crate::number::{Decimal, parse_i64};
use crate::outcome::{ErrorKind, printable};
use crate::payload::{self, Unloadable};
use crate::snapshot::{
    SnapshotErrorKind, SnapshotOptions, by_commands, has_field_times, is_at_a_boundary,
};

/// The options of a `RESTORE`.
#[derive(Default)]
struct RestoreOptions<'a> {
    absolute: bool,
    /// `IDLETIME s` or `FREQ n`.
    hint: Option<[&'a [u8]; 2]>,
}

impl<'a> Work<'a> {
    /// `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME s] [FREQ n]`: with an absolute time, over whatever the target
    /// has, and with a payload that the target's version takes.
    pub(super) fn restore(mut self) -> Result<Done, ErrorKind> {
        let words = self.words;
        let Some(ttl) = parse_i64(words.at(2)).filter(|ttl| *ttl >= 0) else {
            return Ok(Done::Forward);
        };
        let Some(options) = self.restore_options() else {
            return Ok(Done::Forward);
        };
        let expire_at_ms = match i64::try_from(self.received_at_ms) {
            _ if ttl == 0 || options.absolute => Some(ttl),
            Ok(now) => ttl.checked_add(now),
            Err(_) => None,
        };
        let Some(expire_at_ms) = expire_at_ms else {
            return Ok(Done::Forward);
        };
        let key = words.at(1);
        let expire_at_ms = match expire_at_ms {
            0 => 0,
            at => self.leased(key, at),
        };
        let payload = match payload::fit(words.at(3), &self.options.target) {
            Ok(_) if is_at_a_boundary(words.at(3)) => return self.rebuild(key, expire_at_ms, None),
            Ok(_) if self.is_to_lease(words.at(3)) => return self.rebuild(key, expire_at_ms, None),
            Ok(payload) => payload,
            Err(Unloadable {
                module: Some(module),
                ..
            }) => {
                let key = printable(key);
                return self.lost(ErrorKind::ModuleUnknown { key, module });
            }
            Err(Unloadable { type_id, .. }) => {
                return self.rebuild(key, expire_at_ms, Some(type_id));
            }
        };
        Ok(self.emit_restore(key, expire_at_ms, &payload, options.hint))
    }

    /// Whether fields of the value may have expiries that are to be moved.
    fn is_to_lease(&self, payload: &[u8]) -> bool {
        let type_id = payload.first().copied().unwrap_or_default();
        self.options.field_lease.is_some() && has_field_times(type_id)
    }

    /// The value by commands, since the target does not know the type or would die of the bytes, or expiries are moved.
    fn rebuild(
        &mut self,
        key: &[u8],
        expire_at_ms: i64,
        unknown: Option<u8>,
    ) -> Result<Done, ErrorKind> {
        let options = SnapshotOptions {
            own_key_mark: self.options.own_key_mark.clone(),
            losses: self.options.losses,
            field_lease: self.options.field_lease,
            ..SnapshotOptions::new(self.options.target.clone(), 0)
        };
        let payload = self.words.at(3);
        *self.has_leased_fields |= self.is_to_lease(payload);
        match by_commands(payload, key, expire_at_ms, options, self.out) {
            Ok(Some(commands)) => Ok(Done::Rewritten(commands)),
            Err(SnapshotErrorKind::TargetLacks { what }) => Err(ErrorKind::TargetLacks { what }),
            Ok(None) if unknown.is_none() => Ok(Done::Forward),
            Ok(None) | Err(_) => self.lost(ErrorKind::TypeUnknown {
                key: printable(key),
                type_id: unknown.or(payload.first().copied()).unwrap_or_default(),
            }),
        }
    }

    /// The value has no place at the target. Where that is allowed the key goes there all the same: what it was before, the
    /// source has no longer.
    fn lost(&mut self, why: ErrorKind) -> Result<Done, ErrorKind> {
        match self.options.losses {
            Losses::Refuse => Err(why),
            Losses::Allow => {
                *self.left_out += 1;
                self.emit(&[b"DEL", self.words.at(1)]);
                Ok(Done::Rewritten(1))
            }
        }
    }

    /// `None`: not a `RESTORE` as any server knows it.
    fn restore_options(&self) -> Option<RestoreOptions<'a>> {
        let words = self.words;
        let mut options = RestoreOptions::default();
        let mut at = 4;
        while at < words.len() {
            if words.is(at, b"ABSTTL") {
                options.absolute = true;
            } else if words.is(at, b"IDLETIME") || words.is(at, b"FREQ") {
                options.hint = Some([words.at(at), words.at(at + 1)]);
                at += 1;
            } else if !words.is(at, b"REPLACE") {
                return None;
            }
            at += 1;
        }
        (at == words.len() && words.len() >= 4).then_some(options)
    }

    fn emit_restore(
        &mut self,
        key: &[u8],
        expire_at_ms: i64,
        payload: &[u8],
        hint: Option<[&[u8]; 2]>,
    ) -> Done {
        let target = &self.options.target;
        let mut commands = 1;
        if !target.restore_replace {
            encode::command(self.out, &[b"DEL", key]);
            commands += 1;
        }
        let hint = hint.filter(|_| target.restore_idle_freq);
        let in_place = target.restore_absttl && expire_at_ms != 0;
        let argc = 4
            + usize::from(target.restore_replace)
            + usize::from(in_place)
            + hint.map_or(0, |hint| hint.len());
        encode::command_header(self.out, argc);
        let at = Decimal::new(expire_at_ms);
        let ttl = if in_place { at.text() } else { b"0" };
        for word in [&b"RESTORE"[..], key, ttl, payload] {
            encode::bulk(self.out, word);
        }
        if target.restore_replace {
            encode::bulk(self.out, b"REPLACE");
        }
        if in_place {
            encode::bulk(self.out, b"ABSTTL");
        }
        for word in hint.into_iter().flatten() {
            encode::bulk(self.out, word);
        }
        if expire_at_ms != 0 && !in_place {
            encode::command(self.out, &[b"PEXPIREAT", key, at.text()]);
            commands += 1;
        }
        Done::Rewritten(commands)
    }

    /// `FUNCTION RESTORE payload [FLUSH | APPEND | REPLACE]`.
    pub(super) fn function_restore(mut self) -> Done {
        let words = self.words;
        let policy = if words.is(3, b"FLUSH") {
            &b"FLUSH"[..]
        } else {
            b"REPLACE"
        };
        let payload = payload::fit_functions(words.at(2), &self.options.target);
        self.emit(&[b"FUNCTION", b"RESTORE", &payload, policy]);
        Done::Rewritten(1)
    }
}
