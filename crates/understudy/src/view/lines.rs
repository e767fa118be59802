//! A status as lines of text.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::config::human_bytes;

/// Groups of commands, notices and stragglers that are named.
const GROUPS: usize = 5;
const NOTICES: usize = 3;
const STRAGGLERS: usize = 8;
/// Places of the bar and of the curve.
const BAR: u64 = 30;
const CURVE: usize = 60;

/// The lag of each link over the last looks, in seconds.
#[derive(Debug, Default)]
pub(super) struct Lags(BTreeMap<String, VecDeque<f64>>);

impl Lags {
    /// Takes note of one more look.
    pub(super) fn note(&mut self, status: &Value) {
        for link in links(status) {
            let lags = self.0.entry(word(&link["link"])).or_default();
            if lags.len() == CURVE {
                lags.pop_front();
            }
            lags.push_back(link["lag_seconds"].as_f64().unwrap_or(0.0));
        }
    }

    /// `"  ▁▂█▁, highest 0.8 s"`; nothing before there are two looks.
    fn curve(&self, link: &str) -> String {
        let lags = match self.0.get(link) {
            Some(lags) if lags.len() > 1 => lags,
            _ => return String::new(),
        };
        const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let highest = lags.iter().copied().fold(0.01, f64::max);
        let step = |lag: f64| {
            let at = usize::try_from(rounded(lag / highest * 7.0)).unwrap_or(0);
            STEPS.get(at).copied().unwrap_or('█')
        };
        let curve: String = lags.iter().map(|lag| step(*lag)).collect();
        format!("  {curve} highest {}", seconds(highest))
    }
}

fn links(status: &Value) -> Vec<&Value> {
    let own = &status["understudy"];
    let several = own["links"].as_array();
    several.map_or_else(|| vec![own], |links| links.iter().collect())
}

/// What `/status` says, for people.
pub(super) fn of(status: &Value, lags: &Lags) -> Vec<String> {
    let own = &status["understudy"];
    let mut lines = vec![format!(
        "understudy {}, since {} UTC: {}, {} commands/s",
        word(&own["version"]),
        word(&status["start_time"]),
        ready_word(own),
        grouped(rate(&status["total_entries_count"]["write_ops"]))
    )];
    for link in links(status) {
        lines.push(String::new());
        lines.extend(link_lines(link, lags));
        lines.extend(cutover_lines(&link["cutover"]));
    }
    if own["links"].is_array() {
        lines.extend(cutover_lines(&own["cutover"]));
    }
    lines.extend(notice_lines(&own["notices"]));
    lines
}

fn ready_word(of: &Value) -> &'static str {
    match of["ready"] == true {
        true => "ready",
        false => "not ready",
    }
}

fn link_lines(link: &Value, lags: &Lags) -> Vec<String> {
    let number = |name: &str| link[name].as_u64().unwrap_or(0);
    let rates = |name: &str| rate(&link["rates"][name]);
    let name = word(&link["link"]);
    let mut lines = vec![
        format!("{name}: {}, {}", word(&link["phase"]), ready_word(link)),
        format!(
            "  from      {} to {}",
            word(&link["source"]),
            word(&link["target"])
        ),
    ];
    lines.extend(texts(&link["waits_for"]).map(|why| format!("  waits     {why}")));
    if link["paused"] == true {
        lines.push(
            "  waits     paused over HTTP: nothing is sent to the target until POST /resume"
                .to_owned(),
        );
    }
    lines.push(format!(
        "  lag       {} / {}{}",
        human_bytes(number("lag_bytes")),
        seconds(link["lag_seconds"].as_f64().unwrap_or(0.0)),
        lags.curve(&name)
    ));
    if let (Some(p50), Some(p99)) = (
        link["latency"]["p50_seconds"].as_f64(),
        link["latency"]["p99_seconds"].as_f64(),
    ) {
        lines.push(format!(
            "  latency   {} from source to target, p99 {}",
            seconds(p50),
            seconds(p99)
        ));
    }
    lines.push(format!(
        "  offset    applied {}, in the spool {}, received {}",
        grouped(number("applied_offset")),
        grouped(number("spooled_offset")),
        grouped(number("source_offset"))
    ));
    lines.push(snapshot_line(link));
    lines.push(format!(
        "  stream    {} commands applied, {}/s, {}/s{}",
        grouped(number("commands_applied")),
        grouped(rates("commands_per_second")),
        human_bytes(rates("stream_bytes_per_second")),
        counts("; dropped: ", &link["commands_dropped"]),
    ));
    lines.push(format!(
        "  spool     {} on disk, at most {} unapplied{}; on the way to the target {} in {} commands",
        human_bytes(number("spool_bytes")),
        human_bytes(number("spool_limit_bytes")),
        if link["spool_disk_full"] == true { "; the disk is full" } else { "" },
        human_bytes(number("inflight_bytes")),
        grouped(number("inflight_commands"))
    ));
    let groups = list(&link["groups"]);
    for (at, group) in groups.iter().take(GROUPS).enumerate() {
        lines.push(format!(
            "  {:<9} {:>12}/s {:>16}  {} ({})",
            if at == 0 { "commands" } else { "" },
            grouped(rate(&group["per_second"])),
            grouped(group["count"].as_u64().unwrap_or(0)),
            word(&group["group"]),
            texts(&group["commands"]).collect::<Vec<_>>().join(", ")
        ));
    }
    for (at, node) in list(&link["nodes"]).iter().enumerate() {
        lines.push(node_line(node, at == 0));
    }
    let open = [
        ("leases_open", "leases open"),
        ("repairs_open", "keys under repair"),
        ("repairs", "keys repaired"),
        ("doubtful", "keys doubtful"),
        ("unchecked", "keys unchecked"),
        ("key_conflicts", "keys that another link writes too"),
        ("slots_held", "slots of the source"),
        ("slots_moving", "slots on their way here"),
    ];
    let open: Vec<String> = open
        .iter()
        .filter(|(name, _)| number(name) > 0)
        .map(|(name, words)| format!("{} {words}", grouped(number(name))))
        .collect();
    if !open.is_empty() {
        lines.push(format!("  keys      {}", open.join(", ")));
    }
    if link["target_throttled"] == true {
        lines.push("  target    throttled: it takes less than half of what it took".to_owned());
    }
    let troubles = [
        counts("errors of the target: ", &link["target_errors"]),
        counts(
            "commands that the target lacks: ",
            &link["commands_lacking"],
        ),
        counts("reconnects: ", &link["reconnects"]),
        counts("full syncs: ", &link["full_resyncs"]),
    ];
    let troubles: Vec<String> = troubles
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    if !troubles.is_empty() {
        lines.push(format!("  events    {}", troubles.join("; ")));
    }
    lines
}

fn snapshot_line(link: &Value) -> String {
    let number = |name: &str| link[name].as_u64().unwrap_or(0);
    let (total, applied) = (number("snapshot_bytes"), number("snapshot_applied_bytes"));
    let keys = grouped(number("snapshot_keys"));
    if link["phase"] != "snapshot" {
        return format!("  snapshot  {keys} keys; {} applied", human_bytes(applied));
    }
    let per_second = human_bytes(rate(&link["rates"]["snapshot_bytes_per_second"]));
    let received = human_bytes(number("snapshot_read_bytes"));
    let Some(share) = (applied * 100).checked_div(total) else {
        return format!(
            "  snapshot  {} of {received} so far applied, {per_second}/s; {keys} keys",
            human_bytes(applied)
        );
    };
    let left = link["snapshot_eta_seconds"].as_f64();
    let left = left.map_or_else(String::new, |left| {
        format!(", about {} left", seconds(left))
    });
    let done = usize::try_from((share * BAR / 100).min(BAR)).unwrap_or(0);
    let open = usize::try_from(BAR).unwrap_or(0) - done;
    format!(
        "  snapshot  [{}{}] {share} % of {}, {received} received, {per_second}/s{left}; {keys} keys",
        "#".repeat(done),
        "-".repeat(open),
        human_bytes(total)
    )
}

fn node_line(node: &Value, is_first: bool) -> String {
    let number = |name: &str| grouped(node[name].as_u64().unwrap_or(0));
    let errors = match node["errors"].as_u64().unwrap_or(0) {
        0 => String::new(),
        errors => format!(", {} errors", grouped(errors)),
    };
    let answered = node["answered_seconds"].as_f64();
    format!(
        "  {:<9} {}: {} slots, {} commands, {}/s, {} on the way, {}{errors}",
        if is_first { "nodes" } else { "" },
        word(&node["address"]),
        number("slots"),
        number("commands"),
        grouped(rate(&node["per_second"])),
        human_bytes(node["inflight_bytes"].as_u64().unwrap_or(0)),
        answered.map_or_else(
            || "no answer yet".to_owned(),
            |ago| format!("answered {} ago", seconds(ago))
        ),
    )
}

/// How ready a cutover is, who is still at the source, and what came late; nothing where no cutover is told of.
fn cutover_lines(cutover: &Value) -> Vec<String> {
    if !cutover.is_object() {
        return Vec::new();
    }
    let mut first = format!("  cutover   {}", ready_word(cutover));
    if cutover["stage"].is_string() {
        first.push_str(&format!(", {}", word(&cutover["stage"])));
    }
    if let Some(fence) = cutover["fence_seconds"].as_f64() {
        first.push_str(&format!(", writes held back for {}", seconds(fence)));
    }
    let mut lines = vec![first];
    lines.extend(texts(&cutover["reasons"]).map(|why| format!("            {why}")));
    let stragglers = list(&cutover["stragglers"]);
    for client in stragglers.iter().take(STRAGGLERS) {
        let writes = match &client["writes"] {
            Value::Bool(true) => "writes".to_owned(),
            Value::Number(count) => format!("{count} writes"),
            _ => "no writes".to_owned(),
        };
        let named = ["name", "user", "lib", "last_command"].map(|field| word(&client[field]));
        let named: Vec<&str> = named
            .iter()
            .map(String::as_str)
            .filter(|text| !text.is_empty() && *text != "?")
            .collect();
        lines.push(format!(
            "            {} {}: {writes}, idle {}",
            word(&client["address"]),
            named.join(" "),
            seconds(client["idle_seconds"].as_f64().unwrap_or(0.0))
        ));
    }
    if stragglers.len() > STRAGGLERS {
        lines.push(format!(
            "            and {} more",
            stragglers.len() - STRAGGLERS
        ));
    }
    let late = &cutover["late_writes"];
    if let Some(total) = late["total"].as_u64().filter(|total| *total > 0) {
        let total = grouped(total);
        lines.push(format!(
            "  late      {total} writes{}",
            counts(": ", &late["by_prefix"])
        ));
    }
    lines
}

/// The newest warnings with their mends.
fn notice_lines(notices: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for notice in list(notices).iter().rev().take(NOTICES) {
        if lines.is_empty() {
            lines.push(String::new());
        }
        let told = |name: &str| notice[name].as_str().filter(|text| !text.is_empty());
        let at = crate::clock::date_time(notice["at_ms"].as_u64().unwrap_or(0));
        let link = told("link").map_or_else(String::new, |link| format!(" {link}:"));
        let times = match notice["count"].as_u64() {
            Some(count) if count > 1 => format!(" ({} times)", grouped(count)),
            _ => String::new(),
        };
        let level = word(&notice["level"]);
        let text = word(&notice["text"]);
        lines.push(format!("{at} {level}:{link} {text}{times}"));
        if told("detail").is_some() {
            lines.push(format!("  {}", word(&notice["detail"])));
        }
        if told("mend").is_some() {
            lines.push(format!("  mend: {}", word(&notice["mend"])));
        }
    }
    lines
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> impl Iterator<Item = String> {
    list(value).iter().map(word)
}

/// A rate of the JSON, whole.
fn rate(value: &Value) -> u64 {
    value.as_f64().map_or(0, rounded)
}

/// `"12 ms"`, `"3.2 s"`, `"2 min 5 s"`, `"3 h 20 min"`.
fn seconds(value: f64) -> String {
    let whole = rounded(value.floor());
    match whole {
        0 if value < 0.01 => format!("{:.1} ms", value * 1e3),
        0 => format!("{:.0} ms", value * 1e3),
        1..60 => format!("{value:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A text of the JSON, without what would steer a terminal.
fn word(value: &Value) -> String {
    let text = value.as_str().unwrap_or("?");
    text.chars().filter(|c| !c.is_control()).collect()
}

/// `"before a 1, b 2"`; nothing where all are zero.
fn counts(before: &str, value: &Value) -> String {
    let all = value.as_object().into_iter().flatten();
    let named: Vec<String> = all
        .filter_map(|(name, count)| Some((name, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(name, count)| format!("{} {}", word(&Value::from(name.as_str())), grouped(count)))
        .collect();
    if named.is_empty() {
        String::new()
    } else {
        format!("{before}{}", named.join(", "))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn rounded(rate: f64) -> u64 {
    rate.max(0.0).round() as u64
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn link() -> Value {
        json!({
            "link": "a>b\u{1b}[2J", "source": "s:1", "target": "t:1", "phase": "stream", "ready": true, "lag_bytes": 2048,
            "lag_seconds": 0.25, "applied_offset": 1_234_567, "repairs_open": 3, "target_errors": { "OOM": 2 },
            "rates": { "commands_per_second": 1500.4 }, "latency": { "p50_seconds": 0.001, "p99_seconds": 0.02 },
            "groups": [{ "group": "STRING", "count": 70, "per_second": 1000.0, "commands": ["SET", "INCR"] }],
            "nodes": [{ "address": "n:1", "slots": 5461, "commands": 7, "per_second": 2.0, "inflight_bytes": 0, "answered_seconds": 0.5, "errors": 1 }],
        })
    }

    #[test]
    fn one_link_and_several_are_told_alike() {
        let mut own = link();
        own["version"] = "1".into();
        let status = json!({
            "start_time": "now", "total_entries_count": { "write_ops": 1_500.4 }, "understudy": own,
        });
        let one = of(&status, &Lags::default());
        assert_eq!(
            one[0],
            "understudy 1, since now UTC: ready, 1,500 commands/s"
        );
        assert_eq!(
            one[2], "a>b[2J: stream, ready",
            "nothing steers the terminal"
        );
        let text = one.join("\n");
        for part in [
            "from      s:1 to t:1",
            "lag       2.0 KiB / 250 ms",
            "latency   1.0 ms from source to target, p99 20 ms",
            "applied 1,234,567",
            "STRING (SET, INCR)",
            "nodes     n:1: 5,461 slots, 7 commands, 2/s, 0 B on the way, answered 500 ms ago, 1 errors",
            "3 keys under repair",
            "OOM 2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let all = json!({ "start_time": "now", "understudy": { "version": "1", "ready": false, "links": [link(), link()] } });
        let all = of(&all, &Lags::default());
        assert!(all[0].contains("not ready"));
        let ready = all.iter().filter(|line| line.contains("stream, ready"));
        assert_eq!(ready.count(), 2);
    }

    #[test]
    fn a_snapshot_has_a_bar_and_the_time_that_is_left() {
        let line = snapshot_line(&json!({
            "phase": "snapshot", "snapshot_bytes": 1000, "snapshot_applied_bytes": 500, "snapshot_read_bytes": 800,
            "snapshot_keys": 12, "snapshot_eta_seconds": 75.0, "rates": { "snapshot_bytes_per_second": 100.0 },
        }));
        let bar = format!("[{}{}] 50 %", "#".repeat(15), "-".repeat(15));
        assert!(
            line.contains(&bar) && line.contains("about 1 min 15 s left"),
            "{line}"
        );
        let line = snapshot_line(
            &json!({ "phase": "snapshot", "snapshot_applied_bytes": 5, "snapshot_read_bytes": 9 }),
        );
        assert!(line.contains("5 B of 9 B so far"), "{line}");
    }

    #[test]
    fn cutover_and_notices_are_told() {
        let lines = cutover_lines(&json!({
            "ready": false, "reasons": ["the lag is too high"], "stage": "gate", "fence_seconds": null,
            "stragglers": [{ "address": "c:1", "name": "worker", "user": "", "lib": null, "last_command": "set", "idle_seconds": 2.5, "writes": true }],
            "late_writes": { "total": 12, "by_prefix": { "session:": 9 } },
        }));
        let text = lines.join("\n");
        for part in [
            "cutover   not ready, gate",
            "the lag is too high",
            "c:1 worker set: writes, idle 2.5 s",
            "12 writes: session: 9",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(cutover_lines(&Value::Null).is_empty());
        let notice = |text: &str| json!({ "at_ms": 0, "level": "warn", "text": text, "detail": "d", "mend": "m", "link": null, "count": 2 });
        let lines = notice_lines(&json!([notice("old"), notice("new")]));
        assert_eq!(lines[1], "1970-01-01 00:00:00 warn: new (2 times)");
        assert_eq!(&lines[2..4], ["  d", "  mend: m"]);
    }

    #[test]
    fn the_lag_is_drawn_from_the_second_look_on() {
        let mut lags = Lags::default();
        for lag in [0.0, 2.0, 1.0] {
            lags.note(&json!({ "understudy": { "link": "l", "lag_seconds": lag } }));
        }
        assert_eq!(lags.curve("l"), "  ▁█▅ highest 2.0 s");
        assert_eq!(lags.curve("other"), "");
    }
}
