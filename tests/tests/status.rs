//! What the daemon tells people, scrapers and the source about itself.

use std::collections::BTreeMap;

use e2e::{LIMIT, Link, catch_up, own, phase, run_file, source_of, wait_stream};
use testkit::client::{number, text};
use testkit::process::wait_until;
use testkit::proxy::{Direction, Proxy};
use testkit::{Server, argv, oracle, workload};

#[test]
fn the_status_has_every_field_that_redisshake_has() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    source.client().command(&argv!["SET", "a", 1]);
    catch_up(&mut daemon, &source);
    let status = daemon.status().expect("a status");
    for path in [
        "/start_time",
        "/reader/name",
        "/reader/address",
        "/reader/dir",
        "/reader/status",
        "/reader/rdb_file_size_human",
        "/reader/rdb_received_human",
        "/reader/rdb_sent_human",
        "/reader/aof_received_human",
        "/writer/name",
    ] {
        let value = status.pointer(path).and_then(|value| value.as_str());
        assert!(
            value.is_some_and(|text| !text.is_empty()),
            "{path}: {status:#}"
        );
    }
    let commands = ["/total_entries_count", "/per_cmd_entries_count/SET"];
    let counts = ["read_count", "read_ops", "write_count", "write_ops"];
    let mut numbers: Vec<String> = commands
        .iter()
        .flat_map(|of| counts.iter().map(move |count| format!("{of}/{count}")))
        .collect();
    numbers.extend(
        [
            "rdb_file_size_bytes",
            "rdb_received_bytes",
            "rdb_sent_bytes",
            "aof_received_offset",
            "aof_sent_offset",
            "aof_received_bytes",
        ]
        .map(|name| format!("/reader/{name}")),
    );
    numbers
        .extend(["unanswered_bytes", "unanswered_entries"].map(|name| format!("/writer/{name}")));
    for path in numbers {
        let value = status.pointer(&path).and_then(|value| value.as_f64());
        assert!(value.is_some(), "{path}: {status:#}");
    }
    assert_eq!(status["reader"]["status"], "syncing aof");
    assert_eq!(status["reader"]["address"], source.address());
    assert_eq!(status["per_cmd_entries_count"]["SET"]["write_count"], 1);
    daemon.wait_for("to be consistent", LIMIT, |daemon| {
        daemon
            .status()
            .is_some_and(|status| status["consistent"] == true)
    });
    let root = daemon.get("/").expect("the root").1;
    assert!(root.contains("\"consistent\""), "{root}");
}

/// Metrics of this version, by the names that dashboards use.
const METRICS: [&str; 28] = [
    "understudy_phase",
    "understudy_source_offset_bytes",
    "understudy_spooled_offset_bytes",
    "understudy_applied_offset_bytes",
    "understudy_lag_bytes",
    "understudy_lag_seconds",
    "understudy_snapshot_bytes",
    "understudy_snapshot_read_bytes_total",
    "understudy_snapshot_applied_bytes_total",
    "understudy_snapshot_keys_total",
    "understudy_commands_applied_total",
    "understudy_commands_dropped_total",
    "understudy_full_resyncs_total",
    "understudy_partial_resyncs_total",
    "understudy_spool_bytes",
    "understudy_spool_limit_bytes",
    "understudy_spool_disk_full",
    "understudy_target_inflight_bytes",
    "understudy_batch_seconds",
    "understudy_apply_latency_seconds",
    "understudy_build_info",
    "understudy_target_errors_total",
    "understudy_reconnects_total",
    "understudy_commands_rewritten_total",
    "understudy_compare_keys_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
];

#[test]
fn the_metrics_are_prometheus_text_with_the_names_of_the_contract() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    client.command(&argv!["SET", "a", 1]);
    client.command(&argv!["HSET", "h", "f", 1]);
    let link = Link::new(&source, &target).with("compare", "background_qps = 500");
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    client.commands(&[
        argv!["SET", "b", 1],
        argv!["INCR", "b"],
        argv!["PUBLISH", "x", "y"],
    ]);
    catch_up(&mut daemon, &source);
    // Some have a sample only once something has happened.
    let limit = |bytes| argv!["CONFIG", "SET", "maxmemory", bytes];
    target.client().command(&limit(1));
    client.command(&argv!["SET", "c", 1]);
    for name in [
        "understudy_target_errors_total",
        "understudy_compare_keys_total",
    ] {
        daemon.wait_for(name, LIMIT, |daemon| daemon.metric(name).is_some());
    }
    target.client().command(&limit(0));
    catch_up(&mut daemon, &source);
    let (code, body) = daemon.get("/metrics").expect("metrics");
    assert_eq!(code, 200);
    let families = parse(&body);
    for name in METRICS {
        let (kind, samples) = families
            .get(name)
            .unwrap_or_else(|| panic!("no {name}:\n{body}"));
        assert!(!samples.is_empty(), "{name} has no sample:\n{body}");
        assert_eq!(
            name.ends_with("_total"),
            kind == "counter",
            "{name} is a {kind}"
        );
    }
    let one = |name: &str, label: &str| {
        let (_, samples) = &families[name];
        let of_label = samples.iter().filter(|(labels, _)| labels.contains(label));
        of_label.map(|(_, value)| value).sum::<f64>()
    };
    assert_eq!(one("understudy_phase", "phase=\"stream\""), 1.0);
    // The one that was refused for want of memory went again, and is counted as often as it went.
    let sets = one("understudy_commands_applied_total", "command=\"set\"");
    assert!(sets >= 2.0, "{body}");
    assert_eq!(
        one("understudy_commands_applied_total", "command=\"incr\""),
        1.0,
        "{body}"
    );
    assert_eq!(
        one("understudy_snapshot_keys_total", "type=\"hash\""),
        1.0,
        "{body}"
    );
    assert_eq!(one("understudy_full_resyncs_total", ""), 1.0);
}

/// Type and samples (labels, value) of each family; panics at the first line that is not in the format.
fn parse(body: &str) -> BTreeMap<String, (String, Vec<(String, f64)>)> {
    let mut families: BTreeMap<String, (String, Vec<(String, f64)>)> = BTreeMap::new();
    let mut helped = Vec::new();
    for line in body.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped.push(help.split(' ').next().unwrap_or_default().to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let old = families.insert(name.into(), (kind.into(), Vec::new()));
            assert!(old.is_none(), "a second type: {line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = match sample.split_once('{') {
                Some((name, labels)) => (
                    name,
                    labels.strip_suffix('}').expect("an end of the labels"),
                ),
                None => (sample, ""),
            };
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(!name.is_empty() && !value.contains('\n'), "{line}");
            }
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|name| families.contains_key(*name))
                })
                .unwrap_or(name);
            let (_, samples) = families
                .get_mut(family)
                .unwrap_or_else(|| panic!("no type: {line}"));
            samples.push((labels.into(), value));
        }
    }
    for name in families.keys() {
        assert!(helped.contains(name), "{name} has no help");
    }
    families
}

#[test]
fn health_is_there_at_once_and_readiness_after_the_snapshot() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    workload::fill(&mut source.client(), 1, 300);
    proxy.throttle(Direction::ToClient, Some(2 << 20));
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    daemon.wait_for("a part of the snapshot", LIMIT, |daemon| {
        own(daemon, "snapshot_keys").is_some_and(|keys| keys > 5)
    });
    proxy.stall(Direction::ToClient);
    assert_eq!(phase(&daemon), "snapshot");
    assert_eq!(daemon.get("/healthz").expect("health").0, 200);
    let (code, why) = daemon.get("/readyz").expect("readiness");
    assert_eq!(code, 503);
    assert!(why.contains("snapshot"), "{why}");
    assert_eq!(daemon.get("/nowhere").expect("an answer").0, 404);
    proxy.throttle(Direction::ToClient, None);
    proxy.release(Direction::ToClient);
    daemon.wait_for("readiness", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
    });
}

#[test]
fn the_source_sees_a_replica_that_keeps_up_and_has_no_port() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    for round in 0..5 {
        client.command(&argv!["SET", "a", round]);
        let acknowledged = client.command(&argv!["WAIT", 1, 20_000]);
        assert_eq!(number(&acknowledged), Some(1));
    }
    wait_until("the replica's line", LIMIT, || {
        let info = client.info("replication");
        let line = info.get("slave0").cloned().unwrap_or_default();
        let fields: BTreeMap<&str, &str> = line
            .split(',')
            .filter_map(|field| field.split_once('='))
            .collect();
        assert_eq!(fields.get("port"), Some(&"0"), "{line}");
        let lag = fields.get("lag").and_then(|lag| lag.parse::<u64>().ok());
        fields.get("state") == Some(&"online") && lag.is_some_and(|lag| lag <= 1)
    });
    assert_eq!(client.info_number("replication", "connected_slaves"), 1);
}

/// A FAILOVER that picked us would leave the source read-only for good.
#[test]
fn a_failover_at_the_source_never_picks_us() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    client.command(&argv!["SET", "a", 1]);
    catch_up(&mut daemon, &source);
    client.command(&argv!["FAILOVER", "TIMEOUT", 1500]);
    let state = |client: &mut testkit::Client| {
        let info = client.info("replication");
        (info["role"].clone(), info["master_failover_state"].clone())
    };
    wait_until("the failover to be given up", LIMIT, || {
        let (role, state) = state(&mut client);
        assert_eq!(role, "master");
        state == "no-failover"
    });
    client.command(&argv!["SET", "a", 2]);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(text(&target.client().command(&argv!["GET", "a"])), "2");
}

#[test]
fn the_status_in_a_terminal_tells_what_the_port_tells() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    source.client().command(&argv!["SET", "k", "v"]);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let file = daemon.folder().join("shake.toml").display().to_string();
    let seen = run_file(&["status", &file], None);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    assert!(
        seen.stdout.contains("e2e: stream, ready") && seen.stdout.contains("1 keys"),
        "{}",
        seen.stdout
    );
    let json = run_file(&["status", "--json", &file], None);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["understudy"]["snapshot_keys"], 1);
    let health = run_file(&["status", "--health", &file], None);
    assert_eq!((health.code, &*health.stdout), (0, "ok\n"));
    daemon.kill();
    assert_eq!(run_file(&["status", "--health", &file], None).code, 1);
    let gone = run_file(&["status", &file], None);
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("does not answer"), "{}", gone.stderr);
}
