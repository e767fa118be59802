//! Every error that ends a link or makes it begin again, in one table: whose trouble it is, what is done about it, and the
//! mend, which the status page shows beside it. `docs/errors.md` is printed from it; tests see to it that the words are those
//! of the code, and the page is this.

mod rows;
mod shards;

#[cfg(test)]
use resp::ErrorCode;

#[cfg(test)]
use crate::client::{class_of, mend};
#[cfg(test)]
use crate::error::Class::{Reconnect, Resync, Stop};
#[cfg(test)]
use crate::error::Side::{Local, Source, Target};
use crate::error::{Class, Side};

/// An error of our own words.
#[derive(Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "side and class are for docs/errors.md")
)]
struct Row {
    /// Words of the message, as they stand in the code.
    says: &'static str,
    side: Side,
    class: Class,
    mend: &'static str,
}

const fn row(says: &'static str, side: Side, class: Class, mend: &'static str) -> Row {
    Row {
        says,
        side,
        class,
        mend,
    }
}

/// All rows.
fn rows() -> impl Iterator<Item = &'static Row> {
    rows::ROWS.iter().chain(shards::ROWS)
}

/// What mends the error with these words, where the table knows it.
pub(crate) fn mend_of(error: &str) -> Option<&'static str> {
    let row = rows().find(|row| is_said(row.says, error))?;
    (row.mend != "the same").then_some(row.mend)
}

/// Whether an error has the words of the code, with whatever stands for `{..}` in them.
fn is_said(words: &str, error: &str) -> bool {
    let mut rest = error;
    words.split('{').enumerate().all(|(at, part)| {
        let part = match at {
            0 => part,
            _ => part.split_once('}').map_or(part, |(_, part)| part),
        };
        match rest.find(part) {
            Some(found) => {
                rest = rest.get(found + part.len()..).unwrap_or_default();
                true
            }
            None => false,
        }
    })
}

/// The page.
#[cfg(test)]
fn page() -> String {
    use std::fmt::Write;
    let class = |class| match class {
        Reconnect => "again, over a new connection, with growing pauses",
        Resync => "look again, or a new snapshot",
        Stop => "stop",
    };
    let exit = |side| match side {
        Source => 3,
        Target => 4,
        Local => 5,
    };
    let mut out = String::from(
        "# Errors\n\n\
         This page is printed from `taxonomy.rs`, `client.rs` and `resp`: a test compares it with them\n\
         (`UPDATE_DOCS=1 cargo test -p understudy --lib taxonomy` writes it anew). The line is\n\
         `error: <side> <address>: <what>; <mend>`, the last one on standard error.\n\n\
         ## What servers answer\n\n\
         | reply | at the source | at the target | mend |\n|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let mends = [mend(*code, Source), mend(*code, Target)];
        let mends = match mends {
            [Some(source), Some(target)] if source != target => {
                format!("source: {source}; target: {target}")
            }
            [source, target] => target.or(source).unwrap_or("").to_owned(),
        };
        let done = match class_of(*code) {
            Reconnect => "again",
            Resync => "resync",
            Stop => "stop",
        };
        let secret = matches!(code, ErrorCode::NoAuth | ErrorCode::WrongPass);
        let note = if secret {
            " (again, where the password is read from a file, a variable, a command or IAM)"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "| `{}` | {done}{note} | {done}{note} | {} |",
            code.word(),
            mends.replace('|', "\\|")
        );
    }
    out.push_str(
        "\n`again`: nothing of the unit was applied; it is sent anew over a new connection, however long that takes. `stop`: exit code\n\
         3 at the source, 4 at the target. A command that fails *inside* a committed EXEC (`WRONGTYPE`, say) is a divergence: its keys\n\
         are copied again from the source, or the link stops (`checkpoint.on_divergence`).\n\n\
         ## What we say ourselves\n\n\
         Where the side is `target`, a connection to the source may say the same with `source` (and exit code 3).\n\n\
         | words | side | what is done | exit code, if it stops | mend |\n|---|---|---|---|---|\n",
    );
    for row in rows() {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            row.says.trim(),
            row.side,
            class(row.class),
            exit(row.side),
            row.mend
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Every file of this crate but this one: its path, and its text up to its tests.
    fn sources() -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        for other in ["../rewrite/src", "../replica/src"] {
            folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(other));
        }
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    if !path.ends_with("sim") {
                        folders.push(path);
                    }
                } else if path.extension().is_some_and(|end| end == "rs")
                    && !path.ends_with("taxonomy.rs")
                    && !path.ends_with("taxonomy/rows.rs")
                {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                    // As the message reads: quotes within it are escaped in the code.
                    found.insert(path, text.replace("\\\"", "\""));
                }
            }
        }
        found
    }

    #[test]
    fn a_mend_is_found_by_the_words() {
        let found = mend_of("source s:1: the server closed the connection");
        assert!(found.is_some_and(|mend| mend.contains("that server's log")));
        let found = mend_of("target t:1: the answer has 123 bytes or more");
        assert!(found.is_some_and(|mend| mend.contains("limits.memory")));
        assert_eq!(mend_of("all is well"), None);
    }

    #[test]
    fn the_words_are_those_of_the_code() {
        let sources = sources();
        for row in rows() {
            let is_there = sources.values().any(|text| text.contains(row.says));
            assert!(is_there, "nowhere in the code: {:?}", row.says);
        }
    }

    #[test]
    fn every_file_that_makes_errors_has_a_row() {
        let makes = [
            "SyncError::stop(",
            "SyncError::resync(",
            "SyncError::reconnect(",
        ];
        for (path, text) in sources() {
            // Those hand on what others say, or say it of a connection as such.
            let hands_on = [
                "error.rs",
                "cli.rs",
                "lease.rs",
                "repair.rs",
                "supervise/stream.rs",
                "compare/lag.rs",
                "compare/run.rs",
            ];
            if hands_on.iter().any(|file| path.ends_with(file)) {
                continue;
            }
            if makes.iter().any(|word| text.contains(word)) {
                let has = rows().any(|row| text.contains(row.says));
                assert!(has, "{} makes errors that no row names", path.display());
            }
        }
    }

    /// What a cluster as the target can end a link with, or make it begin again for: every message in these files.
    #[test]
    fn every_error_of_a_cluster_has_a_row() {
        const MAKES: [&str; 6] = [
            "SyncError::",
            "lost(",
            "refused(",
            "nonsense(",
            "Failed::Gone(",
            "let what =",
        ];
        // Parts of others, and what a server's own word stands behind: that is in the first table.
        const PARTS: [&str; 8] = [
            "was refused: {",
            "cannot be done: {why}",
            "at offset {}: {error}",
            "the target has ended a key",
            "the target has no key",
            "they name too many keys",
            "is left out ({why})",
            "its keys are copied again",
        ];
        let mut seen = 0;
        for (path, text) in sources() {
            let path = path.display().to_string();
            if !path.contains("/target/cluster") && !path.contains("/pipeline/cluster/") {
                continue;
            }
            for make in MAKES {
                for rest in text.split(make).skip(1) {
                    // The next words, if they stand in the same statement.
                    let statement = rest.split(";\n").next().unwrap_or_default();
                    let Some((_, said)) = statement.split_once('"') else {
                        continue;
                    };
                    let said = said.lines().next().unwrap_or_default();
                    // One word is a command's name, whose refusal is in the first table.
                    if said.split(' ').count() < 4 || PARTS.iter().any(|part| said.contains(part)) {
                        continue;
                    }
                    seen += 1;
                    let has = rows().any(|row| said.contains(row.says));
                    assert!(has, "{path}: no row for \"{said}");
                }
            }
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn the_page_is_printed_from_here() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text == page(),
            "docs/errors.md is not what the code says: UPDATE_DOCS=1 cargo test -p understudy --lib taxonomy"
        );
    }
}
