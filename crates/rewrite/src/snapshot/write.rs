//! Commands, and what is noted of each.

use bytes::Bytes;
use rdb::KeyHead;
use resp::encode;

use super::Existing;
use crate::number::Decimal;
use crate::{Db, Kind};

/// A command that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The key it is for, whatever name it is built under; empty if it is for none.
    pub key: Bytes,
    /// The key's db.
    pub db: Db,
    /// What the value is; a string for what is no key's.
    pub kind: Kind,
    /// How the value is written.
    pub method: Method,
    /// Which reply is expected.
    pub expect: Expect,
    /// With this command the key is complete.
    pub last_of_key: bool,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// As a string in one command (and its time in another, if need be).
    Set,
    /// As bytes that the target decodes.
    Restore,
    /// By several commands.
    Commands,
    /// Not a value: the db.
    Select,
    /// Not a value: a library of functions.
    Function,
    /// Not a value: a script.
    Script,
}

/// Which reply a command should get. Anything else is an error of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expect {
    /// `+OK`.
    Ok,
    /// `+OK`, or `-BUSYKEY` if the target has the key.
    OkOrBusyKey,
    /// `+OK`, or nil if the target has the key.
    NilMeansExists,
    /// `:1`, or `:0` if the target has the key.
    ZeroMeansExists,
    /// Any number.
    Int,
    /// A bulk string.
    Bulk,
    /// A bulk string, or an error that says that the library exists.
    BulkOrExists,
    /// An array.
    Array,
}

impl Sent {
    pub(super) fn new(head: &KeyHead, method: Method, expect: Expect) -> Self {
        let (key, db, kind) = (head.key.clone(), head.db, head.kind);
        Self {
            key,
            db,
            kind,
            method,
            expect,
            last_of_key: false,
        }
    }

    pub(super) fn last(mut self) -> Self {
        self.last_of_key = true;
        self
    }

    /// A key that is gone.
    pub(super) fn deleted(db: Db, key: Bytes) -> Self {
        Self {
            key,
            ..Self::without_key(db, Method::Commands, Expect::Int)
        }
    }

    fn without_key(db: Db, method: Method, expect: Expect) -> Self {
        Self {
            key: Bytes::new(),
            db,
            kind: Kind::String,
            method,
            expect,
            last_of_key: false,
        }
    }
}

pub(super) fn select(db: Db, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
    encode::command(out, &[b"SELECT", Decimal::new(i64::from(db.0)).text()]);
    sent.push(Sent::without_key(db, Method::Select, Expect::Ok));
}

pub(super) fn script(code: &[u8], out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
    encode::command(out, &[b"SCRIPT", b"LOAD", code]);
    sent.push(Sent::without_key(Db(0), Method::Script, Expect::Bulk));
}

pub(super) fn flush_functions(out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
    encode::command(out, &[b"FUNCTION", b"FLUSH"]);
    sent.push(Sent::without_key(Db(0), Method::Function, Expect::Ok));
}

pub(super) fn delete_library(name: &[u8], out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
    encode::command(out, &[b"FUNCTION", b"DELETE", name]);
    sent.push(Sent::without_key(Db(0), Method::Function, Expect::Ok));
}

pub(super) fn function(code: &[u8], existing: Existing, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
    let expect = match existing {
        Existing::Replace => {
            encode::command(out, &[b"FUNCTION", b"LOAD", b"REPLACE", code]);
            Expect::Bulk
        }
        Existing::Fail | Existing::Skip => {
            encode::command(out, &[b"FUNCTION", b"LOAD", code]);
            Expect::BulkOrExists
        }
    };
    sent.push(Sent::without_key(Db(0), Method::Function, expect));
}

/// `PEXPIREAT`.
pub(super) fn expire(name: &[u8], at_ms: i64, out: &mut Vec<u8>) {
    encode::command(out, &[b"PEXPIREAT", name, Decimal::new(at_ms).text()]);
}

/// Frees a name that a value is to be built under.
pub(super) fn delete(name: &[u8], unlink: bool, out: &mut Vec<u8>) {
    encode::command(out, &[if unlink { b"UNLINK" } else { b"DEL" }, name]);
}
