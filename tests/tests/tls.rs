//! TLS at both ends: it connects, or says exactly why not.

use e2e::{LIMIT, Link, catch_up, run_in, wait_stream};
use testkit::certs::{Ca, Certificate, server_words};
use testkit::oracle;
use testkit::port::Port;
use testkit::{Engine, Server, ServerOptions, argv};

/// A server that speaks TLS on a port of its own, beside a plain one for the test.
struct TlsServer {
    server: Server,
    port: Port,
}

impl TlsServer {
    fn start(certificate: &Certificate, ca: &Ca, clients: &str, more: &str) -> Self {
        let port = Port::reserve();
        let words = server_words(port.number(), certificate, &ca.file(), clients);
        let options = ServerOptions::args(&format!("{words} {more}"));
        Self {
            server: Server::start(&Engine::of("redis-7.0"), options),
            port,
        }
    }

    fn address(&self) -> String {
        self.port.address()
    }
}

/// What `understudy ping` says of this target: nothing where it connects, else the error line.
fn ping(source: &Server, target: &str, lines: &[String], env: &[(&str, &str)]) -> String {
    let mut link = Link::between(&source.address(), target).with("redis_writer", "tls = true");
    for line in lines {
        link = link.with("redis_writer", line);
    }
    let text = link.text().replace(testkit::daemon::STATUS_PORT, "0");
    let args = ["ping", "shake.toml", "--count", "1"];
    let ended = run_in(&args, Some(text.as_bytes()), env);
    match ended.code {
        0 => String::new(),
        4 | 5 => ended.error().to_owned(),
        code => panic!("exit code {code}: {}", ended.stderr),
    }
}

#[track_caller]
fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no {word:?} in: {line:?}");
    }
}

fn ca_line(ca: &Ca) -> String {
    format!("tls_config.ca_cert = \"{}\"", ca.file().display())
}

fn identity(of: &Certificate) -> [String; 2] {
    [
        format!("tls_config.cert = \"{}\"", of.cert.display()),
        format!("tls_config.key = \"{}\"", of.key.display()),
    ]
}

#[test]
fn the_servers_certificate_is_accepted_or_the_reason_is_named() {
    let (ca, other) = (Ca::new(), Ca::new());
    let plain = Server::of("redis-7.0");
    let good = TlsServer::start(&ca.server(&["127.0.0.1"]), &ca, "no", "");
    let to_good = |lines: &[String], env: &[(&str, &str)]| {
        let line = ping(&plain, &good.address(), lines, env);
        (line, good.address())
    };
    let roots = ca.file().display().to_string();
    // The system's roots, which this variable names.
    assert_eq!(to_good(&[], &[("SSL_CERT_FILE", &roots)]).0, "");
    // A CA of one's own.
    assert_eq!(to_good(&[ca_line(&ca)], &[]).0, "");
    // TLS 1.3 alone.
    let only = "tls_config.min_version = \"1.3\"".to_owned();
    assert_eq!(to_good(&[ca_line(&ca), only.clone()], &[]).0, "");
    // Nobody knows the CA.
    let (line, address) = to_good(&[ca_line(&other)], &[]);
    says(&line, &["target", &address, "signed", "tls_config.ca_cert"]);
    // Not looked at.
    let insecure = "tls_config.insecure = true".to_owned();
    assert_eq!(to_good(std::slice::from_ref(&insecure), &[]).0, "");

    let named = TlsServer::start(&ca.server(&["cache.example"]), &ca, "no", "");
    let line = ping(&plain, &named.address(), &[ca_line(&ca)], &[]);
    says(
        &line,
        &["127.0.0.1", "cache.example", "tls_config.server_name"],
    );
    let name = "tls_config.server_name = \"cache.example\"".to_owned();
    assert_eq!(
        ping(&plain, &named.address(), &[ca_line(&ca), name], &[]),
        ""
    );

    let expired = TlsServer::start(&ca.expired(&["127.0.0.1"]), &ca, "no", "");
    let line = ping(&plain, &expired.address(), &[ca_line(&ca)], &[]);
    says(&line, &["expired", "days ago", "renew"]);

    let lone = ca.self_signed(&["127.0.0.1"]);
    let lonely = TlsServer::start(&lone, &ca, "no", "");
    let line = ping(&plain, &lonely.address(), &[ca_line(&ca)], &[]);
    says(&line, &["self-signed", "tls_config.ca_cert"]);
    let its_own = format!("tls_config.ca_cert = \"{}\"", lone.cert.display());
    assert_eq!(ping(&plain, &lonely.address(), &[its_own], &[]), "");

    let old = TlsServer::start(
        &ca.server(&["127.0.0.1"]),
        &ca,
        "no",
        "--tls-protocols TLSv1.2",
    );
    assert_eq!(ping(&plain, &old.address(), &[ca_line(&ca)], &[]), "");
    let line = ping(&plain, &old.address(), &[ca_line(&ca), only], &[]);
    says(&line, &["version of TLS", "tls_config.min_version"]);

    let missing = "tls_config.ca_cert = \"/nowhere/ca.pem\"".to_owned();
    says(&to_good(&[missing], &[]).0, &["/nowhere/ca.pem"]);
    let line = ping(&plain, &good.server.address(), &[insecure], &[]);
    says(&line, &["tls = true", &good.server.address()]);
}

#[test]
fn our_certificate_is_accepted_or_the_lack_of_it_is_named() {
    let (ca, other) = (Ca::new(), Ca::new());
    let plain = Server::of("redis-7.0");
    // With TLS 1.3 the server looks at it after the handshake, with 1.2 within.
    for protocols in ["TLSv1.2", "TLSv1.3"] {
        let server = TlsServer::start(
            &ca.server(&["127.0.0.1"]),
            &ca,
            "yes",
            &format!("--tls-protocols {protocols}"),
        );
        let with = |of: Option<&Certificate>| {
            let mut lines = vec![ca_line(&ca)];
            lines.extend(of.into_iter().flat_map(identity));
            ping(&plain, &server.address(), &lines, &[])
        };
        assert_eq!(with(Some(&ca.client("understudy"))), "", "{protocols}");
        says(
            &with(None),
            &["target", &server.address(), "tls_config.cert"],
        );
        says(
            &with(Some(&other.client("stranger"))),
            &["target", "our certificate", "tls_config.cert"],
        );
    }
}

#[test]
fn a_whole_migration_over_mutual_tls() {
    let ca = Ca::new();
    let certificate = ca.server(&["127.0.0.1"]);
    let source = TlsServer::start(&certificate, &ca, "yes", "--repl-backlog-size 16mb");
    let target = TlsServer::start(&certificate, &ca, "yes", "");
    let mut writer = source.server.client();
    for i in 0..500 {
        writer.command(&argv!["SET", format!("key:{i}"), "x".repeat(i * 20)]);
    }
    let mut link = Link::between(&source.address(), &target.address());
    for table in ["sync_reader", "redis_writer"] {
        link = link.with(table, "tls = true").with(table, &ca_line(&ca));
        for line in identity(&ca.client("understudy")) {
            link = link.with(table, &line);
        }
    }
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    for _ in 0..500 {
        writer.command(&argv!["INCR", "n"]);
    }
    catch_up(&mut daemon, &source.server);
    oracle::assert_equal(&source.server.address(), &target.server.address());
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}
