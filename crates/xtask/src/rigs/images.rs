//! The images of the rigs: made once from Debian packages, and ours from the binary at hand.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;

use crate::program;

/// Packages of the servers' image.
const SERVERS: &[&str] = &["redis-server", "redis-tools", "prometheus"];

/// Names of images that are there.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) servers: String,
    pub(super) understudy: String,
    /// Held for the folder with the rigs' certificates.
    pub(super) certs: tempfile::TempDir,
}

impl Images {
    /// Makes what is missing; ours anew, which takes a moment.
    pub(super) fn make() -> Result<Self, String> {
        let base = made("understudy-base", &[])?;
        let servers = made("understudy-rig", SERVERS)?;
        let understudy = "understudy:rigs".to_owned();
        let folder = tempfile::TempDir::with_prefix("understudy-rigs-")
            .map_err(|error| error.to_string())?;
        let sbom = folder.path().join("sbom.spdx.json");
        crate::sbom::run(&["--output".to_owned(), sbom.display().to_string()])?;
        let binary = match std::env::var_os("UNDERSTUDY_BIN") {
            Some(binary) => binary.into(),
            None => crate::test::target().join("release/understudy"),
        };
        if !binary.exists() {
            return Err(format!(
                "{} is not there: cargo build --release -p understudy",
                binary.display()
            ));
        }
        let mut build = Command::new("docker/build.sh");
        build
            .arg("--binary")
            .arg(&binary)
            .arg("--sbom")
            .arg(&sbom)
            .arg(&understudy);
        program::output(build.env("BASE_IMAGE", &base))?;
        let certs = folder.path().join("certs");
        program::output(Command::new("docker/rigs/certs.sh").arg(&certs))?;
        readable(folder.path())?;
        Ok(Self {
            servers,
            understudy,
            certs: folder,
        })
    }
}

/// Containers run as somebody else than we do.
fn readable(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, all).map_err(|error| format!("{}: {error}", folder.display()))
}

/// An image of `docker/base/make.sh`, whose name tells how it was made; made if there is none.
fn made(name: &str, packages: &[&str]) -> Result<String, String> {
    let script = "docker/base/make.sh";
    let text = fs::read_to_string(script).map_err(|error| format!("{script}: {error}"))?;
    let mut hasher = DefaultHasher::new();
    (text, packages).hash(&mut hasher);
    let image = format!("{name}:{:016x}", hasher.finish());
    let mut inspect = Command::new("docker");
    if program::output(inspect.args(["image", "inspect", &image])).is_err() {
        println!("making {image}");
        program::output(Command::new(script).arg(&image).args(packages))?;
    }
    Ok(image)
}
