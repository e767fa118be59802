//! RedisShake's own kinds of configuration, typed anew: each runs, or is refused with a reason.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{LIMIT, catch_up, run_file, run_in, source_of, wait_stream};
use testkit::daemon::STATUS_PORT;
use testkit::{Daemon, Server, argv, client};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("redisshake");
    let entries = fs::read_dir(folder).expect("tests/redisshake");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort();
    assert!(files.len() > 12, "{files:?}");
    files
}

/// Keys of RedisShake 4.0 to 4.6, and of a fork that people run.
const KEYS: &str = "
    sync_reader.cluster sync_reader.address sync_reader.username sync_reader.password sync_reader.tls
    sync_reader.tls_config.ca_cert sync_reader.tls_config.cert sync_reader.tls_config.key sync_reader.sync_rdb
    sync_reader.sync_aof sync_reader.prefer_replica sync_reader.try_diskless
    redis_writer.cluster redis_writer.sentinel redis_writer.master redis_writer.sentinel.master_name
    redis_writer.sentinel.address redis_writer.sentinel.username redis_writer.sentinel.password redis_writer.sentinel.tls
    redis_writer.address redis_writer.username redis_writer.password redis_writer.tls redis_writer.tls_config.ca_cert
    redis_writer.tls_config.cert redis_writer.tls_config.key redis_writer.off_reply redis_writer.buff_send
    filter.allow_keys filter.allow_key_prefix filter.allow_key_suffix filter.allow_key_regex filter.block_keys
    filter.block_key_prefix filter.block_key_suffix filter.block_key_regex filter.allow_db filter.block_db
    filter.allow_command filter.block_command filter.allow_command_group filter.block_command_group filter.function
    advanced.dir advanced.ncpu advanced.pprof_port advanced.status_port advanced.log_file advanced.log_level
    advanced.log_interval advanced.log_rotation advanced.log_max_size advanced.log_max_age advanced.log_max_backups
    advanced.log_compress advanced.rdb_restore_command_behavior advanced.pipeline_count_limit advanced.target_redis_max_qps
    advanced.target_redis_client_max_querybuf_len advanced.target_redis_proto_max_bulk_len advanced.aws_psync
    advanced.empty_db_before_sync advanced.io_reconnect advanced.io_reconnect_max_times advanced.io_reconnect_delay_ms
    advanced.target_redis_oom_requeue advanced.target_redis_oom_requeue_max_times advanced.target_redis_oom_requeue_delay_ms
    advanced.target_redis_writer_shards advanced.rewrite_collection_batch_size module.target_mbbloom_version
";

/// Tables of other readers and writers: their keys are known, or the table is refused as a whole.
const OTHER_KEYS: &str = "
    sync_reader.sentinel.master_name sync_reader.sentinel.address sync_reader.sentinel.username sync_reader.sentinel.password
    sync_reader.sentinel.tls scan_reader.cluster scan_reader.address scan_reader.username scan_reader.password scan_reader.tls
    scan_reader.scan scan_reader.ksn scan_reader.dbs scan_reader.prefer_replica scan_reader.count
    scan_reader.skip_unknown_type rdb_reader.filepath aof_reader.filepath aof_reader.timestamp file_writer.filepath
    file_writer.type
";

#[test]
fn every_key_of_redisshake_is_known_and_in_the_page_of_differences() {
    let printed = run_file(&["config"], None).stdout;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/redisshake.md")).expect("docs/redisshake.md");
    let keys: Vec<&str> = KEYS.split_whitespace().collect();
    assert!(keys.len() > 70, "{}", keys.len());
    let lines = |table: &str| {
        let head = format!("[{table}]");
        let body = printed
            .lines()
            .skip_while(move |line| *line != head)
            .skip(1);
        body.take_while(|line| !line.starts_with('['))
            .collect::<Vec<&str>>()
    };
    for path in keys.into_iter().chain(OTHER_KEYS.split_whitespace()) {
        let (table, name) = path.split_once('.').expect("a table");
        let is_there = lines(table).iter().any(|line| {
            let line = line.trim_start_matches("# ");
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(" = "))
        });
        let is_refused = !KEYS.split_whitespace().any(|known| known == path) && {
            let text = format!(
                "[{}]\nx = 1\n",
                path.rsplit_once('.').map_or("", |(table, _)| table)
            );
            let ended = run_file(&["config", "shake.toml"], Some(text.as_bytes()));
            ended.code == 2 && page.contains(table)
        };
        assert!(is_there || is_refused, "{path} is not known");
        let is_ours = KEYS.split_whitespace().any(|known| known == path);
        let last = if is_ours {
            name.rsplit('.').next().unwrap_or(name)
        } else {
            table
        };
        assert!(
            page.contains(last),
            "docs/redisshake.md does not tell of {path}"
        );
    }
}

#[test]
fn every_kind_of_file_is_taken() {
    for file in files() {
        let text = fs::read(&file).expect("a file");
        let ended = run_file(&["config", "shake.toml"], Some(&text));
        assert_eq!(ended.code, 0, "{}: {}", file.display(), ended.stderr);
    }
}

/// The addresses of real servers in the place of those that were typed.
fn daemon_on(name: &str, source: &Server, target: &Server) -> Daemon {
    let file = files()
        .into_iter()
        .find(|file| file.ends_with(format!("{name}.toml")));
    let text = fs::read_to_string(file.expect("a file")).expect("a file");
    let text = text
        .replace("127.0.0.1:6379", &source.address())
        .replace("127.0.0.1:6380", &target.address());
    let text = match text.contains("status_port") {
        true => text.replace("status_port = 0", &format!("status_port = {STATUS_PORT}")),
        false if text.contains("[advanced]") => text.replace(
            "[advanced]",
            &format!("[advanced]\nstatus_port = {STATUS_PORT}"),
        ),
        false => format!("{text}\n[advanced]\nstatus_port = {STATUS_PORT}\n"),
    };
    Daemon::start(&text)
}

#[test]
fn files_of_redisshake_run() {
    for name in ["sync", "sync_env", "downgrade", "function"] {
        let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
        let mut client = source.client();
        client.select(1);
        client.command(&argv!["SET", "a", "before"]);
        client.command(&argv!["RPUSH", "l", "1", "2"]);
        let mut daemon = daemon_on(name, &source, &target);
        wait_stream(&mut daemon);
        client.command(&argv!["SET", "b", "after"]);
        catch_up(&mut daemon, &source);
        let mut at_target = target.client();
        at_target.select(1);
        for (words, expected) in [
            (argv!["GET", "a"], "before"),
            (argv!["LLEN", "l"], "2"),
            (argv!["GET", "b"], "after"),
        ] {
            assert_eq!(client::text(&at_target.command(&words)), expected, "{name}");
        }
        if name == "downgrade" {
            for said in ["off_reply", "pprof_port", "ncpu"] {
                daemon.wait_for_output(said, LIMIT);
            }
        }
    }
}

#[test]
fn the_environment_is_in_a_file_as_redisshake_has_it() {
    let text = b"[sync_reader]\naddress = \"${SRC_HOST}:${SRC_PORT:-6379}\"\nusername = \"$SRC_USER\"\npassword = \"x\"\n[redis_writer]\naddress = \"${NONE:-${DST}}\"\n";
    let env = [
        ("SRC_HOST", "10.1.1.1"),
        ("SRC_USER", "me"),
        ("DST", "10.1.1.2:1"),
    ];
    let shown = run_in(&["config", "shake.toml"], Some(text), &env);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    for line in [
        "address = \"10.1.1.1:6379\"",
        "username = \"me\"",
        "address = \"10.1.1.2:1\"",
    ] {
        assert!(shown.stdout.contains(line), "{line}\n{}", shown.stdout);
    }
}
