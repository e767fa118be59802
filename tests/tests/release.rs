//! What a release is made of: the version that tells its commit, the systemd unit, the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::run_file;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    let file = root().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn the_version_tells_its_commit() {
    let said = run_file(&["--version"], None).stdout;
    let version = env!("CARGO_PKG_VERSION");
    let commit = said.trim().strip_prefix(&format!("understudy {version} ("));
    let commit = commit.and_then(|rest| rest.strip_suffix(')'));
    let commit = commit.unwrap_or_else(|| panic!("{said}"));
    let commit = commit.trim_end_matches("-changed");
    let is_commit = commit.len() >= 12 && commit.chars().all(|c| c.is_ascii_hexdigit());
    assert!(is_commit || ["dev", "unknown"].contains(&commit), "{said}");
    let changes = read("CHANGELOG.md");
    let heading = changes.lines().find(|line| line.starts_with("## ["));
    assert!(
        heading.is_some_and(|heading| heading.contains(version)),
        "{heading:?}"
    );
}

#[test]
fn systemd_takes_the_unit_and_it_may_do_next_to_nothing() {
    let folder = tempfile::TempDir::new().expect("a folder");
    // The program has to be there for systemd; everything else is as it is shipped.
    let unit = read("packaging/understudy.service");
    let program = testkit::daemon::binary();
    let program = fs::canonicalize(program).expect("the program");
    let unit = unit.replace("/usr/local/bin/understudy", &program.display().to_string());
    let file = folder.path().join("understudy.service");
    fs::write(&file, unit).expect("write the unit");
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(&file).env("SYSTEMD_PAGER", "");
        let output = command.output().unwrap_or_else(|error| {
            panic!("systemd-analyze: {error}; apt-get install systemd (.ci/run does)")
        });
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (is_sound, said) = analyze(&["verify", "--man=no"]);
    assert!(is_sound && !said.contains("understudy.service:"), "{said}");
    // Exposure of 2.0 at most, of 10.
    let (is_low, said) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=20"]);
    assert!(is_low && said.contains("Overall exposure level"), "{said}");
}
