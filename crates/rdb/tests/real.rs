//! Files that real servers wrote (`cargo xtask golden`), each with the events that the decoder gave when the server itself
//! said the same of its keys.
//!
//! `UPDATE_GOLDEN=1 cargo test -p rdb --test real as_recorded` writes the events anew; the difference is to be read.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rdb::types::ROWS;
use rdb::{Event, Limits, Poll};
use support::{MODES, Mode, Random, as_text, run, whole};

/// Rows that no server writes into a file any more, or yet: testkit's writer alone makes their golden files.
const WRITTEN_BY_TESTKIT: [&str; 7] = [
    // Releases that were never final, and types that DUMP alone gives.
    "MODULE_PRE_GA",
    "HASH_METADATA_PRE_GA",
    "HASH_LISTPACK_EX_PRE_GA",
    "HASH_TMPL_LP",
    "HASH_TMPL_ARRAY",
    // Redis 2.4 wrote it last, for hashes of 2.0.
    "HASH_ZIPMAP",
    // Behind a build flag.
    "GCRA",
];
/// Longer strings are cut in the events, with their length and checksum.
const TEXT_MAX: usize = 64;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/real")
}

/// Name and bytes of every file.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).expect("the folder of real files") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "rdb") {
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let bytes = fs::read(&path).expect("a file");
            files.push((name.expect("a name").into(), bytes));
        }
    }
    files.sort();
    assert!(!files.is_empty(), "there are no files");
    files
}

/// The text of events without what is not there, long strings cut.
fn abridged(text: &str) -> String {
    let absent = ["expire_at_ms", "idle_seconds", "freq", "meta"];
    let text = absent.iter().fold(text.to_owned(), |text, name| {
        text.replace(&format!(", {name}: None"), "")
    });
    let mut rest = text.as_str();
    let mut out = String::with_capacity(text.len());
    while let Some(begin) = rest.find("b\"") {
        let (before, literal) = rest.split_at(begin + 2);
        out.push_str(before);
        let len = literal_len(literal);
        let (literal, after) = literal.split_at(len);
        if len > TEXT_MAX {
            let head: String = literal.chars().take(32).collect();
            let crc = rdb::crc64(0, literal.as_bytes());
            out.push_str(&format!("{head}...\" ({len} characters, {crc:016x})"));
            rest = after.strip_prefix('"').unwrap_or(after);
        } else {
            out.push_str(literal);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Up to the quote that ends it.
fn literal_len(literal: &str) -> usize {
    let mut escaped = false;
    let end = literal.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.expect("a literal ends")
}

#[test]
fn every_file_decodes_as_recorded() {
    for (name, file) in files() {
        let (events, end) = whole(&file, Mode::Elements, &Limits::default());
        assert_eq!(end, Ok(Poll::End), "{name}");
        let text = abridged(&as_text(&events, &end));
        let path = folder().join(format!("{name}.events"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).expect("the folder can be written");
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            text == golden,
            "{name}: the events differ from those recorded"
        );
    }
}

/// However the bytes arrive, and whatever is wanted of the values.
#[test]
fn cuts_change_nothing() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (name, file) in files() {
        for mode in MODES {
            let expected = whole(&file, mode, &Limits::default());
            assert_eq!(expected.1, Ok(Poll::End), "{name} {mode:?}");
            for size in [1, 1 + random.below(64), 1 + random.below(5000)] {
                let cuts = [random.below(file.len()), size];
                let found = run(&file, cuts, mode, &Limits::default());
                assert!(found == expected, "{name} {mode:?} {cuts:?}");
            }
        }
    }
}

/// A file that ends early asks for more, wherever that is, and never goes wrong in another way.
#[test]
fn a_file_that_ends_early_asks_for_more() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for (name, file) in files() {
        for _ in 0..40 {
            let end = random.below(file.len());
            for mode in [Mode::Elements, Mode::Raw(u64::MAX), Mode::Skip] {
                let (_, found) = whole(&file[..end], mode, &Limits::default());
                assert_eq!(found, Ok(Poll::NeedMore), "{name} {mode:?} {end}");
            }
        }
    }
}

#[test]
fn every_row_that_a_server_writes_has_a_real_file() {
    let mut found = BTreeSet::new();
    for (_, file) in files() {
        let (events, _) = whole(&file, Mode::Skip, &Limits::default());
        for event in events {
            if let Event::Key(head) = event {
                let row = ROWS.iter().find(|row| {
                    row.id == head.type_id && row.kind == head.kind && row.encoding == head.encoding
                });
                found.insert(row.expect("a row").name);
            }
        }
    }
    for row in ROWS {
        let by_testkit = WRITTEN_BY_TESTKIT.contains(&row.name);
        assert_eq!(found.contains(row.name), !by_testkit, "{}", row.name);
    }
}

#[test]
fn every_opcode_that_a_server_writes_has_a_real_file() {
    let mut found = BTreeSet::new();
    for (_, file) in files() {
        let (events, _) = whole(&file, Mode::Skip, &Limits::default());
        for event in events {
            let name = match &event {
                Event::Key(head) if head.freq.is_some() => "freq",
                Event::Key(head) if head.idle_seconds.is_some() => "idle",
                Event::Key(head) if head.expire_at_ms.is_some() => "expiry",
                Event::Aux { name, .. } if name.as_ref() == b"lua" => "lua",
                Event::Aux { name, .. } if name.as_ref() == b"repl-id" => "repl-id",
                Event::Aux { name, .. } if name.as_ref() == b"slot-info" => "slot-info",
                Event::Function { .. } => "function",
                Event::ModuleAux { .. } => "module data",
                Event::HashTemplate { .. } => "template",
                Event::SlotInfo { .. } => "slot info",
                Event::ResizeDb { .. } => "size",
                Event::End { checksum: 0 } => "no checksum",
                _ => continue,
            };
            found.insert(name);
        }
    }
    let expected = [
        "expiry",
        "freq",
        "function",
        "idle",
        "lua",
        "module data",
        "no checksum",
        "repl-id",
        "size",
        "slot info",
        "slot-info",
        "template",
    ];
    assert_eq!(found, BTreeSet::from(expected));
}
