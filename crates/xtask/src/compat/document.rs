//! What `docs/compatibility.md` says, out of the pairs that were run.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use testkit::compat::{ENGINES, LOSSES, Outcome, Verdict};

const HEAD: &str = "\
# Compatibility

Written by `cargo xtask compat`, not by hand.

Each row is a source, each column a target. The source held one key of every kind, encoding and edge that its version can
hold; its snapshot was brought over with `redis_writer.losses = \"warn\"`, and both servers were compared key by key, in both
directions: type, value, expiry, expiries of fields, streams with groups, consumers, pending entries and counters, functions.

- **equal**: nothing differs
- a number and a letter: equal but for a loss that the target's version makes unavoidable, with its count; the letters are
  below. With `losses = \"fail\"`, the default, the link stops at the first, but for what a server only counts of its own work
  (the counters of streams)
- **refused**: the daemon stops and says why
- **WRONG**: something differs that need not: a defect

Not compared: encodings in memory, LRU and LFU hints. Modules' values go to a target that has the same module, by RESTORE
alone.
";

/// The whole document.
pub(super) fn text(outcomes: &[Outcome]) -> String {
    let mut text = HEAD.to_owned();
    let short = |engine: &str| engine.replace('-', " ");
    let _ = write!(text, "\n| from \\ to |");
    for target in ENGINES {
        let _ = write!(text, " {} |", short(target));
    }
    let _ = write!(text, "\n|---|{}\n", "---|".repeat(ENGINES.len()));
    for source in ENGINES {
        let _ = write!(text, "| **{}** |", short(source));
        for target in ENGINES {
            let mut pairs = outcomes.iter();
            let pair = pairs.find(|pair| pair.source == source && pair.target == target);
            let _ = write!(text, " {} |", pair.map_or_else(String::new, in_table));
        }
        text.push('\n');
    }
    losses(&mut text, outcomes);
    list(&mut text, "Refused", outcomes, |verdict| match verdict {
        Verdict::Refused(why) => vec![why.clone()],
        _ => Vec::new(),
    });
    list(&mut text, "Wrong", outcomes, |verdict| match verdict {
        Verdict::Wrong(what) => what.clone(),
        _ => Vec::new(),
    });
    text
}

fn in_table(pair: &Outcome) -> String {
    match &pair.verdict {
        Verdict::Refused(_) => "refused".into(),
        Verdict::Wrong(_) => "**WRONG**".into(),
        Verdict::Done(lost) if lost.is_empty() => "equal".into(),
        Verdict::Done(lost) => {
            let lost = lost
                .iter()
                .map(|(name, count)| format!("{count}{}", letter(name)));
            lost.collect::<Vec<String>>().join(" ")
        }
    }
}

/// The losses of a pair in words.
pub(super) fn cell(lost: &BTreeMap<&'static str, u64>) -> String {
    if lost.is_empty() {
        return "equal".into();
    }
    let lost = lost.iter().map(|(name, count)| format!("{count} {name}"));
    lost.collect::<Vec<String>>().join(", ")
}

/// A pair as one object.
pub(super) fn json(outcome: &Outcome) -> Value {
    let (verdict, losses, what) = match &outcome.verdict {
        Verdict::Done(lost) if lost.is_empty() => ("equal", json!({}), Vec::new()),
        Verdict::Done(lost) => ("losses", json!(lost), Vec::new()),
        Verdict::Refused(why) => ("refused", json!({}), vec![why.clone()]),
        Verdict::Wrong(what) => ("wrong", json!({}), what.clone()),
    };
    json!({
        "source": outcome.source,
        "target": outcome.target,
        "verdict": verdict,
        "losses": losses,
        "what": what,
        "ran_ms": u64::try_from(outcome.ran.as_millis()).unwrap_or(u64::MAX),
    })
}

/// The letter of a loss: its place in the list of them.
fn letter(name: &str) -> char {
    let place = LOSSES.iter().position(|loss| loss.name == name);
    ('a'..='z').nth(place.unwrap_or(25)).unwrap_or('z')
}

/// One row a kind of loss that occurred.
fn losses(text: &mut String, outcomes: &[Outcome]) {
    text.push_str("\n## Losses\n\n| | what | counter | pairs |\n|---|---|---|---|\n");
    for loss in LOSSES {
        let with = |outcome: &&Outcome| matches!(&outcome.verdict, Verdict::Done(lost) if lost.contains_key(loss.name));
        let pairs = outcomes.iter().filter(with).count();
        if pairs > 0 {
            let reason = loss
                .reason
                .map_or_else(|| "-".into(), |reason| format!("`{reason}`"));
            let _ = writeln!(
                text,
                "| {} | **{}**. {} | {reason} | {pairs} |",
                letter(loss.name),
                loss.name,
                loss.meaning
            );
        }
    }
}

/// What was said about pairs of one verdict, the same words once.
fn list(
    text: &mut String,
    title: &str,
    outcomes: &[Outcome],
    what: impl Fn(&Verdict) -> Vec<String>,
) {
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for outcome in outcomes {
        for line in what(&outcome.verdict) {
            let pair = format!("{} to {}", outcome.source, outcome.target);
            said.entry(line).or_default().push(pair);
        }
    }
    if said.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {title}\n\n");
    for (line, pairs) in said {
        let _ = writeln!(text, "- {line}\n  ({})", pairs.join(", "));
    }
}
