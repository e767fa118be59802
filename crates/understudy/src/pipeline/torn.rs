//! Commands that the filter would have to cut in two: what passes is made of what does not (`RENAME`, `SUNIONSTORE`, `MOVE`,
//! `COPY` out of a key or a database that is left out). The keys that they write are under repair from there on, so that the
//! source's own values come: see [`super::repair`].

use std::collections::BTreeSet;

use resp::Arg;
use rewrite::{Apart, DropReason, Table};

use super::repair::{Touched, is_copied};
use super::stream::heal::Heal;
use crate::checkpoint::Names;
use crate::config::Config;
use crate::status::Status;

/// What becomes of such a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Torn {
    /// These keys of the source are to be copied from there.
    Keys(Names),
    /// A database at the target is to hold what was never copied: only a new snapshot brings that.
    Whole(String),
    /// Nobody can be asked for the values: it is counted, and no more.
    Counted,
}

impl Torn {
    /// For the command with these words, said in `db` of the source.
    pub(super) fn by(config: &Config, table: &Table, db: u32, frame: &[u8], args: &[Arg]) -> Self {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        if word(0).eq_ignore_ascii_case(b"swapdb") {
            return Self::Whole(format!(
                "SWAPDB {} {} is of a database that the filter leaves out and of one that it does not",
                super::show(word(1)),
                super::show(word(2))
            ));
        }
        // What rules about commands have kept out of a key would come with its value.
        if !config.repair || config.filter.may_leave_keys_out() {
            return Self::Counted;
        }
        let touched = Touched::by(table, db, frame, args).names;
        let mut places = Vec::new();
        if let Some(command) = table.lookup(&word(0).to_ascii_lowercase()) {
            rewrite::keys_of(command, frame, args, &mut places);
        }
        let written: Option<Vec<&[u8]>> =
            rewrite::apart(frame, args, &places).map(|apart| match apart {
                Apart::Copy { to, .. } | Apart::Derive { to } => vec![word(to)],
                Apart::Rename { from, to }
                | Apart::MoveMember { from, to, .. }
                | Apart::MoveElement { from, to, .. }
                | Apart::MoveMany { from, to } => vec![word(from), word(to)],
            });
        let is_written = |key: &[u8]| match &written {
            Some(written) => written.contains(&key),
            None => true,
        };
        let mut names = Names::default();
        for (db, key) in touched.iter() {
            if is_written(key) && is_copied(config, db, key) {
                names.insert(db, key.clone());
            }
        }
        match names.is_empty() {
            true => Self::Counted,
            false => Self::Keys(names),
        }
    }
}

impl Heal<'_> {
    /// Brings what this command, said in `db` of the source, has written under repair, if that can be, and counts it; gives the
    /// keys, which the checkpoint is to name. Values that are being read of others stay right.
    pub(super) fn tear(
        &mut self,
        (config, status): (&Config, &Status),
        table: &Table,
        db: u32,
        frame: &[u8],
        args: &[Arg],
    ) -> Option<Names> {
        match Torn::by(config, table, db, frame, args) {
            Torn::Keys(names) => {
                status.dropped.add("under_repair", 1);
                self.bring(&names);
                return Some(names);
            }
            Torn::Whole(what) => self.fail(what),
            Torn::Counted => {
                let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
                tell_counted(&mut self.counted, name);
            }
        }
        status.dropped.add(DropReason::FilterMixed.label(), 1);
        None
    }
}

/// Says once of each command's name that it was only counted.
fn tell_counted(told: &mut BTreeSet<String>, name: &[u8]) {
    let name = super::show(name).to_ascii_uppercase();
    if told.insert(name.clone()) {
        tracing::warn!(
            command = name,
            "the filter lets a part of its keys pass, and it cannot be said with those alone: it is left out and counted (filter_mixed), and what it writes differs at the target from here on; give such keys one side of the filter"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(filter: &str) -> Config {
        let text = format!(
            "[sync_reader]\naddress = \"s:1\"\n[redis_writer]\naddress = \"t:1\"\n[filter]\n{filter}\n"
        );
        Config::parse(Path::new("shake.toml"), &text).unwrap()
    }

    fn torn(filter: &str, db: u32, line: &str) -> Torn {
        let mut frame = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        resp::encode::command(&mut frame, &words);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        decoder.poll(&frame).unwrap();
        Torn::by(&config(filter), &Table::new(), db, &frame, decoder.args())
    }

    fn keys(filter: &str, db: u32, line: &str) -> Vec<String> {
        match torn(filter, db, line) {
            Torn::Keys(names) => names
                .iter()
                .map(|(db, key)| format!("{db}:{}", String::from_utf8_lossy(key)))
                .collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn what_is_written_and_passes_is_copied() {
        let tmp = "block_key_prefix = [\"tmp:\"]";
        assert_eq!(keys(tmp, 0, "RENAME tmp:a b"), ["0:b"]);
        assert_eq!(keys(tmp, 3, "SUNIONSTORE u a tmp:a b"), ["3:u"]);
        assert_eq!(keys(tmp, 0, "EVAL s 3 a tmp:a b"), ["0:a", "0:b"]);
        let db = "block_db = [1]";
        assert_eq!(keys(db, 1, "MOVE k 2"), ["2:k"]);
        assert_eq!(keys(db, 1, "COPY a b DB 0"), ["0:b"]);
        assert!(matches!(torn(db, 0, "SWAPDB 0 1"), Torn::Whole(_)));
    }

    #[test]
    fn rules_about_commands_leave_it_at_a_count() {
        let rules = "block_key_prefix = [\"tmp:\"]\nblock_command = [\"hset\"]";
        assert_eq!(torn(rules, 0, "RENAME tmp:a b"), Torn::Counted);
    }
}
