//! Rules of the house that no compiler knows.

use std::fs;
use std::path::{Path, PathBuf};

/// They get bytes and a clock's numbers handed in, and hand out events: that is why they can be tested to the byte.
const PURE: [&str; 4] = ["resp", "rdb", "replica", "rewrite"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files under a folder, sorted.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn crates() -> Vec<String> {
    let folders = fs::read_dir(root().join("crates"))
        .expect("crates")
        .flatten();
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| root().join("crates").join(name).join("Cargo.toml").exists())
        .collect();
    names.sort();
    names
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The lines of a source file that are neither comment nor test, numbered from 1. A test module is the last thing in a
/// file here.
fn code(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .collect()
}

/// The lines of `[dependencies]` of a manifest, without those for tests.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut table = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line;
        } else if table == "[dependencies]" && !line.is_empty() && !line.starts_with('#') {
            found.push(line.split([' ', '.', '=']).next().unwrap_or_default());
        }
    }
    found
}

#[test]
fn pure_crates_know_no_socket_no_file_no_clock_and_no_thread() {
    let banned = [
        "tokio",
        "mio::",
        "std::net",
        "std::fs",
        "std::thread",
        "std::process",
        "std::env",
        "Instant",
        "SystemTime",
        "std::io::stdin",
        "println!",
        "unsafe ",
    ];
    for name in PURE {
        let folder = root().join("crates").join(name);
        let manifest = read(&folder.join("Cargo.toml"));
        for dependency in dependencies(&manifest) {
            let known = [
                "resp",
                "rdb",
                "bytes",
                "memchr",
                "thiserror",
                "crc-fast",
                "crc64fast",
                "nom",
                "regex",
                "xxhash-rust",
            ];
            assert!(
                known.contains(&dependency),
                "{name} depends on {dependency}"
            );
        }
        let files = rust_files(&folder.join("src"));
        assert!(!files.is_empty());
        for file in files {
            for (line, code) in code(&read(&file)) {
                for word in banned {
                    assert!(
                        !code.contains(word),
                        "{}:{line}: {word}: {code}",
                        file.display()
                    );
                }
            }
        }
    }
}

#[test]
fn pure_crates_cannot_panic_by_a_shortcut() {
    let banned = [
        "todo!",
        "unimplemented!",
        "unreachable!",
        "panic!",
        ".unwrap()",
        ".expect(",
        "dbg!",
    ];
    for name in PURE {
        for file in rust_files(&root().join("crates").join(name).join("src")) {
            // Bodies of fuzz targets are tests.
            if file.ends_with("fuzzing.rs")
                || file.components().any(|part| part.as_os_str() == "fuzzing")
            {
                continue;
            }
            let text = read(&file);
            for (line, code) in not_excepted(code(&text)) {
                for word in banned {
                    assert!(
                        !code.contains(word),
                        "{}:{line}: {word}: {code}",
                        file.display()
                    );
                }
            }
        }
    }
}

/// Without items under an `#[expect]`, which gives its reason.
fn not_excepted(lines: Vec<(usize, &str)>) -> Vec<(usize, &str)> {
    let mut until: Option<String> = None;
    let mut left = Vec::new();
    for (line, code) in lines {
        let indent = code.len() - code.trim_start().len();
        match &until {
            Some(end) if code == end => until = None,
            Some(_) => {}
            None if code.trim_start().starts_with("#[expect(") => {
                until = Some(format!("{}}}", &code[..indent]));
            }
            None => left.push((line, code)),
        }
    }
    left
}

#[test]
fn pure_crates_deny_what_this_cannot_see() {
    for name in PURE {
        let text = read(&root().join("crates").join(name).join("src/lib.rs"));
        for lint in ["unwrap_used", "expect_used", "panic", "indexing_slicing"] {
            assert!(
                text.contains(&format!("clippy::{lint}")),
                "{name} does not deny clippy::{lint}"
            );
        }
    }
}

#[test]
fn nothing_is_left_to_do_in_any_crate() {
    for name in crates() {
        for file in rust_files(&root().join("crates").join(name).join("src")) {
            for (line, code) in code(&read(&file)) {
                for word in [
                    "todo!(",
                    "unimplemented!(",
                    "dbg!(",
                    "#[allow(",
                    "#![allow(",
                ] {
                    assert!(!code.contains(word), "{}:{line}: {code}", file.display());
                }
            }
        }
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    let mut folders: Vec<PathBuf> = crates()
        .iter()
        .map(|name| root().join("crates").join(name))
        .collect();
    folders.push(root().join("tests"));
    for folder in folders {
        for part in ["src", "tests", "benches", "examples"] {
            for file in rust_files(&folder.join(part)) {
                let text = read(&file);
                assert!(
                    text.starts_with("//!"),
                    "{} does not begin with //!",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_file_is_of_a_size_to_be_read() {
    for name in crates() {
        for file in rust_files(&root().join("crates").join(&name).join("src")) {
            let lines = read(&file).lines().count();
            let table = file.ends_with("generated.rs");
            assert!(
                lines <= 900 || table,
                "{} has {lines} lines",
                file.display()
            );
        }
    }
}

#[test]
fn the_architecture_names_every_crate_and_every_module_of_the_daemon() {
    let text = read(&root().join("ARCHITECTURE.md"));
    for name in crates() {
        assert!(
            text.contains(&format!("crates/{name}")) || text.contains(&format!("`{name}`")),
            "no crate {name}"
        );
    }
    let src = root().join("crates/understudy/src");
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).expect("a file of the daemon");
        let name = path.to_string_lossy();
        // A module that is a folder may be named as the folder.
        let folder = name.strip_suffix("mod.rs").unwrap_or(&name);
        assert!(
            text.contains(&*name) || text.contains(folder),
            "ARCHITECTURE.md does not name {name}"
        );
    }
}
