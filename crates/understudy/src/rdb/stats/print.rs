//! What was counted, as tables, as JSON, as bars.

use rdb::Dialect;
use serde_json::{Value, json};

use super::count::{Big, FileFacts, Group, Stats, TTL_STEPS};
use super::table::{bars, table};
use super::top::Top;
use crate::config::human_bytes;
use crate::rdb::names::{grouped, moment, printable};

/// Characters of the longest bar.
const BAR_WIDTH: usize = 40;

/// As tables.
pub(super) fn tables(stats: &Stats) -> String {
    let mut text = head(stats);
    let mut section = |title: &str, body: String| {
        text.push_str(&format!("\n{title}\n{body}"));
    };
    let group_heads = [
        "", "keys", "bytes", "share", "elements", "biggest", "expires",
    ];
    let group = |name: String, group: &Group| {
        vec![
            name,
            grouped(group.keys),
            grouped(group.bytes),
            share(group.bytes, stats.all.bytes),
            grouped(group.elements),
            grouped(group.bytes_max),
            grouped(group.expires),
        ]
    };
    let of = |word: &str| {
        let mut heads = group_heads;
        heads[0] = match word {
            "types" => "type",
            "encodings" => "encoding",
            _ => "db",
        };
        heads
    };
    let mut kinds: Vec<Vec<String>> = by_bytes(stats.kinds.iter())
        .map(|(name, one)| group((*name).to_owned(), one))
        .collect();
    kinds.push(group("all".to_owned(), &stats.all));
    section("Types", table(&of("types"), &kinds));
    let types: Vec<Vec<String>> = by_bytes(stats.types.iter())
        .map(|((id, name), one)| group(format!("{id} {name}"), one))
        .collect();
    section("Encodings", table(&of("encodings"), &types));
    let dbs: Vec<Vec<String>> = stats
        .dbs
        .iter()
        .map(|(db, one)| group(db.to_string(), one))
        .collect();
    section("Databases", table(&of("databases"), &dbs));
    if stats.all.expires > 0 {
        let rows: Vec<Vec<String>> = ttls(stats)
            .map(|(name, count)| {
                vec![
                    name.to_owned(),
                    grouped(count),
                    share(count, stats.all.expires),
                ]
            })
            .collect();
        section("Time to live", table(&["", "keys", "share"], &rows));
    }
    section("Biggest keys by bytes", big_table(&stats.biggest));
    if !stats.longest.sorted().is_empty() {
        section("Biggest keys by elements", big_table(&stats.longest));
    }
    let (prefixes, bound) = stats.prefixes.heaviest(stats.top);
    if !prefixes.is_empty() {
        let rows: Vec<Vec<String>> = prefixes
            .into_iter()
            .map(|(prefix, weight)| {
                vec![
                    printable(prefix),
                    grouped(weight.keys),
                    grouped(weight.bytes),
                    share(weight.bytes, stats.all.bytes),
                ]
            })
            .collect();
        let bound = match bound {
            0 => String::new(),
            bound => format!(" (counts may be low by up to {} bytes)", grouped(bound)),
        };
        let body = table(&["prefix", "keys", "bytes", "share"], &rows);
        section(&format!("Prefixes by bytes{bound}"), body);
    }
    text
}

/// The file itself.
fn head(stats: &Stats) -> String {
    let FileFacts {
        bytes,
        functions,
        function_bytes,
        module_aux,
        templates,
        skipped_empty,
        ..
    } = stats.file;
    let mut rows = vec![
        ("format", format_name(&stats.file)),
        (
            "keys",
            format!(
                "{}, {} with an expiry",
                grouped(stats.all.keys),
                grouped(stats.all.expires)
            ),
        ),
        (
            "bytes",
            format!("{} ({})", grouped(bytes), human_bytes(bytes)),
        ),
    ];
    for (name, value) in &stats.file.aux {
        let value = match (name.as_str(), value.parse::<i64>()) {
            ("ctime", Ok(seconds)) => format!("{value} ({})", moment(seconds.saturating_mul(1000))),
            _ => value.clone(),
        };
        rows.push((name, value));
    }
    let more = [
        (
            functions,
            "functions",
            format!("{functions} libraries, {function_bytes} bytes"),
        ),
        (
            stats.timed_fields,
            "fields",
            format!("{} hash fields with an expiry", stats.timed_fields),
        ),
        (
            module_aux,
            "modules",
            format!("{module_aux} pieces of data beside the keys"),
        ),
        (templates, "templates", format!("{templates} of hashes")),
        (
            skipped_empty,
            "empty",
            format!("{skipped_empty} keys without elements, which servers leave out"),
        ),
    ];
    for (count, name, value) in more {
        if count > 0 {
            rows.push((name, value));
        }
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:<width$}  {value}\n"))
        .collect()
}

fn format_name(file: &FileFacts) -> String {
    match file.format {
        Some((Dialect::Valkey, version)) => format!("VALKEY {}", version.0),
        Some((_, version)) => format!("REDIS {}", version.0),
        None => "none".to_owned(),
    }
}

fn by_bytes<'a, K>(
    groups: impl Iterator<Item = (&'a K, &'a Group)>,
) -> impl Iterator<Item = (&'a K, &'a Group)>
where
    K: 'a,
{
    let mut all: Vec<_> = groups.collect();
    all.sort_by_key(|(_, group)| std::cmp::Reverse(group.bytes));
    all.into_iter()
}

fn ttls(stats: &Stats) -> impl Iterator<Item = (&'static str, u64)> {
    let names = TTL_STEPS.iter().map(|(name, _)| *name);
    names.zip(stats.ttls)
}

fn big_table(top: &Top<Big>) -> String {
    let rows: Vec<Vec<String>> = top
        .sorted()
        .into_iter()
        .map(|(_, big)| {
            vec![
                grouped(big.bytes),
                grouped(big.elements),
                big.db.to_string(),
                big.type_name.to_owned(),
                big.key.clone(),
            ]
        })
        .collect();
    table(&["bytes", "elements", "db", "encoding", "key"], &rows)
}

/// A part of a whole, in percent with one digit behind the point.
fn share(part: u64, whole: u64) -> String {
    let per_mille = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{}%", per_mille / 10, per_mille % 10)
}

/// As bars.
pub(super) fn chart(stats: &Stats) -> String {
    let mut text = head(stats);
    let mut section = |title: &str, rows: Vec<(String, u64, String)>| {
        if !rows.is_empty() {
            text.push_str(&format!("\n{title}\n{}", bars(&rows, BAR_WIDTH)));
        }
    };
    let bar = |name: String, bytes: u64| (name, bytes, human_bytes(bytes));
    section(
        "Bytes by type",
        by_bytes(stats.kinds.iter())
            .map(|(name, group)| bar((*name).to_owned(), group.bytes))
            .collect(),
    );
    section(
        "Bytes by database",
        stats
            .dbs
            .iter()
            .map(|(db, group)| bar(format!("db {db}"), group.bytes))
            .collect(),
    );
    if stats.all.expires > 0 {
        section(
            "Keys by time to live",
            ttls(stats)
                .map(|(name, count)| (name.to_owned(), count, grouped(count)))
                .collect(),
        );
    }
    section(
        "Bytes by prefix",
        stats
            .prefixes
            .heaviest(stats.top)
            .0
            .into_iter()
            .map(|(prefix, weight)| bar(printable(prefix), weight.bytes))
            .collect(),
    );
    section(
        "Biggest keys",
        stats
            .biggest
            .sorted()
            .into_iter()
            .map(|(bytes, big)| bar(format!("{} ({})", big.key, big.kind), bytes))
            .collect(),
    );
    text
}

/// As JSON.
pub(super) fn json(stats: &Stats) -> Value {
    let group = |group: &Group| {
        json!({
            "keys": group.keys, "bytes": group.bytes, "elements": group.elements,
            "biggest_bytes": group.bytes_max, "expires": group.expires
        })
    };
    let big = |(_, big): (u64, &Big)| {
        json!({
            "db": big.db, "key": big.key, "type": big.kind, "encoding": big.type_name,
            "bytes": big.bytes, "elements": big.elements
        })
    };
    let named = |groups: Vec<(String, Value)>| Value::Object(groups.into_iter().collect());
    let (prefixes, bound) = stats.prefixes.heaviest(stats.top);
    let prefixes: Vec<Value> = prefixes
        .into_iter()
        .map(|(prefix, weight)| {
            json!({
                "prefix": printable(prefix), "keys": weight.keys, "bytes": weight.bytes
            })
        })
        .collect();
    let file = &stats.file;
    let aux: Vec<Value> = file
        .aux
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let version = ["valkey-ver", "redis-ver"]
        .into_iter()
        .find_map(|name| file.aux(name));
    json!({
        "file": {
            "format": format_name(file), "bytes": file.bytes, "server_version": version,
            "created_unix": file.aux("ctime").and_then(|text| text.parse::<u64>().ok()),
            "replication_id": file.aux("repl-id"), "replication_offset": file.aux("repl-offset"),
            "aux": aux, "functions": file.functions, "function_bytes": file.function_bytes,
            "module_aux": file.module_aux, "hash_templates": file.templates,
            "empty_keys": file.skipped_empty
        },
        "all": group(&stats.all),
        "types": named(stats.kinds.iter().map(|(name, one)| ((*name).to_owned(), group(one))).collect()),
        "encodings": named(stats.types.iter().map(|((_, name), one)| ((*name).to_owned(), group(one))).collect()),
        "databases": named(stats.dbs.iter().map(|(db, one)| (db.to_string(), group(one))).collect()),
        "ttl": {
            "keys": stats.all.expires, "hash_fields": stats.timed_fields,
            "steps": ttls(stats).map(|(name, keys)| json!({ "left": name, "keys": keys })).collect::<Vec<_>>()
        },
        "biggest_by_bytes": stats.biggest.sorted().into_iter().map(big).collect::<Vec<_>>(),
        "biggest_by_elements": stats.longest.sorted().into_iter().map(big).collect::<Vec<_>>(),
        "prefixes": prefixes, "prefix_error_bytes": bound
    })
}
