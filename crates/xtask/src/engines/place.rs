//! An engine's folder: how it is laid out, stamped, locked and put into place in one step.
//!
//! ```text
//! target/engines/redis-7.0/   redis-server redis-cli ...   what tests start: a link into bin or a small wrapper
//!                             bin/ lib/ modules/           what was fetched, no more than is needed
//!                             stamp                        recipe, version, family, tls
//!                             SHA256SUMS                   of what it was unpacked from
//! ```

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::recipes::Recipe;
use crate::program;

/// An engine that is here and answers to `--version`.
pub(crate) struct Engine {
    pub(crate) version: String,
    pub(crate) family: Family,
}

#[derive(Clone, Copy)]
pub(crate) enum Family {
    Redis,
    Valkey,
    Redict,
}

/// The programs an engine may have, by the last part of their names.
const PROGRAMS: [&str; 6] = [
    "server",
    "cli",
    "benchmark",
    "check-rdb",
    "check-aof",
    "sentinel",
];
/// The ones that are the server itself under another name.
const SERVER_NAMES: [&str; 3] = ["check-rdb", "check-aof", "sentinel"];
const FAMILIES: [(&str, Family); 3] = [
    ("redis", Family::Redis),
    ("valkey", Family::Valkey),
    ("redict", Family::Redict),
];

/// A folder in the making; gone again unless `finish` takes it.
pub(crate) struct Work {
    pub(crate) root: PathBuf,
    pub(crate) bin: PathBuf,
    pub(crate) lib: PathBuf,
    /// For downloads and unpacking; not part of the engine.
    pub(crate) scratch: PathBuf,
}

/// How the programs in bin are started.
pub(crate) enum Launch {
    /// As they are.
    Direct,
    /// With lib in front of the machine's libraries.
    LibraryPath,
    /// Through lib/ld.so, with lib instead of the machine's libraries.
    Loader { knows_argv0: bool },
}

impl Work {
    pub(crate) fn new(home: &Path, name: &str) -> Result<Self, String> {
        let root = home.join(format!(".work/{name}.{}", std::process::id()));
        let work = Self {
            bin: root.join("engine/bin"),
            lib: root.join("engine/lib"),
            scratch: root.join("scratch"),
            root,
        };
        for folder in [&work.bin, &work.lib, &work.scratch] {
            fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
        }
        Ok(work)
    }

    fn engine(&self) -> PathBuf {
        self.root.join("engine")
    }

    /// Appends lines in the form of sha256sum.
    pub(crate) fn record_sums(&self, lines: &str) -> Result<(), String> {
        let file = self.engine().join("SHA256SUMS");
        let before = fs::read_to_string(&file).unwrap_or_default();
        fs::write(&file, before + lines).map_err(|error| at(&file, &error))
    }

    /// Takes over the executables of `folder` that belong to a server, under their own names.
    pub(crate) fn take_programs(&self, folder: &Path) -> Result<(), String> {
        let mut found = false;
        for (prefix, _) in FAMILIES {
            for program in PROGRAMS
                .into_iter()
                .filter(|program| !SERVER_NAMES.contains(program))
            {
                let name = format!("{prefix}-{program}");
                let from = folder.join(&name);
                if from.is_file() {
                    let to = self.bin.join(&name);
                    fs::copy(&from, &to).map_err(|error| at(&from, &error))?;
                    executable(&to)?;
                    found = true;
                }
            }
        }
        if found {
            Ok(())
        } else {
            Err(format!("{} holds no server", folder.display()))
        }
    }

    /// Takes over modules (`*.so`) of `folder`; Redis refuses to load one that is not executable.
    pub(crate) fn take_modules(&self, folder: &Path, wanted: &[&str]) -> Result<(), String> {
        let modules = self.engine().join("modules");
        for name in wanted {
            let from = folder.join(name);
            if from.is_file() {
                fs::create_dir_all(&modules).map_err(|error| at(&modules, &error))?;
                let to = modules.join(name);
                fs::copy(&from, &to).map_err(|error| at(&from, &error))?;
                executable(&to)?;
            }
        }
        Ok(())
    }

    /// Writes what tests start, one for each program, under Redis's name whatever the family.
    pub(crate) fn write_launchers(&self, launch: &Launch) -> Result<(), String> {
        for (prefix, _) in FAMILIES {
            let server = format!("{prefix}-server");
            if !self.bin.join(&server).exists() {
                continue;
            }
            for program in SERVER_NAMES {
                link(&server, &self.bin.join(format!("{prefix}-{program}")))?;
            }
            for program in PROGRAMS {
                let name = format!("{prefix}-{program}");
                if self.bin.join(&name).exists() {
                    self.write_launcher(launch, &name, program)?;
                }
            }
        }
        Ok(())
    }

    fn write_launcher(&self, launch: &Launch, name: &str, program: &str) -> Result<(), String> {
        let file = self.engine().join(name);
        // The folder is found from $0, so that a checkout can be moved; no process is left between.
        let start = match launch {
            Launch::Direct => {
                link(&format!("bin/{name}"), &file)?;
                return self.alias(name, program);
            }
            Launch::LibraryPath => {
                format!("LD_LIBRARY_PATH=\"$d/lib\" exec \"$d/bin/{name}\" \"$@\"")
            }
            Launch::Loader { knows_argv0 } => {
                let argv0 = if *knows_argv0 {
                    format!("--argv0 {name} ")
                } else {
                    String::new()
                };
                format!(
                    "exec \"$d/lib/ld.so\" --library-path \"$d/lib\" {argv0}\"$d/bin/{name}\" \"$@\""
                )
            }
        };
        let text = format!(
            "#!/bin/sh\nd=${{0%/*}}\n[ -e \"$d/bin/{name}\" ] || d=$(dirname \"$(readlink -f \"$0\")\")\n{start}\n"
        );
        fs::write(&file, text).map_err(|error| at(&file, &error))?;
        executable(&file)?;
        self.alias(name, program)
    }

    fn alias(&self, name: &str, program: &str) -> Result<(), String> {
        let alias = format!("redis-{program}");
        if alias == name {
            Ok(())
        } else {
            link(name, &self.engine().join(alias))
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What is left behind is only disk space, and the next run of the same pid clears it.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Puts the finished folder into place after its server has told its version.
pub(crate) fn finish(home: &Path, recipe: &Recipe, work: Work) -> Result<Engine, String> {
    let engine = probe(&work.engine().join("redis-server"), recipe)?;
    write_stamp(&work.engine(), recipe, &format!("{recipe:?}"), &engine)?;
    replace(&work.engine(), &home.join(recipe.name))?;
    Ok(engine)
}

/// Makes the engine out of a server of this machine.
pub(crate) fn use_own(home: &Path, recipe: &Recipe, server: &Path) -> Result<(), String> {
    let server = server.canonicalize().map_err(|error| at(server, &error))?;
    let engine = probe(&server, recipe)?;
    let _lock = lock(home, recipe.name)?;
    let work = Work::new(home, recipe.name)?;
    link(
        &server.to_string_lossy(),
        &work.engine().join("redis-server"),
    )?;
    for program in &PROGRAMS[1..] {
        let beside = server.with_file_name(format!("redis-{program}"));
        if beside.exists() {
            link(
                &beside.to_string_lossy(),
                &work.engine().join(format!("redis-{program}")),
            )?;
        }
    }
    write_stamp(
        &work.engine(),
        recipe,
        &format!("{OWN}{}", server.display()),
        &engine,
    )?;
    replace(&work.engine(), &home.join(recipe.name))
}

/// How the stamp of a server of this machine begins: such a one stays until --fresh.
const OWN: &str = "own ";

fn write_stamp(folder: &Path, recipe: &Recipe, from: &str, engine: &Engine) -> Result<(), String> {
    let file = folder.join("stamp");
    let family = engine.family.name().to_lowercase();
    let text = format!(
        "recipe={from}\nversion={}\nfamily={family}\ntls={}\n",
        engine.version,
        if recipe.tls { "yes" } else { "no" }
    );
    fs::write(&file, text).map_err(|error| at(&file, &error))
}

/// The engine as its stamp describes it, if it is here and of today's recipe.
pub(crate) fn read(home: &Path, recipe: &Recipe) -> Option<Engine> {
    let folder = home.join(recipe.name);
    let stamp = fs::read_to_string(folder.join("stamp")).ok()?;
    let field = |name: &str| stamp.lines().find_map(|line| line.strip_prefix(name));
    let from = field("recipe=")?;
    if (from != format!("{recipe:?}") && !from.starts_with(OWN))
        || !folder.join("redis-server").exists()
    {
        return None;
    }
    let family = field("family=")?;
    let (_, family) = FAMILIES.into_iter().find(|(name, _)| *name == family)?;
    Some(Engine {
        version: field("version=")?.into(),
        family,
    })
}

/// Asks the server itself: `Redis server v=7.0.15 sha=...`, `Redis server v=2.8.17 ...`.
fn probe(server: &Path, recipe: &Recipe) -> Result<Engine, String> {
    let said = program::output(Command::new(server).arg("--version"))?;
    let version = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="));
    let family = said
        .split_whitespace()
        .next()
        .map(str::to_lowercase)
        .unwrap_or_default();
    let family = FAMILIES.into_iter().find(|(name, _)| *name == family);
    match (version, family) {
        (Some(version), Some((_, family))) if version.starts_with(recipe.version) => Ok(Engine {
            version: version.into(),
            family,
        }),
        (Some(version), Some(_)) => Err(format!(
            "this server is {version}, {} has to be {}",
            recipe.name, recipe.version
        )),
        _ => Err(format!(
            "{} does not tell its version: {said}",
            server.display()
        )),
    }
}

fn replace(from: &Path, to: &Path) -> Result<(), String> {
    if to.exists() {
        fs::remove_dir_all(to).map_err(|error| at(to, &error))?;
    }
    fs::rename(from, to).map_err(|error| at(to, &error))
}

/// Held until dropped; waits for whoever has it.
pub(crate) fn lock(home: &Path, name: &str) -> Result<File, String> {
    let folder = home.join(".locks");
    fs::create_dir_all(&folder).map_err(|error| at(&folder, &error))?;
    let file = folder.join(name);
    let lock = File::create(&file).map_err(|error| at(&file, &error))?;
    lock.lock().map_err(|error| at(&file, &error))?;
    Ok(lock)
}

fn link(to: &str, file: &Path) -> Result<(), String> {
    symlink(to, file).map_err(|error| at(file, &error))
}

pub(crate) fn executable(file: &Path) -> Result<(), String> {
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(file, mode).map_err(|error| at(file, &error))
}

pub(crate) fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
