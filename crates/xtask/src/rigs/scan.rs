//! The first migration, as docs/first-migration.md tells it: a small hosted Redis without PSYNC, read by SCAN under load, switched
//! to what ElastiCache is like with a proof, one client left behind, and all of it taken back without losing a write.
//!
//! The application's counters and its stream are exact at the end, at the server that it came from; so is what the client that
//! was left behind has written there; and every other key is the same at both servers.

mod application;
mod switch;

use serde_json::Value;
use testkit::argv;

use super::compose::Rig;
use super::wait;
use application::{Application, Straggler};
use switch::Switch;

const FILE: &str = "/etc/understudy/shake.toml";
const BACK: &str = "/var/lib/understudy/back.toml";
/// What the client that is left behind writes.
const PREFIX: &str = "legacy:";
/// Acknowledged writes of the application between two parts of the story.
const SOME: u64 = 300;

pub(super) fn drill(rig: &Rig) -> Result<String, String> {
    let page = std::fs::read_to_string("docs/first-migration.md")
        .map_err(|error| format!("docs/first-migration.md: {error}"))?;
    let story = Story { rig, page };
    let (old, new) = (rig.source(), rig.target());
    fill(&old);
    let application = Application::start(&old);
    let straggler = Straggler::start(&old);
    application.wait_more(SOME)?;

    story.is_read_by_scan()?;
    story.run(
        "understudy",
        "understudy cutover /etc/understudy/shake.toml --check",
    )?;
    story.tell(
        "PSYNC, REPLICAOF and CONFIG are gone at the source",
        "it is read by SCAN and keyspace events, by itself",
    );

    let told = Switch {
        rig,
        service: "understudy",
        file: FILE,
        arguments: &["--reverse"],
    }
    .make(|| application.move_to(&new))?;
    story.tell("no offset to stop at", &told);
    application.wait_more(SOME)?;

    let named = story.is_named(&straggler)?;
    story.tell("a client with the old address in its code", &named);
    straggler.stop();
    let late = straggler.written();

    story.begin_way_back()?;
    application.wait_more(SOME)?;
    story.tell(
        "PSYNC is refused at the new server too",
        "the way back reads it by SCAN, and leaves alone what was written late",
    );
    let told = Switch {
        rig,
        service: "back",
        file: BACK,
        arguments: &[],
    }
    .make(|| application.move_to(&old))?;
    story.tell("the new server is not wanted after all", &told);
    application.wait_more(SOME)?;
    let total = application.stop();
    application.check(&old)?;
    straggler.check(&old)?;
    story.is_equal(&old, &new)?;
    Ok(format!(
        "{total} writes of the application exact over two switches, {late} of the client left behind kept"
    ))
}

/// What it had before anybody moved.
fn fill(address: &str) {
    let mut client = testkit::Client::connect(address);
    for key in 0..500 {
        client.commands(&[
            argv!["SET", format!("page:{key}"), "x".repeat(key)],
            argv!["SET", format!("session:{key}"), key, "EX", 3600 + key],
            argv!["HSET", format!("user:{key}"), "name", key, "visits", 1],
            argv!["ZADD", format!("top:{key}"), key, "a", 1, "b"],
            argv!["SADD", format!("tags:{key}"), "a", "b", key],
        ]);
    }
}

struct Story<'a> {
    rig: &'a Rig,
    /// docs/first-migration.md: what is run here stands there.
    page: String,
}

impl Story<'_> {
    fn tell(&self, obstacle: &str, met: &str) {
        println!("  obstacle: {obstacle}\n  met:      {met}");
    }

    /// Runs a command of the page.
    fn run(&self, service: &str, line: &str) -> Result<String, String> {
        if !self.page.contains(line) {
            return Err(format!("docs/first-migration.md does not say: {line}"));
        }
        let words: Vec<&str> = line.split(' ').collect();
        self.rig.inside(service, &words)
    }

    /// The link, as the daemon tells it.
    fn link(&self) -> Value {
        let told = self.rig.get("/status");
        let told = told.and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok());
        told.unwrap_or_default()["understudy"].clone()
    }

    fn is_read_by_scan(&self) -> Result<(), String> {
        let log = self.rig.logs();
        if !log.contains("the source refuses PSYNC") {
            return Err("it does not say that PSYNC is refused".to_owned());
        }
        wait("a link that can be switched", || {
            let link = self.link();
            link["phase"] == "scan" && link["cutover"]["ready"] == true
        })
    }

    /// The client that was left behind is named by its address, and by what it writes.
    fn is_named(&self, straggler: &Straggler) -> Result<String, String> {
        let mut address = String::new();
        wait("the client left behind to be named", || {
            let cutover = &self.link()["cutover"];
            let clients = cutover["stragglers"].as_array();
            let found = clients
                .into_iter()
                .flatten()
                .find(|one| one["name"] == Straggler::NAME && one["writes"].as_u64() > Some(0));
            found
                .and_then(|one| one["address"].as_str())
                .unwrap_or_default()
                .clone_into(&mut address);
            !address.is_empty() && cutover["late_writes"]["by_prefix"][PREFIX].as_u64() > Some(0)
        })?;
        let line = "understudy cutover /etc/understudy/shake.toml --stragglers";
        let shown = self.run("understudy", line)?;
        println!("{shown}");
        let host = address.split(':').next().unwrap_or_default();
        if !shown.contains(host) || !shown.contains(PREFIX) {
            return Err(format!("neither {host} nor {PREFIX} in: {shown}"));
        }
        // None of it has come to the target.
        let late = straggler.late();
        let mut new = testkit::Client::connect(&self.rig.target());
        let there = late.iter().filter(|key| {
            testkit::client::number(&new.command(&argv!["EXISTS", key.as_str()])) == Some(1)
        });
        match there.count() {
            0 => Ok(format!(
                "{} at {address} writes {PREFIX}, and none of that is at the new server",
                Straggler::NAME
            )),
            count => Err(format!("{count} late writes are at the new server")),
        }
    }

    /// The file of the way back, which leaves alone what was written late.
    fn begin_way_back(&self) -> Result<(), String> {
        let line = "understudy reverse /etc/understudy/shake.toml";
        let text = self.run("understudy", line)?;
        for said in [
            "block_key_prefix = [\"legacy:\"]",
            "dir = \"/var/lib/understudy/back\"",
        ] {
            if !self.page.contains(said) {
                return Err(format!("docs/first-migration.md does not say: {said}"));
            }
        }
        let text = text.replace(
            "dir = \"/var/lib/understudy-back\"",
            "dir = \"/var/lib/understudy/back\"",
        );
        let text = format!("{text}\n[filter]\nblock_key_prefix = [\"{PREFIX}\"]\n");
        let script = format!(
            "cat_to() {{ while IFS= read -r line; do printf '%s\\n' \"$line\"; done >{BACK}; }}; cat_to <<'TOML'\n{text}\nTOML"
        );
        self.rig.inside("understudy", &["/bin/sh", "-c", &script])?;
        self.rig.start("back")?;
        wait("the way back to be complete", || {
            let told = self
                .rig
                .inside("back", &["understudy", "status", "--json", BACK]);
            let told = told
                .ok()
                .and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let told = told.unwrap_or_default();
            let link = &told["understudy"];
            link["phase"] == "scan" && link["cutover"]["ready"] == true
        })
    }

    /// Every key is the same at both, but what was written late, what is ours, and what the application goes on to write.
    fn is_equal(&self, old: &str, new: &str) -> Result<(), String> {
        let options =
            testkit::oracle::OracleOptions::live(&testkit::Client::connect(old).version());
        let moving = application::PREFIX;
        let differences = testkit::oracle::compare_with(old, new, &options);
        let wrong: Vec<String> = differences
            .iter()
            .filter(|one| {
                let is_one_of = |prefix: &str| one.key.starts_with(prefix.as_bytes());
                !is_one_of(PREFIX) && !is_one_of("understudy:") && !is_one_of(moving)
            })
            .map(ToString::to_string)
            .collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!("not equal:\n{}", wrong.join("\n"))),
        }
    }
}
