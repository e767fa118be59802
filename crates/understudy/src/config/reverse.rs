//! The way back: the shake.toml of a link from the target to the source.

use std::fmt::Write;
use std::path::Path;

use super::document::{ConfigError, Document, Value};
use super::keys::{KEYS, Key, Kind};
use super::print::literal;

/// What one reaches a server by, in either table.
const ENDPOINT: [&str; 17] = [
    "address",
    "username",
    "password",
    "password_file",
    "password_env",
    "password_command",
    "reauth_after",
    "iam.cache_name",
    "iam.region",
    "iam.serverless",
    "tls",
    "tls_config.ca_cert",
    "tls_config.cert",
    "tls_config.key",
    "tls_config.server_name",
    "tls_config.insecure",
    "tls_config.min_version",
];

/// The file of the way back from where `file` leads to. No secret is in it: what is a password there is a variable here.
///
/// # Errors
/// As reading the file; what has no way back in this version.
pub fn reverse(file: &Path) -> Result<String, ConfigError> {
    text(file, Secrets::Named)
}

/// The way back as a configuration of this process.
///
/// # Errors
/// As [`reverse`].
pub fn reversed(file: &Path) -> Result<super::Config, ConfigError> {
    super::Config::parse(file, &text(file, Secrets::Inside)?)
}

/// Where the passwords are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrets {
    /// In variables, which the text names.
    Named,
    /// In the text, which nobody is shown.
    Inside,
}

fn text(file: &Path, secrets: Secrets) -> Result<String, ConfigError> {
    let doc = Document::read(file)?;
    super::Config::from_document(&doc)?;
    refuse_one_way(&doc)?;
    let mut out = format!(
        "# The way back of {}: from its target to its source.\n\
         # Start it when the application writes to the new server only, and the other link has stopped, or has made its switch by\n\
         # `understudy cutover` (two links that apply would follow each other). Behind `cutover --reverse` it goes on from the switch;\n\
         # else it takes a snapshot of the new server over the old one's keys, removes there what is gone, and follows.\n",
        file.display()
    );
    // A server that was read by SCAN is written to like any other; the new one is asked for PSYNC first.
    let old = match doc.is_filled("scan_reader.address") {
        true => "scan_reader",
        false => "sync_reader",
    };
    let ends = [
        ("sync_reader", "redis_writer", "SOURCE"),
        ("redis_writer", old, "TARGET"),
    ];
    for (table, from, side) in ends {
        let _ = writeln!(out, "\n[{table}]");
        for name in ENDPOINT {
            let (Some(old), true) = (key(from, name), doc.is_set(&format!("{from}.{name}"))) else {
                continue;
            };
            if old.kind == Kind::Secret {
                secret(&mut out, name, side, &doc, old, secrets);
                continue;
            }
            let _ = writeln!(out, "{name} = {}", literal(old, doc.value(old.path)));
        }
        for key in KEYS.iter().filter(|key| doc.is_set(key.path)) {
            let name = key
                .path
                .strip_prefix(table)
                .and_then(|name| name.strip_prefix('.'));
            let stays = |name: &&str| !ENDPOINT.contains(name) && is_kept(table, name);
            if let Some(name) = name.filter(stays) {
                let _ = writeln!(out, "{name} = {}", literal(key, doc.value(key.path)));
            }
        }
        if table == "redis_writer" {
            out.push_str("# The old server's keys are older ones of the same data: replaced, and removed where they are gone.\nexisting_keys = \"mirror\"\n");
        }
    }
    rest(&mut out, &doc, secrets);
    Ok(out)
}

fn key(table: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| {
        let rest = key
            .path
            .strip_prefix(table)
            .and_then(|rest| rest.strip_prefix('.'));
        rest == Some(name)
    })
}

/// A password is asked of the environment; a command for one is nobody's secret but may hold one.
fn secret(
    out: &mut String,
    name: &str,
    side: &str,
    doc: &Document,
    key: &'static Key,
    secrets: Secrets,
) {
    if doc.text(key.path).is_empty() {
        return;
    }
    if secrets == Secrets::Inside {
        let _ = writeln!(out, "{name} = {}", literal(key, doc.value(key.path)));
        return;
    }
    let variable = format!("UNDERSTUDY_{side}_{}", name.to_uppercase());
    let _ = writeln!(
        out,
        "# As {} in the other file.\n{name} = \"${{{variable}}}\"",
        key.path
    );
}

/// What says how one writes or reads, and holds in either direction.
fn is_kept(table: &str, name: &str) -> bool {
    match table {
        "redis_writer" => !matches!(name, "existing_keys" | "profile" | "cluster"),
        // How PSYNC is called is the other server's affair.
        _ => !matches!(
            name,
            "psync_command" | "cluster" | "prefer_replica" | "full_syncs_per_host"
        ),
    }
}

/// What is no server's: filters, limits, and files of its own.
fn rest(out: &mut String, doc: &Document, secrets: Secrets) {
    let mut table = "";
    let mut wants_dir = !doc.is_set("advanced.dir") && !doc.is_set("spool.dir");
    let dir = "dir = \"data-back/spool\"\n";
    for key in KEYS.iter().filter(|key| doc.is_set(key.path)) {
        let Some((of, name)) = key.path.split_once('.') else {
            continue;
        };
        // How a switch is done belongs to the one server that is left.
        let is_elsewhere = matches!(
            of,
            "sync_reader"
                | "redis_writer"
                | "rdb_reader"
                | "aof_reader"
                | "file_writer"
                | "cutover"
        );
        let is_of_the_first_start = matches!(
            key.path,
            "advanced.empty_db_before_sync"
                | "advanced.rdb_restore_command_behavior"
                | "advanced.aws_psync"
        );
        // Of the server that was read; how one reads may stay.
        let is_of_the_old = of == "scan_reader"
            && (ENDPOINT.contains(&name)
                || matches!(name, "scan" | "ksn" | "prefer_replica" | "cluster"));
        if is_elsewhere || is_of_the_first_start || is_of_the_old {
            continue;
        }
        if of != table {
            let _ = writeln!(out, "\n[{of}]");
            table = of;
            if of == "spool" && std::mem::take(&mut wants_dir) {
                out.push_str(dir);
            }
        }
        let value = match key.path {
            "link.name" | "advanced.dir" | "spool.dir" => {
                literal(key, Value::Text(format!("{}-back", doc.text(key.path))))
            }
            // Both links may run for a while.
            "advanced.status_port" if doc.int(key.path) > 0 => {
                (doc.int(key.path).saturating_add(1) & 0xffff).to_string()
            }
            _ if secrets == Secrets::Named
                && key.kind == Kind::Secret
                && !doc.text(key.path).is_empty() =>
            {
                format!("\"${{UNDERSTUDY_{}}}\"", name.to_uppercase())
            }
            _ => literal(key, doc.value(key.path)),
        };
        let _ = writeln!(out, "{name} = {value}");
    }
    if wants_dir {
        let _ = write!(out, "\n[spool]\n{dir}");
    }
}

const FILES: &str = "an end of this link is a file: there is no way back";

/// What cannot be turned round.
fn refuse_one_way(doc: &Document) -> Result<(), ConfigError> {
    let is_file = |key: &'static str| (key, doc.is_filled(key), FILES);
    let refused = [
        is_file("rdb_reader.filepath"),
        is_file("aof_reader.filepath"),
        is_file("file_writer.filepath"),
        (
            "redis_writer.db_map",
            doc.dbs("redis_writer.db_map").is_some(),
            "redis_writer.db_map is set: which database a key came from cannot be told of all of them; write the file of the way back by hand",
        ),
        (
            "filter.function",
            !doc.text("filter.function").trim().is_empty(),
            "filter.function is set: what a key was before the function cannot be told; write the file of the way back by hand",
        ),
        (
            "redis_writer.cluster",
            doc.bool("redis_writer.cluster"),
            "the target is a cluster, and clusters as a source are not in this version",
        ),
        (
            "redis_writer.sentinel",
            doc.is_set("redis_writer.sentinel.address") || doc.is_set("redis_writer.master"),
            "the target is found by Sentinels, and those of a source are not in this version; write the file by hand, with the master's address",
        ),
    ];
    match refused.into_iter().find(|(_, is_set, _)| *is_set) {
        Some((path, _, what)) => Err(doc.error(path, what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shake.toml");
        std::fs::write(&file, text).unwrap();
        reverse(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn both_ends_change_places_and_secrets_stay_behind() {
        let text = back(
            "[sync_reader]\naddress = \"a:1\"\npassword = \"hush\"\npsync_command = \"xsync\"\n\
             [redis_writer]\naddress = \"b:2\"\nusername = \"u\"\npassword_file = \"p\"\ntls = true\ntls_config.min_version = \"1.3\"\nbatch_commands = 7\nexisting_keys = \"fail\"\n\
             [filter]\nblock_db = [3]\n[link]\nname = \"l\"\n[advanced]\nstatus_port = 9\nempty_db_before_sync = true\n",
        )
        .unwrap();
        let parsed: toml::Table = text.parse().unwrap();
        let (reader, writer) = (&parsed["sync_reader"], &parsed["redis_writer"]);
        assert_eq!(reader["address"].as_str(), Some("b:2"));
        assert_eq!(reader["username"].as_str(), Some("u"));
        assert_eq!(reader["tls"].as_bool(), Some(true));
        let version = |table: &toml::Value| table.get("tls_config").cloned();
        assert_eq!(
            version(reader).unwrap()["min_version"].as_str(),
            Some("1.3")
        );
        assert_eq!(version(writer), None);
        assert_eq!(writer["address"].as_str(), Some("a:1"));
        assert_eq!(
            writer["password"].as_str(),
            Some("${UNDERSTUDY_TARGET_PASSWORD}")
        );
        assert_eq!(writer["existing_keys"].as_str(), Some("mirror"));
        assert_eq!(writer["batch_commands"].as_integer(), Some(7));
        assert_eq!(parsed["link"]["name"].as_str(), Some("l-back"));
        assert_eq!(parsed["spool"]["dir"].as_str(), Some("data-back/spool"));
        assert!(parsed["advanced"].get("empty_db_before_sync").is_none());
        assert!(!text.contains("hush") && !text.contains("xsync"), "{text}");
    }

    #[test]
    fn a_source_that_was_read_by_scan_is_written_to() {
        let text = back(
            "[scan_reader]\naddress = \"a:1\"\nusername = \"u\"\npassword = \"hush\"\nksn = true\ndbs = [1]\nrepair_interval = \"5s\"\n\
             [redis_writer]\naddress = \"b:2\"\n",
        )
        .unwrap();
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed["sync_reader"]["address"].as_str(), Some("b:2"));
        assert_eq!(parsed["redis_writer"]["address"].as_str(), Some("a:1"));
        assert_eq!(parsed["redis_writer"]["username"].as_str(), Some("u"));
        let scan = parsed["scan_reader"].as_table().unwrap();
        let keys: Vec<&str> = scan.keys().map(String::as_str).collect();
        assert_eq!(keys, ["dbs", "repair_interval"]);
        assert!(!text.contains("hush"), "{text}");
    }

    #[test]
    fn what_has_no_way_back_is_refused() {
        let error = back(
            "[sync_reader]\naddress = \"a:1\"\n[redis_writer]\naddress = \"b:2\"\ndb_map = { 1 = 0 }\n",
        )
        .unwrap_err();
        assert!(error.contains("db_map"), "{error}");
    }
}
