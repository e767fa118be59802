//! What a check found, and how that is printed.

use std::fmt::Write;

use serde_json::json;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pass,
    /// The migration runs, but somebody should look at this.
    Warn,
    /// It would not run, or lose something.
    Fail,
    /// It cannot be told.
    Unknown,
}

impl State {
    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was looked at: a short name for scripts.
    pub(super) check: &'static str,
    pub(super) state: State,
    pub(super) what: String,
    /// What to do; empty where there is nothing to be done.
    pub(super) mend: String,
}

/// As it should be.
pub(super) fn pass(check: &'static str, what: impl Into<String>) -> Finding {
    of(check, State::Pass, what, "")
}

/// Worth a look.
pub(super) fn warn(
    check: &'static str,
    what: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    of(check, State::Warn, what, mend)
}

/// In the way.
pub(super) fn fail(
    check: &'static str,
    what: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    of(check, State::Fail, what, mend)
}

/// Not to be told; `mend` says how it could be.
pub(super) fn unknown(
    check: &'static str,
    what: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    of(check, State::Unknown, what, mend)
}

fn of(
    check: &'static str,
    state: State,
    what: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding {
        check,
        state,
        what: what.into(),
        mend: mend.into(),
    }
}

fn count(findings: &[Finding], state: State) -> usize {
    findings.iter().filter(|one| one.state == state).count()
}

/// 1 if anything failed.
pub(super) fn exit_code(findings: &[Finding]) -> u8 {
    u8::from(count(findings, State::Fail) > 0)
}

/// For people.
pub(super) fn table(findings: &[Finding], acl: &[(&str, String)]) -> String {
    let mut text = String::new();
    let width = findings
        .iter()
        .map(|one| one.check.len())
        .max()
        .unwrap_or(0);
    for one in findings {
        let _ = writeln!(
            text,
            "{:<7} {:<width$}  {}",
            one.state.name(),
            one.check,
            one.what
        );
        if !one.mend.is_empty() {
            let _ = writeln!(text, "{:<7} {:<width$}  -> {}", "", "", one.mend);
        }
    }
    for (side, line) in acl {
        let _ = writeln!(text, "\nleast rights at the {side}:\n    {line}");
    }
    let _ = writeln!(
        text,
        "\n{} pass, {} warn, {} fail, {} unknown",
        count(findings, State::Pass),
        count(findings, State::Warn),
        count(findings, State::Fail),
        count(findings, State::Unknown)
    );
    text
}

/// One document.
pub(super) fn json(findings: &[Finding], acl: &[(&str, String)]) -> String {
    let checks: Vec<_> = findings
        .iter()
        .map(|one| {
            json!({
                "check": one.check, "state": one.state.name(), "what": one.what, "mend": one.mend
            })
        })
        .collect();
    let acl: serde_json::Map<_, _> = acl
        .iter()
        .map(|(side, line)| ((*side).to_owned(), json!(line)))
        .collect();
    json!({
        "checks": checks, "acl": acl,
        "sums": {
            "pass": count(findings, State::Pass), "warn": count(findings, State::Warn),
            "fail": count(findings, State::Fail), "unknown": count(findings, State::Unknown),
        },
        "passed": exit_code(findings) == 0,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_alone_make_the_exit_code() {
        let findings = vec![
            pass("a", "fine"),
            warn("b", "hm", "look"),
            unknown("c", "?", "ask"),
        ];
        assert_eq!(exit_code(&findings), 0);
        let findings = [findings, vec![fail("d", "no", "mend it")]].concat();
        assert_eq!(exit_code(&findings), 1);
        let table = table(&findings, &[("source", "ACL SETUSER".to_owned())]);
        assert!(
            table.contains("fail    d  no\n           -> mend it\n"),
            "{table}"
        );
        assert!(
            table.contains("1 pass, 1 warn, 1 fail, 1 unknown"),
            "{table}"
        );
        let json: serde_json::Value = serde_json::from_str(&json(&findings, &[])).unwrap();
        assert_eq!(json["checks"][3]["mend"], "mend it");
        assert_eq!(json["passed"], false);
    }
}
