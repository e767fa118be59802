//! Who we are at both ends: passwords from files, commands and the environment that are changed while we run, IAM tokens,
//! and a connection that says again who it is without a break. Nothing secret is ever printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use e2e::{LIMIT, Link, catch_up, own, run_in, source_of, wait_stream};
use testkit::certs::{Ca, server_words};
use testkit::client::text;
use testkit::oracle;
use testkit::port::Port;
use testkit::proxy::{Direction, Proxy};
use testkit::{Client, Cluster, Daemon, Engine, Server, ServerOptions, argv};

const FIRST: &str = "first-horse-battery";
const SECOND: &str = "second-horse-battery";
const THIRD: &str = "third-horse-battery";
const AWS_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const AWS_SESSION: &str = "session-token-that-nobody-may-see";

const USER: &str = "mover";

fn give_user(server: &Server, password: &str) -> Client {
    let mut client = server.client();
    let rule = format!(">{password}");
    client.command(&argv![
        "ACL",
        "SETUSER",
        USER,
        "on",
        "resetpass",
        rule,
        "~*",
        "+@all"
    ]);
    client
}

/// Ends every connection but the test's own.
fn cut_off(client: &mut Client) {
    client.command(&argv!["CLIENT", "KILL", "USER", USER]);
}

#[track_caller]
fn nothing_secret(daemon: &Daemon) {
    let status = daemon.status().map(|status| status.to_string());
    let metrics = daemon.get("/metrics").map(|(_, text)| text);
    let everything = [
        daemon.output(),
        std::fs::read_to_string(daemon.folder().join("data/shake.log")).unwrap_or_default(),
        status.unwrap_or_default(),
        metrics.unwrap_or_default(),
    ]
    .concat();
    for secret in [
        FIRST,
        SECOND,
        THIRD,
        AWS_SECRET,
        AWS_SESSION,
        "X-Amz-Signature",
    ] {
        assert!(
            !everything.contains(secret),
            "{secret} is printed:\n{everything}"
        );
    }
}

#[test]
fn passwords_change_while_it_runs() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let (mut at_source, mut at_target) = (give_user(&source, FIRST), give_user(&target, FIRST));
    let mut daemon = Daemon::prepare("", &["sync", "shake.toml"]);
    let folder = daemon.folder().to_owned();
    let tell = |name: &str, password: &str| {
        std::fs::write(folder.join(name), format!("{password}\n")).expect("write a password");
    };
    tell("source.password", FIRST);
    tell("target.password", FIRST);
    let link = Link::new(&source, &target)
        .with("sync_reader", &format!("username = \"{USER}\""))
        .with("sync_reader", "password_file = \"source.password\"")
        .with("redis_writer", &format!("username = \"{USER}\""))
        .with("redis_writer", "password_command = \"cat target.password\"");
    daemon.configure(&link.text());
    daemon.spawn();
    wait_stream(&mut daemon);
    for password in [SECOND, THIRD] {
        // The servers first: until the files follow, every attempt is refused, and made again.
        give_user(&source, password);
        give_user(&target, password);
        cut_off(&mut at_source);
        cut_off(&mut at_target);
        daemon.wait_for("a refusal", LIMIT, |daemon| {
            daemon.output().matches("WRONGPASS").count() > 0
        });
        tell("source.password", password);
        tell("target.password", password);
        for _ in 0..100 {
            at_source.command(&argv!["INCR", "n"]);
        }
        catch_up(&mut daemon, &source);
    }
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(text(&at_target.command(&argv!["GET", "n"])), "200");
    nothing_secret(&daemon);
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}

#[test]
fn a_password_that_stands_in_the_file_is_refused_for_good() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    give_user(&target, FIRST);
    let link = |line: &str| {
        let link = Link::new(&source, &target)
            .with("redis_writer", &format!("username = \"{USER}\""))
            .with("redis_writer", line);
        link.text().replace(testkit::daemon::STATUS_PORT, "0")
    };
    let ping = |line: &str, env: &[(&str, &str)]| {
        run_in(&["ping", "shake.toml"], Some(link(line).as_bytes()), env)
    };
    let ended = ping(&format!("password = \"{SECOND}\""), &[]);
    assert_eq!(ended.code, 4);
    assert!(ended.error().contains("WRONGPASS"), "{}", ended.error());
    let named = "password_env = \"TARGET_PASSWORD\"";
    assert_eq!(ping(named, &[("TARGET_PASSWORD", FIRST)]).code, 0);
    let ended = ping(named, &[("TARGET_PASSWORD", SECOND)]);
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("TARGET_PASSWORD"),
        "{}",
        ended.error()
    );
    assert!(!ended.everything().contains(SECOND));
    let ended = ping(named, &[]);
    assert!(
        ended.error().contains("TARGET_PASSWORD"),
        "{}",
        ended.error()
    );
    let ended = ping("password_file = \"/nowhere/password\"", &[]);
    assert!(
        ended.error().contains("/nowhere/password"),
        "{}",
        ended.error()
    );
    let ended = ping("password_command = \"echo hush >&2; exit 7\"", &[]);
    assert!(
        ended.error().contains("exit status: 7"),
        "{}",
        ended.error()
    );
    assert!(!ended.everything().contains("hush"));
    let ended = ping("password_file = \"x\"\npassword = \"y\"", &[]);
    assert_eq!(ended.code, 2);
    assert!(ended.error().contains("both set"), "{}", ended.error());
}

/// How often each command was called at a server.
fn calls(client: &mut Client, command: &str) -> u64 {
    let stats = client.info("commandstats");
    let field = format!("cmdstat_{command}");
    let Some(line) = stats.get(&field) else {
        return 0;
    };
    let calls = line
        .split(',')
        .next()
        .and_then(|part| part.strip_prefix("calls="));
    calls.and_then(|calls| calls.parse().ok()).expect("calls=")
}

fn times_said(output: &str) -> usize {
    output.matches("said again who we are").count()
}

#[test]
fn a_connection_says_again_who_it_is_without_a_break() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    give_user(&target, FIRST);
    let mut at_source = source.client();
    // A snapshot that takes a while, so that it happens there too.
    for i in 0..2_000 {
        at_source.command(&argv!["SET", format!("key:{i}"), "x".repeat(1_000)]);
    }
    let slow = Proxy::start(&target.address());
    slow.throttle(Direction::ToServer, Some(400_000));
    let mut daemon = Link::new(&source, &target)
        .target(&slow.address())
        .with("redis_writer", &format!("username = \"{USER}\""))
        .with("redis_writer", &format!("password = \"{FIRST}\""))
        .with("redis_writer", "reauth_after = \"500ms\"")
        .start();
    let said = |daemon: &Daemon| times_said(&daemon.output());
    wait_stream(&mut daemon);
    let output = daemon.output();
    let (in_snapshot, _) = output.split_once("snapshot applied").expect("a snapshot");
    assert!(times_said(in_snapshot) >= 2, "{output}");
    slow.throttle(Direction::ToServer, None);
    let begun = said(&daemon);
    let until = std::time::Instant::now() + Duration::from_secs(4);
    while std::time::Instant::now() < until {
        at_source.command(&argv!["INCR", "n"]);
    }
    let busy = said(&daemon);
    assert!(busy >= begun + 4, "{begun} {busy}\n{}", daemon.output());
    // And with nothing to do.
    daemon.wait_for("AUTH while idle", LIMIT, |daemon| said(daemon) >= busy + 3);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(own(&daemon, "reconnects_target").unwrap_or(0), 0);
    assert!(
        !daemon.output().contains("lost the target"),
        "{}",
        daemon.output()
    );
    assert!(calls(&mut target.client(), "auth") > 10);
    nothing_secret(&daemon);
}

#[test]
fn the_time_of_a_connection_goes_on_from_the_snapshot_into_the_stream() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    give_user(&target, FIRST);
    let mut at_source = source.client();
    for i in 0..1_000 {
        at_source.command(&argv!["SET", format!("key:{i}"), "x".repeat(1_000)]);
    }
    // Some 4 s of snapshot, of the 8 s after which the connection has to say it again.
    let slow = Proxy::start(&target.address());
    slow.throttle(Direction::ToServer, Some(250_000));
    let mut daemon = Link::new(&source, &target)
        .target(&slow.address())
        .with("redis_writer", &format!("username = \"{USER}\""))
        .with("redis_writer", &format!("password = \"{FIRST}\""))
        .with("redis_writer", "reauth_after = \"8s\"")
        .start();
    daemon.wait_for("the snapshot's end", LIMIT, |daemon| {
        daemon.output().contains("snapshot applied")
    });
    let applied = std::time::Instant::now();
    daemon.wait_for("AUTH", LIMIT, |daemon| times_said(&daemon.output()) >= 1);
    let waited = applied.elapsed();
    assert!(
        waited < Duration::from_secs(6),
        "{waited:?} after the snapshot: its time began anew\n{}",
        daemon.output()
    );
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(own(&daemon, "reconnects_target").unwrap_or(0), 0);
}

/// The ids of the connections at a server that have a name of ours.
fn our_connections(server: &Server) -> Vec<String> {
    let list = text(&server.client().command(&argv!["CLIENT", "LIST"]));
    let ours = list
        .lines()
        .filter(|line| line.contains("name=understudy:"));
    let ours = ours.filter(|line| !line.contains(".beside"));
    let ids = ours.filter_map(|line| line.split(' ').next().map(str::to_owned));
    ids.collect()
}

#[test]
fn every_connection_to_a_cluster_says_again_who_it_is_without_a_break() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    for server in &cluster.servers {
        give_user(server, FIRST);
    }
    let mut at_source = source.client();
    // A snapshot that takes a while, so that it happens there too.
    for i in 0..2_000 {
        at_source.command(&argv!["SET", format!("key:{i}"), "x".repeat(1_000)]);
    }
    let mut daemon = Daemon::prepare("", &["sync", "shake.toml"]);
    let password = daemon.folder().join("password");
    std::fs::write(&password, FIRST).expect("write a password");
    let link = Link::between(&source.address(), &cluster.address(0))
        .with("redis_writer", "cluster = true")
        .with("redis_writer", &format!("username = \"{USER}\""))
        .with("redis_writer", "password_file = \"password\"")
        .with("redis_writer", "reauth_after = \"500ms\"")
        .with("redis_writer", "inflight_bytes = 65536")
        .with("limits", "target_bytes_per_second = 700000");
    daemon.configure(&link.text());
    daemon.spawn();
    wait_stream(&mut daemon);
    let output = daemon.output();
    let (in_snapshot, _) = output.split_once("snapshot applied").expect("a snapshot");
    assert!(times_said(in_snapshot) >= 1, "{output}");
    let ids: Vec<_> = cluster.servers.iter().map(our_connections).collect();
    assert!(ids.iter().all(|ids| ids.len() == 1), "{ids:?}");
    let begun = times_said(&daemon.output());
    // A new password: connections that stand take it, from one time to the next.
    for server in &cluster.servers {
        give_user(server, SECOND);
    }
    std::fs::write(&password, SECOND).expect("write a password");
    let until = std::time::Instant::now() + Duration::from_secs(4);
    while std::time::Instant::now() < until {
        at_source.command(&argv!["INCR", "n"]);
        at_source.command(&argv!["INCR", "m"]);
    }
    let busy = times_said(&daemon.output());
    assert!(busy >= begun + 4, "{begun} {busy}\n{}", daemon.output());
    // And with nothing to do.
    let before: Vec<u64> = cluster
        .servers
        .iter()
        .map(|server| calls(&mut server.client(), "auth"))
        .collect();
    daemon.wait_for("AUTH while idle", LIMIT, |daemon| {
        times_said(&daemon.output()) >= busy + 3
    });
    for (server, before) in cluster.servers.iter().zip(before) {
        assert!(calls(&mut server.client(), "auth") >= before + 2);
    }
    catch_up(&mut daemon, &source);
    let options = oracle::OracleOptions::live(&source.engine().version);
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
    let now: Vec<_> = cluster.servers.iter().map(our_connections).collect();
    assert_eq!(now, ids);
    assert_eq!(own(&daemon, "reconnects_target").unwrap_or(0), 0);
    nothing_secret(&daemon);
}

/// A server of AWS credentials: what instances, containers and STS would answer. Gives what it was asked.
struct FakeAws {
    address: String,
    asked: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl FakeAws {
    fn start(life_s: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().expect("share it"));
                let (mut first, mut length) = (String::new(), 0);
                let _ = reader.read_line(&mut first);
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) < 3 {
                        break;
                    }
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap_or(0);
                    }
                }
                let mut body = vec![0; length];
                let _ = reader.read_exact(&mut body);
                log.lock().expect("the log").push(first.trim().to_owned());
                let answer = answer(&first, life_s);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                    answer.len()
                );
            }
        });
        Self { address, asked }
    }

    fn asked(&self, part: &str) -> usize {
        let asked = self.asked.lock().expect("the log");
        asked.iter().filter(|line| line.contains(part)).count()
    }
}

fn answer(first: &str, life_s: i64) -> String {
    if first.contains("/latest/api/token") {
        return "imds-session".into();
    }
    if first.contains("/security-credentials/ ") {
        return "role-of-the-instance".into();
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let end = utc(i64::try_from(now.as_secs()).expect("a time") + life_s);
    // STS.
    if first.starts_with("POST / ") {
        return format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>{AWS_SECRET}</SecretAccessKey><SessionToken>{AWS_SESSION}</SessionToken><Expiration>{end}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
    }
    serde_json::json!({
        "Code": "Success",
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": AWS_SECRET,
        "Token": AWS_SESSION,
        "Expiration": end,
    })
    .to_string()
}

/// Unix seconds as `2026-11-28T14:00:00Z`.
fn utc(seconds: i64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .expect("run date");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// A Redis in front of which every password of the IAM user is looked at: as ElastiCache would do it.
fn iam_target(ca: &Ca) -> (Server, Port) {
    let port = Port::reserve();
    let certificate = ca.server(&["127.0.0.1"]);
    let words = server_words(port.number(), &certificate, &ca.file(), "no");
    let server = Server::start(&Engine::of("redis-7.0"), ServerOptions::args(&words));
    let mut client = server.client();
    // Redis cannot verify a signature: it takes any password of this user, and the test looks at what was sent.
    client.command(&argv![
        "ACL", "SETUSER", "iam-user", "on", "nopass", "~*", "+@all"
    ]);
    (server, port)
}

fn iam_link(source: &Server, port: &Port, ca: &Ca) -> Link {
    Link::between(&source.address(), &port.address())
        .with("redis_writer", "username = \"iam-user\"")
        .with("redis_writer", "tls = true")
        .with(
            "redis_writer",
            &format!("tls_config.ca_cert = \"{}\"", ca.file().display()),
        )
        .with("redis_writer", "iam.cache_name = \"my-cache\"")
        .with("redis_writer", "iam.region = \"eu-central-1\"")
        .with("redis_writer", "iam.serverless = true")
}

#[test]
fn iam_with_the_credentials_of_an_instance() {
    let ca = Ca::new();
    let source = source_of("redis-7.0");
    let (target, port) = iam_target(&ca);
    // Credentials that end within the hour, and are asked for again well before: every time.
    let aws = FakeAws::start(200);
    let link = iam_link(&source, &port, &ca).with("redis_writer", "reauth_after = \"300ms\"");
    let mut daemon = Daemon::prepare(&link.text(), &["sync", "shake.toml"]);
    daemon.env(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        &format!("http://{}", aws.address),
    );
    daemon.env("HOME", "/nowhere");
    daemon.spawn();
    wait_stream(&mut daemon);
    let mut client = source.client();
    for _ in 0..100 {
        client.command(&argv!["INCR", "n"]);
    }
    daemon.wait_for("tokens", LIMIT, |daemon| {
        daemon.output().matches("said again who we are").count() >= 3
    });
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert!(aws.asked("PUT /latest/api/token") >= 1);
    assert!(aws.asked("/security-credentials/role-of-the-instance") >= 4);
    let mut at_target = target.client();
    let clients = text(&at_target.command(&argv!["CLIENT", "LIST"]));
    assert!(clients.contains("user=iam-user"), "{clients}");
    nothing_secret(&daemon);
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}

#[test]
fn iam_with_a_profile_the_environment_a_container_and_a_web_identity() {
    let ca = Ca::new();
    let source = source_of("redis-7.0");
    let (_target, port) = iam_target(&ca);
    let text = iam_link(&source, &port, &ca).text();
    let text = text.replace(testkit::daemon::STATUS_PORT, "0");
    let folder = tempfile::tempdir().expect("a folder");
    let profile = folder.path().join("credentials");
    let lines =
        format!("[mover]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = {AWS_SECRET}\n");
    std::fs::write(&profile, lines).expect("write a profile");
    let profile = profile.display().to_string();
    let aws = FakeAws::start(3600);
    let container = format!("http://{}/v2/credentials/x", aws.address);
    let off = ("AWS_EC2_METADATA_DISABLED", "true");
    let home = ("HOME", "/nowhere");
    let identity = folder.path().join("token");
    std::fs::write(&identity, "a.web.identity").expect("write a token");
    let (identity, sts) = (
        identity.display().to_string(),
        format!("http://{}", aws.address),
    );
    let ways: [&[(&str, &str)]; 4] = [
        &[
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", AWS_SECRET),
            off,
            home,
        ],
        &[
            ("AWS_SHARED_CREDENTIALS_FILE", &profile),
            ("AWS_PROFILE", "mover"),
            off,
            home,
        ],
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container),
            off,
            home,
        ],
        &[
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/mover"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &identity),
            ("AWS_ENDPOINT_URL_STS", &sts),
            off,
            home,
        ],
    ];
    for env in ways {
        let ended = run_in(&["ping", "shake.toml"], Some(text.as_bytes()), env);
        assert_eq!(ended.code, 0, "{env:?}: {}", ended.stderr);
        assert!(!ended.everything().contains(AWS_SECRET));
    }
    assert_eq!(aws.asked("/v2/credentials/x"), 1);
    assert_eq!(aws.asked("POST / "), 1);
    let ended = run_in(&["ping", "shake.toml"], Some(text.as_bytes()), &[off, home]);
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("AWS credentials"),
        "{}",
        ended.error()
    );
    let plain = text.replace("\ntls = true\n", "\n");
    let ended = run_in(
        &["ping", "shake.toml"],
        Some(plain.as_bytes()),
        &[off, home],
    );
    assert_eq!(ended.code, 2);
    assert!(ended.error().contains("IAM needs TLS"), "{}", ended.error());
}
