//! Tells the compiler which commit this is: UNDERSTUDY_COMMIT, or what git says where a release is built in a checkout.
//! Other builds do not ask git, which would make every commit compile anew.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=UNDERSTUDY_COMMIT");
    let given = env::var("UNDERSTUDY_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match given {
        Some(commit) => commit,
        None if is_release => commit().unwrap_or_else(|| "unknown".to_owned()),
        None => "dev".to_owned(),
    };
    println!("cargo:rustc-env=UNDERSTUDY_COMMIT={commit}");
}

/// The commit that is checked out, with a mark if files of it are changed.
fn commit() -> Option<String> {
    for path in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", path])?;
        println!("cargo:rerun-if-changed={path}");
    }
    for name in ["understudy", "resp", "replica", "rdb", "rewrite"] {
        println!("cargo:rerun-if-changed=../{name}/src");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit}-changed")
    })
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
