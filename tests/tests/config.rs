//! The files and commands that people are pointed to are real.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::run_file;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn examples() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("configs")).expect("configs");
    let mut files: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort();
    files
}

#[test]
fn every_example_parses_and_what_it_comes_to_parses_again() {
    let files = examples();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let text = fs::read(&file).expect("an example");
        // The default is a form to fill in: it names no servers.
        let (code, word) = match file.file_name().is_some_and(|name| name == "shake.toml") {
            true => (2, "sync_reader.address"),
            false => (0, ""),
        };
        let shown = run_file(&["config", "shake.toml"], Some(&text));
        assert_eq!(shown.code, code, "{}: {}", file.display(), shown.stderr);
        assert!(shown.stderr.contains(word), "{}", shown.stderr);
        if code == 0 {
            let again = run_file(&["config", "shake.toml"], Some(shown.stdout.as_bytes()));
            assert_eq!(again.code, 0, "{}: {}", file.display(), again.stderr);
            assert_eq!(again.stdout, shown.stdout, "{}", file.display());
        }
    }
}

#[test]
fn the_default_in_configs_is_what_the_binary_prints() {
    let printed = run_file(&["config"], None);
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let kept = fs::read_to_string(root().join("configs/shake.toml")).expect("configs/shake.toml");
    assert!(
        printed.stdout == kept,
        "write it anew: understudy config > configs/shake.toml"
    );
}

/// Every `understudy ...` line in a code block of README.md is a command line that the binary knows.
#[test]
fn the_commands_of_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut seen = 0;
    for (index, line) in readme.lines().enumerate() {
        let line = line.trim().trim_start_matches("$ ");
        let Some(rest) = line.strip_prefix("understudy ") else {
            continue;
        };
        let Some(word) = rest.split_whitespace().next() else {
            continue;
        };
        if word.starts_with('-') || word.contains(['.', '/']) {
            continue;
        }
        let help = run_file(&[word, "--help"], None);
        assert_eq!(
            help.code,
            0,
            "README.md:{}: {line}: {}",
            index + 1,
            help.stderr
        );
        assert!(
            help.stdout.contains("Example"),
            "{word} --help shows no example"
        );
        seen += 1;
    }
    assert!(seen > 0, "README.md names no command");
}
