//! Golden files: what the writer makes is what is checked in, and decodes to what is checked in.
//!
//! `UPDATE_GOLDEN=1 cargo test -p rdb --test golden` writes them anew; the difference is to be read.

mod support;

use std::fs;
use std::path::PathBuf;

use rdb::types::ROWS;
use rdb::{Event, Limits, Poll};
use support::{Mode, as_text, files, whole};

fn path(name: &str, ending: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.{ending}"))
}

fn update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

#[test]
fn files_are_as_written() {
    for (name, file) in files::all() {
        let path = path(&name, "rdb");
        if update() {
            fs::write(&path, &file).expect("the golden folder can be written");
        }
        let golden = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            golden == file,
            "{name}.rdb differs from what the writer makes"
        );
    }
}

#[test]
fn files_decode_as_recorded() {
    for (name, file) in files::all() {
        let (events, end) = whole(&file, Mode::Elements, &Limits::default());
        let text = as_text(&events, &end);
        let path = path(&name, "events");
        if update() {
            fs::write(&path, &text).expect("the golden folder can be written");
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(text, golden, "{name}");
    }
}

#[test]
fn every_row_has_a_file_that_ends_well_or_says_why_not() {
    for row in ROWS {
        let name = files::name(row);
        let file = fs::read(path(&name, "rdb")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (events, end) = whole(&file, Mode::Elements, &Limits::default());
        match row.id {
            6 | 33 => {
                let error = end.expect_err("a type that cannot be read").to_string();
                assert!(error.contains(row.name), "{error}");
            }
            _ => {
                assert_eq!(end, Ok(Poll::End), "{name}");
                let keys = events.iter().filter(|event| {
                    matches!(event, Event::Key(head) if head.type_id == row.id
                        && head.kind == row.kind
                        && head.encoding == row.encoding)
                });
                assert!(keys.count() > 0, "{name} has a key of its type");
            }
        }
    }
}

#[test]
fn no_file_is_left_over() {
    let wanted: Vec<String> = files::all().into_iter().map(|(name, _)| name).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for entry in fs::read_dir(folder).expect("the golden folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            // Files of real servers: see real.rs.
            continue;
        }
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a name");
        assert!(
            wanted.iter().any(|name| name == stem),
            "{stem} belongs to no row"
        );
    }
}
