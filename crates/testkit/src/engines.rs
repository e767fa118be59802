//! The real servers that `cargo xtask engines` brought.

use std::fs;
use std::path::{Path, PathBuf};

use crate::version::Version;

/// A server program that is ready to be started.
#[derive(Debug, Clone)]
pub struct Engine {
    /// E.g. `redis-7.0`.
    pub name: String,
    /// What it says it is.
    pub version: Version,
    /// Whether it was built with TLS.
    pub tls: bool,
    folder: PathBuf,
}

/// The engines that every test run has; others are for longer runs.
pub const SMALL_SET: [&str; 9] = [
    "redis-5.0",
    "redis-6.2",
    "redis-7.0",
    "redis-7.2",
    "redis-7.4",
    "redis-8.0",
    "valkey-8.1",
    "valkey-9.0",
    "valkey-9.1",
];

impl Engine {
    /// The engine of this name, or how to get it.
    pub fn find(name: &str) -> Result<Self, String> {
        let folder = home().join(name);
        let missing = |what: &str| {
            format!(
                "engine {name}: {what} in {}; run: cargo xtask engines {name}",
                folder.display()
            )
        };
        let stamp = fs::read_to_string(folder.join("stamp")).map_err(|_| missing("is not"))?;
        let field = |name: &str| stamp.lines().find_map(|line| line.strip_prefix(name));
        let version = field("family=").zip(field("version="));
        let version = version.and_then(|(family, text)| Version::parse(family, text));
        let version = version.ok_or_else(|| missing("has no version"))?;
        if !folder.join("redis-server").exists() {
            return Err(missing("has no server"));
        }
        Ok(Self {
            name: name.into(),
            version,
            tls: field("tls=") == Some("yes"),
            folder,
        })
    }

    /// The engine of this name; a test cannot do without it.
    pub fn of(name: &str) -> Self {
        match Self::find(name) {
            Ok(engine) => engine,
            Err(error) => panic!("{error}"),
        }
    }

    /// Every engine that is here, by name.
    pub fn all() -> Vec<Self> {
        let names = fs::read_dir(home()).into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
            .iter()
            .filter_map(|name| Self::find(name).ok())
            .collect()
    }

    /// The server's executable.
    pub fn server(&self) -> PathBuf {
        self.folder.join("redis-server")
    }

    /// Another program of the package (`redis-cli`, `redis-benchmark`, `redis-check-rdb`), if it has it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name)).filter(|file| file.exists())
    }

    /// A module that came with the server, e.g. `rejson.so`.
    pub fn module(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join("modules").join(name)).filter(|file| file.exists())
    }
}

fn home() -> PathBuf {
    match std::env::var_os("UNDERSTUDY_ENGINES") {
        Some(home) => home.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/engines"),
    }
}
