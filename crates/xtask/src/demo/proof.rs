//! Is the target the source, and was every write applied once? Asked of the two servers, not of the daemon.

use std::collections::BTreeMap;
use std::time::Instant;

use testkit::client::{Argv, number, text};
use testkit::oracle::{self, OracleOptions};
use testkit::{Client, argv};

use super::Demo;
use super::cutover::Cutover;
use crate::text::{count, seconds};

/// Keys are asked for their type so many at a time.
const BATCH: usize = 1000;
/// So many differences are shown.
const SHOWN: usize = 20;

/// What is at the target.
#[derive(Default)]
pub(super) struct Proof {
    pub(super) keys: u64,
    pub(super) dbs: u64,
    pub(super) with_expiry: u64,
    pub(super) by_type: BTreeMap<String, u64>,
    pub(super) groups: u64,
    pub(super) counters: u64,
    /// Entries of the counters' lists and streams, each numbered.
    pub(super) entries: u64,
}

impl Demo {
    /// Compares everything; an error that names what differs.
    pub(super) fn prove(&self, cutover: &Cutover) -> Result<Proof, String> {
        self.screen.step("The proof");
        let from = Instant::now();
        self.screen.live("comparing every key of both servers");
        let options = OracleOptions::live(&self.source.engine().version);
        let address = self.target.address();
        let differences = oracle::compare_with(&self.source.address(), &address, &options);
        if !differences.is_empty() {
            let shown: Vec<String> = differences
                .iter()
                .take(SHOWN)
                .map(ToString::to_string)
                .collect();
            return Err(self.failed("source and target differ", &shown));
        }
        let proof = take_census(&mut self.target.client()?);
        self.screen.good(&format!(
            "{} keys compared, value by value: nothing differs ({})",
            count(proof.keys),
            seconds(from.elapsed())
        ));
        self.screen.good(&format!(
            "{} expiries {}, {} consumer groups with who has what pending",
            count(proof.with_expiry),
            if options.expiry_tolerance_ms == 0 {
                "to the millisecond"
            } else {
                "as exactly as this source tells"
            },
            count(proof.groups)
        ));
        let wrong = cutover.ledger.check(&address);
        if !wrong.is_empty() {
            return Err(self.failed("writes were lost or doubled", &wrong));
        }
        self.screen.good(&format!(
            "{} counter keys as acknowledged; {} numbered entries, no hole and no double",
            proof.counters,
            count(proof.entries)
        ));
        Ok(proof)
    }

    fn failed(&self, what: &str, lines: &[String]) -> String {
        self.keep_logs();
        format!(
            "{what}:\n   {}\nlogs: {}",
            lines.join("\n   "),
            self.folder.display()
        )
    }
}

fn take_census(client: &mut Client) -> Proof {
    let mut proof = Proof::default();
    let info = client.info("keyspace");
    let expiries = info.values().filter_map(|line| {
        let (_, rest) = line.split_once("expires=")?;
        rest.split(',').next()?.parse::<u64>().ok()
    });
    proof.with_expiry = expiries.sum();
    for db in client.keyspace().into_keys() {
        client.select(db);
        let mut keys = client.keys();
        keys.retain(|key| !key.windows(10).any(|part| part == b"understudy"));
        proof.dbs += u64::from(!keys.is_empty());
        for keys in keys.chunks(BATCH) {
            proof.count(client, keys);
        }
    }
    proof
}

impl Proof {
    fn count(&mut self, client: &mut Client, keys: &[Vec<u8>]) {
        let types: Vec<Argv> = keys.iter().map(|key| argv!["TYPE", key]).collect();
        for (key, kind) in keys.iter().zip(client.commands(&types)) {
            let kind = text(&kind);
            // A key may have died since SCAN.
            if kind == "none" {
                continue;
            }
            self.keys += 1;
            let is_counter = key.starts_with(b"count:{");
            self.counters += u64::from(is_counter);
            match kind.as_str() {
                "stream" => {
                    self.groups += groups(client, key);
                    if is_counter {
                        self.entries += length(client, "XLEN", key);
                    }
                }
                "list" if is_counter => self.entries += length(client, "LLEN", key),
                _ => {}
            }
            *self.by_type.entry(kind).or_default() += 1;
        }
    }
}

fn length(client: &mut Client, command: &str, key: &[u8]) -> u64 {
    let length = client.try_command(&argv![command, key]).ok();
    let length = length.as_ref().and_then(number).unwrap_or(0);
    u64::try_from(length).unwrap_or(0)
}

fn groups(client: &mut Client, key: &[u8]) -> u64 {
    let groups = client.try_command(&argv!["XINFO", "GROUPS", key]);
    groups.map_or(0, |groups| testkit::client::items(groups).len() as u64)
}
