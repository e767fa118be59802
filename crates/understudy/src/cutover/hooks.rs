//! Commands of the operator's, run by a shell at certain steps.

use std::process::Stdio;

use tokio::process::Command;

/// Runs a command; its output goes to standard error, so that standard output stays what it is.
///
/// # Errors
/// A sentence: it cannot be run, or did not end with 0.
pub(super) async fn run(
    name: &str,
    command: &str,
    env: &[(&'static str, String)],
) -> Result<(), String> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).kill_on_drop(true);
    shell.envs(env.iter().map(|(name, value)| (name, value)));
    shell.stdin(Stdio::null()).stdout(std::io::stderr());
    let ended = shell.status().await;
    let ended = ended.map_err(|error| format!("{name}: {error}"))?;
    match ended.success() {
        true => Ok(()),
        false => Err(format!("{name} ended with {ended}: {command}")),
    }
}
