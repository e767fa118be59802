//! Every error that ends a link or makes it begin again, in one table: whose trouble it is, what is done about it, and the
//! mend, which the status page shows beside it. `docs/errors.md` is printed from it; tests see to it that the words are those
//! of the code, and the page is this.

#[cfg(test)]
use resp::ErrorCode;

#[cfg(test)]
use crate::client::{class_of, mend};
use crate::error::{Class, Side};

/// An error of our own words.
#[derive(Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "side and class are for docs/errors.md")
)]
struct Row {
    /// Words of the message, as they stand in the code.
    says: &'static str,
    side: Side,
    class: Class,
    mend: &'static str,
}

const fn row(says: &'static str, side: Side, class: Class, mend: &'static str) -> Row {
    Row {
        says,
        side,
        class,
        mend,
    }
}

use Class::{Reconnect, Resync, Stop};
use Side::{Local, Source, Target};

/// `Side::Target` stands for both servers where the words do not say which.
const ROWS: &[Row] = &[
    // Reaching a server.
    row(
        "cannot connect: ",
        Target,
        Reconnect,
        "is the server there, are host and port right, is a firewall in between? The first contact is given up after six attempts",
    ),
    row("no connection within ", Target, Reconnect, "the same"),
    row(
        "PING was not answered within ",
        Target,
        Reconnect,
        "a stuck server, or no Redis port",
    ),
    row(
        "the server closed the connection",
        Target,
        Reconnect,
        "nothing, unless it repeats: look at that server's log",
    ),
    row(
        "the server speaks TLS on this port",
        Target,
        Stop,
        "`tls = true`, or its plain port",
    ),
    row(
        "the answer is not RESP",
        Target,
        Stop,
        "it is no Redis port",
    ),
    row(
        "the answer has {got} bytes or more",
        Target,
        Stop,
        "a key that is copied again is too large: raise `limits.memory`",
    ),
    row(
        "this is a Sentinel; use the address of the master",
        Target,
        Stop,
        "the master's address, or `redis_writer.sentinel = true`; for a source, the table `sync_reader.sentinel`",
    ),
    row(
        "this Sentinel watches no master",
        Target,
        Stop,
        "`redis_writer.master` (or `sentinel.master_name`); `sync_reader.sentinel.master_name`",
    ),
    row(
        "this is a node of a cluster: set redis_writer.cluster = true",
        Target,
        Stop,
        "`redis_writer.cluster = true`",
    ),
    row(
        "this is not a cluster: set redis_writer.cluster = false",
        Target,
        Stop,
        "`redis_writer.cluster = false`",
    ),
    row(
        "this is the reader endpoint of a serverless cache",
        Target,
        Stop,
        "port 6379",
    ),
    row(
        "is the cluster whole?",
        Target,
        Reconnect,
        "`redis-cli --cluster check HOST:PORT` tells which slots nobody has",
    ),
    row(
        "not connected to it",
        Target,
        Reconnect,
        "nothing: the cluster's nodes are asked for again",
    ),
    row(
        "it does not answer: looking at the cluster anew",
        Target,
        Reconnect,
        "nothing: the cluster's nodes are asked for again",
    ),
    row(
        "but a cluster's other databases are not written to by the scripts",
        Target,
        Stop,
        "the rights to CLIENT LIST, KILL and SETNAME, `redis_writer.db_map`, or `filter.block_db`",
    ),
    row(
        "it does not answer, and another node has its slots now",
        Target,
        Reconnect,
        "nothing: a failover at the target is followed",
    ),
    row(
        "a node has lost more than is kept here",
        Target,
        Resync,
        "nothing: a new snapshot is taken. `spool.retain_bytes` decides how much of the stream is kept for this",
    ),
    row(
        "this is a replica (of ",
        Target,
        Reconnect,
        "the primary's address; after a failover it passes by itself",
    ),
    row(
        "INFO names no redis_version",
        Target,
        Stop,
        "the server, or what stands before it, is no Redis",
    ),
    // TLS.
    row(
        "but the server does not speak TLS on this port",
        Target,
        Stop,
        "`tls = false`, or its TLS port",
    ),
    row(
        "the server did not answer the TLS handshake within",
        Target,
        Reconnect,
        "the same",
    ),
    row(
        "the server's certificate is not accepted: ",
        Target,
        Stop,
        "as it says: `tls_config.ca_cert`, `tls_config.server_name`, or another certificate at the server",
    ),
    row(
        "the server refused TLS: ",
        Target,
        Stop,
        "`tls_config.cert` and `tls_config.key`",
    ),
    row(
        "have no version or cipher of TLS in common",
        Target,
        Stop,
        "`tls_config.min_version`, or a newer server",
    ),
    row(
        "not a name for TLS",
        Target,
        Stop,
        "`tls_config.server_name`",
    ),
    row(
        "no root certificates on this system",
        Local,
        Stop,
        "`tls_config.ca_cert`, or install the system's roots",
    ),
    // Passwords.
    row(
        "the source does not accept our credentials",
        Source,
        Stop,
        "`sync_reader.password`, `username`; tried again where it is read from elsewhere",
    ),
    row(
        " cannot be read: {error}",
        Target,
        Reconnect,
        "`password_file`: the file and its rights",
    ),
    row(
        "password_command failed",
        Target,
        Reconnect,
        "run the command by hand",
    ),
    row(
        "there is no variable {name} in the environment",
        Target,
        Reconnect,
        "`password_env`: give the variable to the process",
    ),
    row(
        "no AWS credentials",
        Target,
        Reconnect,
        "the standard chain: environment, profile, web identity, container, instance",
    ),
    // The target's state.
    row(
        "the target holds keys already",
        Target,
        Stop,
        "empty it, or `redis_writer.existing_keys` = `\"replace\"` or `\"skip\"`; nothing was written",
    ),
    row(
        "the source uses database {}, but",
        Target,
        Stop,
        "more databases at the target, `redis_writer.db_map`, or `filter.block_db`",
    ),
    row(
        "an earlier snapshot into a target that held keys was left as",
        Target,
        Stop,
        "`existing_keys = \"replace\"`, or empty the target and delete its checkpoint",
    ),
    row(
        "this is the source itself, or the source's master",
        Target,
        Stop,
        "`redis_writer.address`",
    ),
    row(
        "the checkpoint {key} cannot be read",
        Target,
        Stop,
        "delete it to begin anew",
    ),
    row(
        "our checkpoint is gone",
        Target,
        Stop,
        "is it the right server? It was flushed or restarted without its data: start again",
    ),
    row(
        "another understudy has taken over this link",
        Target,
        Stop,
        "stop one of the two, or give the other `link.name`",
    ),
    row(
        "its checkpoint has moved on before it was taken",
        Target,
        Reconnect,
        "nothing",
    ),
    row(
        "the checkpoint was changed by somebody else, or is not watched",
        Target,
        Reconnect,
        "nothing, unless it repeats",
    ),
    row(
        "AUTH was not answered in time",
        Target,
        Reconnect,
        "nothing, unless it repeats",
    ),
    row(
        "the switch has been made, and the source no longer has the history",
        Source,
        Stop,
        "`understudy cutover --finish`; see [cutover.md](cutover.md)",
    ),
    row(
        "the switch has been made, and its record is gone",
        Target,
        Stop,
        "nothing: the target is the application's",
    ),
    row(
        "the switch has been made meanwhile",
        Target,
        Resync,
        "nothing: the old server is only watched from then on",
    ),
    row(
        "the pause of the source's clients has ended",
        Source,
        Stop,
        "`cutover`: nothing, all is undone; a longer `cutover.pause`",
    ),
    row(
        "the new server cannot be followed (PSYNC: ",
        Target,
        Stop,
        "`cutover` without `--reverse`",
    ),
    row(
        "the new server's stream does not stand still",
        Target,
        Stop,
        "`cutover --reverse`: find who writes at the target",
    ),
    row(
        "no place was noted from which the way back could begin",
        Target,
        Stop,
        "`cutover --reverse` notes it; or begin with a snapshot, as it says",
    ),
    row(
        "the record of a switch-over ",
        Target,
        Stop,
        "another version wrote it, or somebody else: look at it, delete it",
    ),
    row(
        "it has fallen back to before this run took it over",
        Target,
        Resync,
        "nothing: a failover that lost writes; what is missing is sent again",
    ),
    row(
        "the target is not taking writes",
        Target,
        Reconnect,
        "mend the target (memory, disk, replicas); nothing is lost, the spool fills",
    ),
    // Keys and commands that do not fit.
    row(
        "cannot be brought to this target's version",
        Source,
        Stop,
        "a newer target, a filter, or `redis_writer.losses = \"warn\"`",
    ),
    row("which the target does not have", Source, Stop, "the same"),
    row(
        "is not known to the target: migrate to a newer target",
        Source,
        Stop,
        "the same",
    ),
    row(
        "is there already; set rdb_restore_command_behavior",
        Target,
        Stop,
        "somebody else writes there: `existing_keys`",
    ),
    row(
        "HSCAN answered something that is not a cursor and fields",
        Target,
        Stop,
        "a proxy or a service in between that changes replies: name the server itself",
    ),
    row(
        "a server loads no RDB file that has a key twice",
        Source,
        Stop,
        "write each of the files to one of its own, or take `file_writer.type = \"aof\"`, where the later value holds",
    ),
    row(
        "which redis_writer.db_map brings into one",
        Source,
        Stop,
        "rename the key at the source, or `db_map = \"prefix\"`",
    ),
    row(
        "acts on a whole database, and redis_writer.db_map brings several into one",
        Target,
        Stop,
        "start again: a new snapshot brings it about",
    ),
    row(
        "the target differs from the source from here on",
        Target,
        Stop,
        "find who writes at the target; start again: a new snapshot mends it",
    ),
    // The source.
    row(
        "this is not a cluster: set sync_reader.cluster = false",
        Source,
        Stop,
        "`sync_reader.cluster = false`",
    ),
    row(
        "no node of the cluster answers",
        Target,
        Reconnect,
        "are its nodes there, and are the addresses that they announce reachable from here?",
    ),
    row(
        "the shard has another master",
        Source,
        Reconnect,
        "nothing: its new master is followed",
    ),
    row(
        "is not what a Redis Cluster would say",
        Source,
        Stop,
        "is a proxy in between? The nodes themselves have to be reached",
    ),
    row(
        "it does not answer DUMP",
        Source,
        Reconnect,
        "nothing, unless it repeats: is the source stuck?",
    ),
    row(
        "has moved to this shard and takes {bytes} bytes",
        Target,
        Stop,
        "raise `limits.memory`; start again: a new snapshot brings the slot",
    ),
    row(
        "; allow PSYNC there (ACL: +psync +replconf +ping)",
        Source,
        Stop,
        "allow PSYNC there, or `sync_reader.psync_command`; with `sync_reader.on_psync_refused = \"scan\"` (the default) it is read by SCAN instead",
    ),
    row(
        "it was followed by PSYNC before, and the position is kept",
        Source,
        Stop,
        "allow PSYNC again; or choose SCAN: `[scan_reader]` with `ksn = true`",
    ),
    row(
        "the server closed the subscription",
        Source,
        Reconnect,
        "nothing, unless it repeats: client-output-buffer-limit pubsub of the source; a sweep follows",
    ),
    row(
        "is of a kind that only DUMP can read",
        Source,
        Stop,
        "allow `+dump` at the source, or keep the key out by a filter",
    ),
    row(
        "of a source that is followed by SCAN nobody can tell later which keys those were",
        Target,
        Stop,
        "`rdb_restore_command_behavior = \"rewrite\"`, or an empty target",
    ),
    row(
        "is not compared with a cluster in this version",
        Target,
        Stop,
        "copy it once (`scan_reader.ksn = false`), or follow it into a single server",
    ),
    row(
        "it has started anew and holds {offered} keys, but the target",
        Source,
        Stop,
        "has the source lost its data? To accept it, empty the target and delete its checkpoint",
    ),
    row(
        "nothing would ever be copied",
        Source,
        Stop,
        "`scan_reader.scan = true`, or allow PSUBSCRIBE at the source",
    ),
    row(
        "something went wrong during each of {passes} passes",
        Source,
        Stop,
        "mend what the warnings say, or follow the source (`scan_reader.ksn = true`), and start again",
    ),
    row(
        "large values were written each time they were read",
        Source,
        Stop,
        "stop who writes them, or follow the source (`scan_reader.ksn = true`), and start again",
    ),
    row(
        "the replica that is read has lost its master, or follows no more",
        Source,
        Reconnect,
        "nothing: another replica is read, or the source itself",
    ),
    row(
        "PSUBSCRIBE was not answered for {} s",
        Source,
        Reconnect,
        "a proxy in between that does not know it? Give the server's own address; sweeps go on meanwhile",
    ),
    row(
        "was lost when all was copied",
        Target,
        Reconnect,
        "nothing: every key is looked at again",
    ),
    row(
        "the payload of \"",
        Source,
        Stop,
        "report it: what DUMP gave cannot be read",
    ),
    row(
        "it no longer has the history from our position on",
        Source,
        Stop,
        "`checkpoint.on_history_lost = \"resync\"` for one start",
    ),
    row(
        "its new snapshot holds {offered} keys, but the target",
        Source,
        Stop,
        "has the source lost its data? To accept it, empty the target and delete its checkpoint",
    ),
    row(
        "the snapshot is damaged: ",
        Source,
        Stop,
        "`redis-check-rdb` at the source",
    ),
    row(
        "the stream is not RESP at offset",
        Source,
        Stop,
        "report it",
    ),
    row(
        "it goes on under a new name before the target's position",
        Source,
        Resync,
        "nothing: the source's failover lost writes",
    ),
    row(
        "another understudy has begun here meanwhile",
        Target,
        Reconnect,
        "nothing",
    ),
    // Comparing.
    row(
        "it has not answered for ",
        Target,
        Reconnect,
        "a stuck server: it is asked again",
    ),
    row(
        "answered something that a Redis would not say",
        Target,
        Stop,
        "what stands before the server is no Redis",
    ),
    row(
        "it goes on with a history that nobody has asked for",
        Source,
        Stop,
        "report it",
    ),
    // This machine.
    row(
        "another understudy is using it",
        Local,
        Stop,
        "the same link twice on this machine: stop one",
    ),
    row(
        "cannot listen on ",
        Local,
        Stop,
        "`advanced.status_port`, `advanced.status_address`",
    ),
    row("does not fit spool.max_bytes", Local, Stop, "raise it"),
    row(
        "does not fit into memory",
        Local,
        Stop,
        "raise `limits.memory`; the next start goes on",
    ),
    row(
        "the spool no longer has what was read from it",
        Local,
        Stop,
        "the disk under `spool.dir`",
    ),
    // Files.
    row(
        "there is no such file; look at filepath",
        Source,
        Stop,
        "the reader's `filepath`; a path is taken from the folder in which understudy was started",
    ),
    row(
        "it is no ordinary file",
        Source,
        Stop,
        "the file itself, not its folder",
    ),
    row(
        "no manifest is in this folder",
        Source,
        Stop,
        "the append-only file, its manifest, or the folder with both",
    ),
    row(
        "the compressed file is damaged",
        Source,
        Stop,
        "another copy of the file",
    ),
    row(
        "cannot be gone on from: ",
        Target,
        Stop,
        "an append-only file was rewritten, or is another one: empty the target and delete the checkpoint, or give the link another `link.name`",
    ),
    row(
        "the append-only file is damaged",
        Source,
        Stop,
        "`redis-check-aof --fix` cuts it off at the place that is named; everything before it is applied",
    ),
    row(
        "but it tells no times",
        Source,
        Stop,
        "no `aof_reader.timestamp`: the server had not written times (`aof-timestamp-enabled`)",
    ),
    row(
        "later than aof_reader.timestamp",
        Source,
        Stop,
        "an older copy of the files: what was there before their snapshot is no longer in them",
    ),
    row(
        "it no longer has the history that ",
        Source,
        Stop,
        "move the file and the small one beside it away, and start again for a new one",
    ),
    row(
        "this cannot be written as commands",
        Target,
        Stop,
        "`redis_writer.losses = \"warn\"` leaves it out; `file_writer.type = \"rdb\"` copies values as they are",
    ),
    row(
        "cannot be written as one; write each to a file",
        Source,
        Stop,
        "a file for each of them",
    ),
    row(
        "and the file was begun as ",
        Source,
        Stop,
        "the newest RDB file first in the list; files of Redis and of Valkey apart",
    ),
    // A function.
    row(
        "nothing of it was applied: mend the script and start again",
        Local,
        Stop,
        "the line of the script that the message names; what it says is Lua's word, or `filter.function_timeout`, `filter.function_memory`",
    ),
    row(
        "a new snapshot is needed (",
        Target,
        Stop,
        "empty the target, delete its checkpoint, start again; or `checkpoint.on_history_lost = \"resync\"` for a function that only renames, moves and drops keys",
    ),
    row(
        "what filter.function makes cannot be mended one key at a time",
        Target,
        Stop,
        "find who else writes at the target; empty it, its checkpoint too, and start again",
    ),
];

/// What mends the error with these words, where the table knows it.
pub(crate) fn mend_of(error: &str) -> Option<&'static str> {
    let row = ROWS.iter().find(|row| is_said(row.says, error))?;
    (row.mend != "the same").then_some(row.mend)
}

/// Whether an error has the words of the code, with whatever stands for `{..}` in them.
fn is_said(words: &str, error: &str) -> bool {
    let mut rest = error;
    words.split('{').enumerate().all(|(at, part)| {
        let part = match at {
            0 => part,
            _ => part.split_once('}').map_or(part, |(_, part)| part),
        };
        match rest.find(part) {
            Some(found) => {
                rest = rest.get(found + part.len()..).unwrap_or_default();
                true
            }
            None => false,
        }
    })
}

/// The page.
#[cfg(test)]
fn page() -> String {
    use std::fmt::Write;
    let class = |class| match class {
        Reconnect => "again, over a new connection, with growing pauses",
        Resync => "look again, or a new snapshot",
        Stop => "stop",
    };
    let exit = |side| match side {
        Source => 3,
        Target => 4,
        Local => 5,
    };
    let mut out = String::from(
        "# Errors\n\n\
         This page is printed from `taxonomy.rs`, `client.rs` and `resp`: a test compares it with them\n\
         (`UPDATE_DOCS=1 cargo test -p understudy --lib taxonomy` writes it anew). The line is\n\
         `error: <side> <address>: <what>; <mend>`, the last one on standard error.\n\n\
         ## What servers answer\n\n\
         | reply | at the source | at the target | mend |\n|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let mends = [mend(*code, Source), mend(*code, Target)];
        let mends = match mends {
            [Some(source), Some(target)] if source != target => {
                format!("source: {source}; target: {target}")
            }
            [source, target] => target.or(source).unwrap_or("").to_owned(),
        };
        let done = match class_of(*code) {
            Reconnect => "again",
            Resync => "resync",
            Stop => "stop",
        };
        let secret = matches!(code, ErrorCode::NoAuth | ErrorCode::WrongPass);
        let note = if secret {
            " (again, where the password is read from a file, a variable, a command or IAM)"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "| `{}` | {done}{note} | {done}{note} | {} |",
            code.word(),
            mends.replace('|', "\\|")
        );
    }
    out.push_str(
        "\n`again`: nothing of the unit was applied; it is sent anew over a new connection, however long that takes. `stop`: exit code\n\
         3 at the source, 4 at the target. A command that fails *inside* a committed EXEC (`WRONGTYPE`, say) is a divergence: its keys\n\
         are copied again from the source, or the link stops (`checkpoint.on_divergence`).\n\n\
         ## What we say ourselves\n\n\
         Where the side is `target`, a connection to the source may say the same with `source` (and exit code 3).\n\n\
         | words | side | what is done | exit code, if it stops | mend |\n|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            row.says.trim(),
            row.side,
            class(row.class),
            exit(row.side),
            row.mend
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Every file of this crate but this one: its path, and its text up to its tests.
    fn sources() -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        for other in ["../rewrite/src", "../replica/src"] {
            folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(other));
        }
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    if !path.ends_with("sim") {
                        folders.push(path);
                    }
                } else if path.extension().is_some_and(|end| end == "rs")
                    && !path.ends_with("taxonomy.rs")
                {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                    // As the message reads: quotes within it are escaped in the code.
                    found.insert(path, text.replace("\\\"", "\""));
                }
            }
        }
        found
    }

    #[test]
    fn a_mend_is_found_by_the_words() {
        let found = mend_of("source s:1: the server closed the connection");
        assert!(found.is_some_and(|mend| mend.contains("that server's log")));
        let found = mend_of("target t:1: the answer has 123 bytes or more");
        assert!(found.is_some_and(|mend| mend.contains("limits.memory")));
        assert_eq!(mend_of("all is well"), None);
    }

    #[test]
    fn the_words_are_those_of_the_code() {
        let sources = sources();
        for row in ROWS {
            let is_there = sources.values().any(|text| text.contains(row.says));
            assert!(is_there, "nowhere in the code: {:?}", row.says);
        }
    }

    #[test]
    fn every_file_that_makes_errors_has_a_row() {
        let makes = [
            "SyncError::stop(",
            "SyncError::resync(",
            "SyncError::reconnect(",
        ];
        for (path, text) in sources() {
            // Those hand on what others say, or say it of a connection as such.
            let hands_on = [
                "error.rs",
                "cli.rs",
                "lease.rs",
                "repair.rs",
                "supervise/stream.rs",
                "compare/lag.rs",
                "compare/run.rs",
            ];
            if hands_on.iter().any(|file| path.ends_with(file)) {
                continue;
            }
            if makes.iter().any(|word| text.contains(word)) {
                let has = ROWS.iter().any(|row| text.contains(row.says));
                assert!(has, "{} makes errors that no row names", path.display());
            }
        }
    }

    #[test]
    fn the_page_is_printed_from_here() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text == page(),
            "docs/errors.md is not what the code says: UPDATE_DOCS=1 cargo test -p understudy --lib taxonomy"
        );
    }
}
