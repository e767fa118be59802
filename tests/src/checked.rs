//! What `understudy check` says of a link.

use std::collections::BTreeMap;

use testkit::daemon::STATUS_PORT;

use crate::{Ended, Link, run_file};

/// What `check` said: state, what and mend, by check; the worst where there are several.
pub type Findings = BTreeMap<String, [String; 3]>;

/// Runs `check` on this file, with JSON.
///
/// # Panics
/// Where it prints none, or its exit code says otherwise than its findings.
pub fn check_with(text: &str, more: &[&str]) -> (Ended, Findings) {
    let text = text.replace(STATUS_PORT, "0");
    let args = [&["check", "shake.toml", "--json", "--seconds", "1"], more].concat();
    let ended = run_file(&args, Some(text.as_bytes()));
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: code {} {:?}\n{}",
            ended.code, ended.stdout, ended.stderr
        )
    });
    let rank = |state: &str| {
        ["fail", "warn", "unknown", "pass"]
            .iter()
            .position(|one| *one == state)
    };
    let mut findings = Findings::new();
    for one in json["checks"].as_array().expect("a list") {
        let field = |name: &str| one[name].as_str().expect("a text").to_owned();
        let found = [field("state"), field("what"), field("mend")];
        let kept = findings
            .entry(field("check"))
            .or_insert_with(|| found.clone());
        if rank(&found[0]) < rank(&kept[0]) {
            *kept = found;
        }
    }
    assert_eq!(
        ended.code,
        i32::from(findings.values().any(|one| one[0] == "fail"))
    );
    (ended, findings)
}

/// The same on a link; what was found.
///
/// # Panics
/// As [`check_with`].
pub fn check(link: &Link) -> Findings {
    check_with(&link.text(), &[]).1
}

/// Asserts what was found and how it is to be mended.
///
/// # Panics
/// Where that is otherwise.
pub fn expect(findings: &Findings, check: &str, state: &str, what: &str, mend: &str) {
    let Some([is, says, mends]) = findings.get(check) else {
        panic!("no {check}: {findings:#?}");
    };
    assert_eq!(is, state, "{check}: {findings:#?}");
    assert!(
        says.contains(what),
        "{check}: {says:?} does not say {what:?}"
    );
    assert!(
        mends.contains(mend),
        "{check}: {mends:?} does not say {mend:?}"
    );
}
