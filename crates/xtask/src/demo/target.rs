//! A target that refuses what a managed service refuses.
//!
//! ElastiCache knows no CONFIG, DEBUG, MIGRATE, REPLICAOF, SAVE, SHUTDOWN and the like, and no part of ACL and CLUSTER
//! that changes anything. Here whole commands are taken away with `rename-command`, parts of them with the ACL rules
//! of the only user there is.

use testkit::client::{Argv, Error};
use testkit::{Client, Engine, Server, ServerOptions, argv};

/// The user that understudy, the applications and the proof log in as.
pub(super) const USER: &str = "understudy";
/// Where the shake.toml takes the password from.
pub(super) const PASSWORD_VARIABLE: &str = "TARGET_PASSWORD";

/// Whole commands that are gone.
const GONE: [&str; 11] = [
    "REPLICAOF",
    "SLAVEOF",
    "SYNC",
    "PSYNC",
    "CONFIG",
    "DEBUG",
    "MIGRATE",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "SHUTDOWN",
];
/// Parts of commands that the user may not use.
const FORBIDDEN: [&str; 9] = [
    "acl|setuser",
    "acl|deluser",
    "acl|load",
    "acl|save",
    "cluster|meet",
    "cluster|forget",
    "cluster|failover",
    "cluster|addslots",
    "cluster|setslot",
];

/// The server and the way in.
pub(super) struct Target {
    pub(super) server: Server,
    pub(super) password: String,
}

impl Target {
    /// Starts it; its password is made up here.
    pub(super) fn start(engine: &Engine) -> Result<Self, String> {
        if !engine.version.redis(7, 0) {
            return Err(format!(
                "{}: as a target the demo wants Redis 7.0 or newer, or Valkey: older servers cannot forbid parts of commands",
                engine.name
            ));
        }
        let mut random = [0; 8];
        let read = std::fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random));
        read.map_err(|error| format!("/dev/urandom: {error}"))?;
        let password = format!("{:016x}", u64::from_le_bytes(random));
        let server = Server::start(engine, options(&password));
        Ok(Self { server, password })
    }

    /// What `Client` and the oracle connect to: the address with user and password in front.
    pub(super) fn address(&self) -> String {
        format!("{USER}:{}@{}", self.password, self.server.address())
    }

    /// For somebody who wants to look at it; the password is of this run only.
    pub(super) fn way_in(&self) -> String {
        format!("as user {USER} with password {}", self.password)
    }

    pub(super) fn client(&self) -> Result<Client, String> {
        Client::try_connect(&self.address()).map_err(|error| format!("the target: {error}"))
    }

    /// Tries every command that is to be refused; hands back command and refusal. An error if one is not.
    pub(super) fn try_refused(&self) -> Result<Vec<(String, String)>, String> {
        let mut client = self.client()?;
        let mut refused = Vec::new();
        for argv in attempts() {
            let words: Vec<_> = argv
                .iter()
                .map(|word| String::from_utf8_lossy(word))
                .collect();
            let name = words.join(" ");
            match client.try_command(&argv) {
                Err(Error::Reply(why)) if is_refusal(&why) => refused.push((name, why)),
                Err(Error::Connection(why)) => return Err(format!("the target: {name}: {why}")),
                answer => return Err(format!("the target was to refuse {name}: {answer:?}")),
            }
        }
        Ok(refused)
    }

    /// What a connection without a password hears.
    pub(super) fn without_password(&self) -> Result<String, String> {
        let address = self.server.address();
        let mut client = Client::try_connect(&address).map_err(|error| error.to_string())?;
        match client.try_command(&argv!["PING"]) {
            Err(Error::Reply(why)) if why.starts_with("NOAUTH") => Ok(why),
            answer => Err(format!("the target was to want a password: {answer:?}")),
        }
    }
}

fn options(password: &str) -> ServerOptions {
    let mut args: Vec<String> = Vec::new();
    for name in GONE {
        args.extend(["--rename-command".into(), name.into(), String::new()]);
    }
    let rules = format!("--user {USER} on >{password} ~* &* +@all");
    args.extend(rules.split(' ').map(String::from));
    args.extend(FORBIDDEN.iter().map(|part| format!("-{part}")));
    args.extend("--user default off".split(' ').map(String::from));
    ServerOptions {
        args,
        ..ServerOptions::default()
    }
}

/// Commands that would do no harm if they were let through, and that a server which has them would answer.
fn attempts() -> Vec<Argv> {
    let mut attempts = vec![
        argv!["REPLICAOF", "127.0.0.1", 6379],
        argv!["SLAVEOF", "NO", "ONE"],
        argv!["SYNC"],
        argv!["PSYNC", "?", -1],
        argv!["CONFIG", "GET", "maxmemory"],
        argv!["DEBUG", "DIGEST"],
        argv!["MIGRATE", "127.0.0.1", 6379, "key", 0, 100],
        argv!["SAVE"],
        argv!["BGSAVE"],
        argv!["BGREWRITEAOF"],
        argv!["SHUTDOWN", "NOSAVE"],
    ];
    let parts = FORBIDDEN.iter().map(|part| {
        let (command, part) = part.split_once('|').unwrap_or((part, ""));
        let mut argv = argv![command.to_uppercase(), part.to_uppercase()];
        match part {
            "setuser" | "deluser" | "forget" => argv.push(b"somebody".to_vec()),
            "meet" => argv.extend(argv!["127.0.0.1", 6379]),
            "addslots" => argv.push(b"1".to_vec()),
            "setslot" => argv.extend(argv![1, "STABLE"]),
            _ => {}
        }
        argv
    });
    attempts.extend(parts);
    attempts
}

fn is_refusal(why: &str) -> bool {
    why.starts_with("NOPERM") || why.contains("unknown command")
}
