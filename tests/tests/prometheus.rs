//! What Prometheus and Grafana make of the metrics: the alert rules, tried by promtool; and a real Prometheus on a real run that
//! answers every query of the rules and of the dashboard.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{LIMIT, Link, catch_up, rng, source_of, wait_stream};
use serde_json::Value;
use tempfile::TempDir;
use testkit::port::Port;
use testkit::process::wait_until;
use testkit::{Daemon, Server, Writer, argv, daemon};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    let file = root().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Names of all alerts.
fn alerts() -> Vec<String> {
    let text = read("docker/prometheus/alerts.yml");
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

#[track_caller]
fn promtool(args: &[&str]) -> String {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(root()).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| {
        panic!("promtool: {error}; apt-get install prometheus (.ci/run does)")
    });
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "promtool {args:?}\n{text}");
    text
}

#[test]
fn the_rules_fire_when_they_should_and_only_then() {
    let checked = promtool(&["check", "rules", "docker/prometheus/alerts.yml"]);
    assert!(
        checked.contains(&format!("{} rules found", alerts().len())),
        "{checked}"
    );
    promtool(&["test", "rules", "docker/prometheus/alerts_test.yml"]);
    promtool(&["check", "config", "docker/prometheus/prometheus.yml"]);
    let tests = read("docker/prometheus/alerts_test.yml");
    for alert in alerts() {
        assert!(tests.contains(&alert), "no test lets {alert} fire");
    }
}

/// What may follow a heading in a link to it.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_has_a_section_that_says_what_to_do() {
    let (rules, page) = (
        read("docker/prometheus/alerts.yml"),
        read("docs/operations.md"),
    );
    let alerts = alerts();
    for alert in &alerts {
        let section = page.split_once(&format!("\n#### {alert}\n"));
        let (_, section) =
            section.unwrap_or_else(|| panic!("docs/operations.md has no section {alert}"));
        let section = section.split("\n#").next().unwrap_or_default();
        assert!(section.contains("**Mend.**"), "{alert} has no mend");
        let link = format!("runbook: docs/operations.md#{}\n", anchor(alert));
        assert!(rules.contains(&link), "{alert} has no {link}");
    }
    let sections = page
        .lines()
        .filter_map(|line| line.strip_prefix("#### Understudy"));
    for name in sections {
        let name = format!("Understudy{name}");
        assert!(alerts.contains(&name), "there is no alert {name}");
    }
}

/// A Prometheus that scrapes one daemon every second; killed when dropped.
struct Prometheus {
    child: Child,
    port: Port,
    _folder: TempDir,
}

impl Prometheus {
    fn start(of: &Daemon) -> Self {
        let (folder, port) = (TempDir::new().expect("a folder"), Port::reserve());
        let config = read("docker/prometheus/prometheus.yml")
            .replace("5s", "1s")
            .replace(
                "understudy:8080",
                &format!("127.0.0.1:{}", of.status_port()),
            );
        fs::write(folder.path().join("prometheus.yml"), config).expect("write its file");
        let rules = read("docker/prometheus/alerts.yml");
        fs::write(folder.path().join("alerts.yml"), rules).expect("write its rules");
        let mut command = Command::new("prometheus");
        command.current_dir(folder.path());
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={}", port.address()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("prometheus: {error}; apt-get install prometheus (.ci/run does)")
        });
        Self {
            child,
            port,
            _folder: folder,
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let (code, body) = daemon::get(&self.port.address(), path).ok()?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        assert!(
            code == 200 && answer["status"] == "success",
            "{path}: {answer}"
        );
        Some(answer["data"].clone())
    }

    /// The samples that a query gives now.
    #[track_caller]
    fn query(&self, expression: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let data = self
            .get(&path)
            .unwrap_or_else(|| panic!("no answer to {expression}"));
        data["result"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For a URL.
fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// Title, description and query of every panel, and of what the dashboard chooses from.
fn panels() -> Vec<(String, String, String)> {
    let board: Value = serde_json::from_str(&read("docker/grafana/understudy.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let mut all = Vec::new();
    for panel in panels {
        let text = |field: &str| panel[field].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{}", text("title"));
        for target in targets {
            let query = target["expr"].as_str().expect("a query").to_owned();
            all.push((text("title"), text("description"), query));
        }
    }
    all
}

#[test]
fn a_real_prometheus_answers_every_query_of_the_rules_and_of_the_dashboard() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    source.client().command(&argv!["HSET", "h", "f", 1]);
    let link = Link::new(&source, &target).with("compare", "background_qps = 500");
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    let prometheus = Prometheus::start(&daemon);
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 800);
    wait_until("ten scrapes", LIMIT, || {
        let path = format!(
            "/api/v1/query?query={}",
            encoded("count_over_time(up[1m]) >= 10")
        );
        let data = prometheus.get(&path).unwrap_or_default();
        data["result"]
            .as_array()
            .is_some_and(|found| !found.is_empty())
    });
    // Drawn while the load goes on. What may be empty says so.
    let mut filled = 0;
    for (title, description, query) in panels() {
        let query = query
            .replace("$instance", ".*")
            .replace("$__rate_interval", "10s");
        assert!(!query.contains('$'), "{title}: {query}");
        let found = prometheus.query(&query);
        let may_be_empty = description.contains("Empty ");
        assert!(
            !found.is_empty() || may_be_empty,
            "{title} is empty: {query}"
        );
        filled += usize::from(!found.is_empty());
    }
    assert!(filled > 25, "{filled} queries gave something");
    let rate = "sum(rate(understudy_commands_applied_total[10s]))";
    let rate = prometheus.query(rate)[0]["value"][1]
        .as_str()
        .map(str::parse::<f64>);
    assert!(rate.is_some_and(|rate| rate.is_ok_and(|rate| rate > 50.0)));
    let rules = prometheus.get("/api/v1/rules").expect("rules");
    let rules = rules["groups"][0]["rules"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert_eq!(rules.len(), alerts().len());
    for rule in rules {
        assert_eq!(
            (&rule["health"], &rule["state"]),
            (&"ok".into(), &"inactive".into()),
            "{rule:#}"
        );
    }
    // Every name in a rule or a panel is one that this version knows, seen by now or not.
    let known = read("crates/understudy/src/metrics.rs");
    let queries: Vec<String> = panels().into_iter().map(|(_, _, query)| query).collect();
    let text = queries.join(" ") + &read("docker/prometheus/alerts.yml");
    let names = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    for name in names.filter(|name| name.starts_with("understudy_")) {
        let family = name
            .trim_start_matches("understudy_")
            .trim_end_matches("_bucket");
        assert!(known.contains(&format!("\"{family}\"")), "no metric {name}");
    }
    writer.stop();
    catch_up(&mut daemon, &source);
}
