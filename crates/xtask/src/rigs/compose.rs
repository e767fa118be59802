//! One rig: a compose file with names and ports of its own, gone when dropped.

use std::process::Command;

use testkit::port::Port;
use testkit::{Client, daemon};

use super::images::Images;
use super::wait;
use crate::program;

/// Nodes of the largest cluster.
const NODES: usize = 6;

/// A rig, running or not.
#[derive(Debug)]
pub(super) struct Rig {
    project: String,
    file: String,
    env: Vec<(&'static str, String)>,
    /// One for each node; a rig without a cluster has the first alone.
    sources: [Port; NODES],
    /// One for each node; a target that is one server has the first alone.
    targets: [Port; 4],
    /// One for each process; most rigs have the first alone.
    statuses: [Port; 3],
    prometheus: Port,
    /// For a daemon that comes later, where there is one.
    back: Port,
    is_kept: bool,
}

impl Rig {
    /// A rig that is not up yet.
    pub(super) fn new(name: &str, images: &Images) -> Result<Self, String> {
        let [prometheus, back] = std::array::from_fn(|_| Port::reserve());
        let targets: [Port; 4] = std::array::from_fn(|_| Port::reserve());
        let statuses: [Port; 3] = std::array::from_fn(|_| Port::reserve());
        let engine = crate::test::target().join("engines/redis-6.2");
        // Docker follows no link out of what it mounts.
        let engine = engine.canonicalize().unwrap_or(engine);
        let sources: [Port; NODES] = std::array::from_fn(|_| Port::reserve());
        let number = |port: &Port| port.number().to_string();
        let [source, source_2, source_3, source_4, source_5, source_6] =
            sources.each_ref().map(number);
        let [status, status_2, status_3] = statuses.each_ref().map(number);
        let [target, target_2, target_3, target_4] = targets.each_ref().map(number);
        let env = vec![
            ("SOURCE_PORT", source),
            ("SOURCE_PORT_2", source_2),
            ("SOURCE_PORT_3", source_3),
            ("SOURCE_PORT_4", source_4),
            ("SOURCE_PORT_5", source_5),
            ("SOURCE_PORT_6", source_6),
            ("TARGET_PORT", target),
            ("TARGET_PORT_2", target_2),
            ("TARGET_PORT_3", target_3),
            ("TARGET_PORT_4", target_4),
            ("STATUS_PORT", status),
            ("STATUS_PORT_2", status_2),
            ("STATUS_PORT_3", status_3),
            ("PROMETHEUS_PORT", prometheus.number().to_string()),
            ("BACK_PORT", back.number().to_string()),
            ("RIG_ENGINE", engine.display().to_string()),
            ("REDIS_IMAGE", images.servers.clone()),
            ("PROMETHEUS_IMAGE", images.servers.clone()),
            ("UNDERSTUDY_IMAGE", images.understudy.clone()),
            (
                "RIG_CERTS",
                images.certs.path().join("certs").display().to_string(),
            ),
        ];
        Ok(Self {
            project: format!("understudy-{name}-{}", std::process::id()),
            file: format!("docker/rigs/{name}.yml"),
            env,
            sources,
            targets,
            statuses,
            prometheus,
            back,
            is_kept: false,
        })
    }

    /// Starts it, and waits until understudy follows the stream.
    pub(super) fn up(&self) -> Result<(), String> {
        self.compose(&["up", "-d"])?;
        self.wait_ready()
    }

    /// Starts one more service of it.
    pub(super) fn start(&self, service: &str) -> Result<(), String> {
        self.compose(&["up", "-d", "--no-deps", service]).map(drop)
    }

    /// Waits until `/readyz` says yes.
    pub(super) fn wait_ready(&self) -> Result<(), String> {
        wait("/readyz to say yes", || {
            self.get("/readyz").is_some_and(|(code, _)| code == 200)
        })
    }

    /// Waits until Docker calls a service healthy.
    pub(super) fn wait_healthy(&self, service: &str) -> Result<(), String> {
        let name = self.container(service);
        wait(&format!("{service} to be healthy"), || {
            let state = docker(&["inspect", "--format", "{{.State.Health.Status}}", &name]);
            state.is_ok_and(|state| state.trim() == "healthy")
        })
    }

    /// Status code and body of a GET of understudy's status port.
    pub(super) fn get(&self, path: &str) -> Option<(u16, String)> {
        daemon::get(&self.status(0), path).ok()
    }

    /// The same of Prometheus.
    pub(super) fn ask_prometheus(&self, path: &str) -> Option<(u16, String)> {
        daemon::get(&self.prometheus.address(), path).ok()
    }

    /// The source's address on this machine.
    pub(super) fn source(&self) -> String {
        self.sources[0].address()
    }

    /// Those of all nodes of a source that is a cluster of three.
    pub(super) fn sources(&self) -> Vec<String> {
        self.nodes().into_iter().take(3).collect()
    }

    /// Those of a cluster of six: three with slots, and their replicas.
    pub(super) fn nodes(&self) -> Vec<String> {
        self.sources.iter().map(Port::address).collect()
    }

    /// The address of the status port of one of several processes.
    pub(super) fn status(&self, at: usize) -> String {
        self.statuses.get(at).map(Port::address).unwrap_or_default()
    }

    /// That of the daemon that comes later.
    pub(super) fn back(&self) -> String {
        self.back.address()
    }

    /// The target's.
    pub(super) fn target(&self) -> String {
        self.targets[0].address()
    }

    /// Those of all nodes of a target that is a cluster of four.
    pub(super) fn targets(&self) -> Vec<String> {
        self.targets.iter().map(Port::address).collect()
    }

    /// Runs understudy in a container of its own, with the service's files, while the service does not run.
    pub(super) fn once(&self, service: &str, words: &[&str]) -> Result<String, String> {
        self.compose(&["stop", service])?;
        let mut all = vec!["run", "--rm", "--no-deps", "-T", service];
        all.extend(words);
        self.compose(&all)
    }

    /// Runs a program in the container of a service.
    pub(super) fn inside(&self, service: &str, words: &[&str]) -> Result<String, String> {
        let name = self.container(service);
        let mut all = vec!["exec", &name];
        all.extend(words);
        docker(&all)
    }

    /// SIGKILL, and the start of it again once `meanwhile` is over.
    pub(super) fn kill(&self, service: &str, meanwhile: impl FnOnce()) -> Result<(), String> {
        let name = self.container(service);
        docker(&["kill", &name])?;
        meanwhile();
        docker(&["start", &name]).map(drop)
    }

    /// SIGKILL for good.
    pub(super) fn remove(&self, service: &str) -> Result<(), String> {
        docker(&["rm", "--force", "--volumes", &self.container(service)]).map(drop)
    }

    /// Takes understudy off one of its networks while `meanwhile` lasts.
    pub(super) fn cut(&self, network: &str, meanwhile: impl FnOnce()) -> Result<(), String> {
        let (network, name) = (
            format!("{}_{network}", self.project),
            self.container("understudy"),
        );
        docker(&["network", "disconnect", &network, &name])?;
        meanwhile();
        docker(&["network", "connect", &network, &name]).map(drop)
    }

    /// Waits until a server answers.
    pub(super) fn wait_answer(address: &str) -> Result<(), String> {
        wait(&format!("{address} to answer"), || {
            Client::try_connect(address)
                .is_ok_and(|mut client| client.try_command(&testkit::argv!["PING"]).is_ok())
        })
    }

    /// What its containers have printed last.
    pub(super) fn logs(&self) -> String {
        let logs = self.compose(&["logs", "--no-color", "--tail", "40"]);
        logs.unwrap_or_else(|error| error)
    }

    /// Leaves it as it is.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
        println!(
            "kept: docker-compose -p {} -f {} down --volumes",
            self.project, self.file
        );
    }

    /// What Docker calls the container of a service.
    pub(super) fn container(&self, service: &str) -> String {
        format!("{}_{service}_1", self.project)
    }

    fn compose(&self, words: &[&str]) -> Result<String, String> {
        let mut compose = Command::new("docker-compose");
        compose
            .args(["-p", &self.project, "-f", &self.file])
            .args(words);
        compose.envs(self.env.iter().map(|(name, value)| (name, value)));
        program::output(&mut compose)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !self.is_kept {
            // The next rig is not hurt by one that does not go.
            if let Err(error) = self.compose(&["down", "--volumes", "--timeout", "1"]) {
                eprintln!("{error}");
            }
        }
    }
}

fn docker(words: &[&str]) -> Result<String, String> {
    program::output(Command::new("docker").args(words))
}
