//! What the target answers to what was made of a key, for whoever sends such commands: the snapshot, and keys that are read by
//! SCAN.

use resp::{ErrorReply, ReplyKind};
use rewrite::{Expect, Sent, SnapshotError, SnapshotErrorKind};

use super::ALLOW_LOSS;
use super::snapshot::{is_unknown_module, method_name};
use super::stream::show;
use crate::client::mend;
use crate::error::Side;

/// Whether the answer says that the target has the key, or the library, already.
pub(crate) fn exists(expect: Expect, kind: &ReplyKind) -> bool {
    match (kind, expect) {
        (ReplyKind::Error(error), Expect::OkOrBusyKey) => error.code == resp::ErrorCode::BusyKey,
        (ReplyKind::Error(error), Expect::BulkOrExists) => error.text.ends_with(b"already exists"),
        (ReplyKind::Null, Expect::NilMeansExists)
        | (ReplyKind::Int(0), Expect::ZeroMeansExists) => true,
        _ => false,
    }
}

/// An error reply to a command, or to a unit as a whole, in words, with the mend.
pub(crate) fn refusal(sent: Option<&Sent>, error: &ErrorReply) -> String {
    let text = String::from_utf8_lossy(&error.text);
    let Some(sent) = sent else {
        return format!("a unit was refused: {text}");
    };
    let mend = match mend(error.code, Side::Target) {
        Some(mend) => format!("; {mend}"),
        None if is_unknown_module(sent, error) => {
            format!("; its value is a module's, which the target may not have{ALLOW_LOSS}")
        }
        None => String::new(),
    };
    format!(
        "{} of key \"{}\" (db {}) was refused: {text}{mend}",
        method_name(sent.method),
        show(&sent.key),
        sent.db.0
    )
}

/// Why a value has no place at the target, in words, with the mend.
pub(crate) fn cannot_hold(error: &SnapshotError) -> String {
    let mend = match error.kind {
        SnapshotErrorKind::TargetLacks { .. }
        | SnapshotErrorKind::ModuleUnknown { .. }
        | SnapshotErrorKind::TypeUnknown { .. } => ALLOW_LOSS,
        _ => "",
    };
    format!("{error}{mend}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_says_so_in_its_own_way() {
        let error = |text: &'static str| ReplyKind::Error(ErrorReply::new(text));
        let busy = error("BUSYKEY Target key name already exists.");
        let library = error("ERR Library 'lib' already exists");
        let other = error("ERR Error compiling function");
        let cases = [
            (Expect::OkOrBusyKey, &busy),
            (Expect::BulkOrExists, &library),
            (Expect::NilMeansExists, &ReplyKind::Null),
            (Expect::ZeroMeansExists, &ReplyKind::Int(0)),
        ];
        for (expect, kind) in cases {
            assert!(exists(expect, kind), "{expect:?}");
            assert!(!exists(expect, &other), "{expect:?}");
            assert!(!exists(Expect::Ok, kind), "{kind:?}");
        }
        assert!(!exists(Expect::ZeroMeansExists, &ReplyKind::Int(1)));
    }
}
