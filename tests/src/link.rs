//! A shake.toml in the making.

use testkit::daemon::STATUS_PORT;
use testkit::{Daemon, Server};

/// One link: both addresses, and lines for any table of its shake.toml.
#[derive(Debug, Clone)]
pub struct Link {
    source: String,
    target: String,
    lines: Vec<(&'static str, String)>,
    /// Read by SCAN from the beginning.
    scans: bool,
}

impl Link {
    /// From `source` to `target`, straight.
    pub fn new(source: &Server, target: &Server) -> Self {
        Self::between(&source.address(), &target.address())
    }

    /// Between two addresses.
    pub fn between(source: &str, target: &str) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            // One name whichever way the daemon reaches its ends, so that a proxy can come and go.
            lines: vec![("link", "name = \"e2e\"".into())],
            scans: false,
        }
    }

    /// Reaches the source by this address, e.g. a proxy's.
    pub fn source(mut self, address: &str) -> Self {
        self.source = address.into();
        self
    }

    /// Reaches the target by this address.
    pub fn target(mut self, address: &str) -> Self {
        self.target = address.into();
        self
    }

    /// Reads the source by SCAN, whatever it offers.
    pub fn scanning(mut self) -> Self {
        self.scans = true;
        self
    }

    /// Adds a line such as `batch_commands = 7` to a table.
    pub fn with(mut self, table: &'static str, line: &str) -> Self {
        self.lines.push((table, line.into()));
        self
    }

    /// The shake.toml.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for table in [
            "sync_reader",
            "scan_reader",
            "redis_writer",
            "filter",
            "advanced",
            "link",
            "spool",
            "checkpoint",
            "limits",
            "compare",
            "cutover",
        ] {
            text.push_str(&format!("[{table}]\n"));
            match table {
                "sync_reader" | "scan_reader" if (table == "scan_reader") != self.scans => {}
                "sync_reader" | "scan_reader" => {
                    text.push_str(&format!("address = \"{}\"\n", self.source))
                }
                "redis_writer" => text.push_str(&format!("address = \"{}\"\n", self.target)),
                "advanced" => text.push_str(&format!("status_port = {STATUS_PORT}\n")),
                _ => {}
            }
            for (_, line) in self.lines.iter().filter(|(of, _)| *of == table) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// Starts a daemon on it.
    pub fn start(&self) -> Daemon {
        Daemon::start(&self.text())
    }
}
