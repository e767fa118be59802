//! `understudy status`: what a running daemon tells on its status port, for a terminal.

mod fetch;
mod lines;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::config::Config;
use crate::logging::tell;
use lines::Lags;

/// How often a terminal is drawn anew.
const EVERY: Duration = Duration::from_secs(1);

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Where the daemon serves its status: http://HOST:PORT, HOST:PORT, or its shake.toml (the one in this folder if nothing is
    /// given).
    #[arg(value_name = "URL")]
    from: Option<String>,
    /// Look once, on a terminal too.
    #[arg(long)]
    once: bool,
    /// Print the status JSON, once.
    #[arg(long)]
    json: bool,
    /// Ask only whether it works (code 0, or 1), for health checks of containers.
    #[arg(long, conflicts_with_all = ["json", "once"])]
    health: bool,
}

/// Runs the command; gives the exit code: 0, 1 if nobody answers, 2 for an address that is none.
pub(crate) fn run(args: &StatusArgs) -> u8 {
    let address = match address(args.from.as_deref()) {
        Ok(address) => address,
        Err(what) => {
            tell(format_args!("error: {what}"));
            return 2;
        }
    };
    if args.health {
        return match fetch::health(&address) {
            Ok(said) => {
                // Whoever reads it may have gone.
                let _ = io::stdout().write_all(said.as_bytes());
                0
            }
            Err(what) => {
                tell(format_args!("error: {what}"));
                1
            }
        };
    }
    if args.json {
        return show(&address, |status| format!("{status}\n"));
    }
    if args.once || !io::stdout().is_terminal() {
        let once = |status: &Value| lines::of(status, &Lags::default()).join("\n") + "\n";
        return show(&address, once);
    }
    watch(&address)
}

/// Prints one look.
fn show(address: &str, form: impl FnOnce(&Value) -> String) -> u8 {
    match fetch::status(address) {
        Ok(status) => {
            // Whoever reads it may have gone.
            let _ = io::stdout().write_all(form(&status).as_bytes());
            0
        }
        Err(what) => {
            tell(format_args!("error: {what}"));
            1
        }
    }
}

/// Draws over the last look, until it is interrupted or nobody reads.
fn watch(address: &str) -> u8 {
    let (mut drawn, mut lags) = (0, Lags::default());
    loop {
        let lines = match fetch::status(address) {
            Ok(status) => {
                lags.note(&status);
                lines::of(&status, &lags)
            }
            Err(what) => vec![what, "trying again; Ctrl-C ends this view".to_owned()],
        };
        let lines = fitting(lines);
        let mut text = String::new();
        if drawn > 0 {
            // Up to where the last one began, and everything from there away.
            text.push_str(&format!("\x1b[{drawn}A\x1b[J"));
        }
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        drawn = lines.len();
        let mut out = io::stdout();
        if out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            return 0;
        }
        std::thread::sleep(EVERY);
    }
}

/// The lines as far as the terminal shows them: one that it breaks could not be drawn over.
fn fitting(lines: Vec<String>) -> Vec<String> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let (columns, rows) = match size {
        Some(size) if size.ws_col > 0 && size.ws_row > 1 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    };
    let lines = lines.into_iter().take(usize::from(rows) - 1);
    let cut = |line: String| line.chars().take(usize::from(columns)).collect();
    lines.map(cut).collect()
}

/// `host:port` out of what was given.
fn address(from: Option<&str>) -> Result<String, String> {
    let from = from.unwrap_or("shake.toml");
    if let Some(rest) = from.strip_prefix("http://") {
        let host = rest.split('/').next().unwrap_or_default();
        return match host.contains(':') {
            true => Ok(host.to_owned()),
            false => Ok(format!("{host}:80")),
        };
    }
    if from.starts_with("https://") {
        return Err(format!(
            "{from}: the status port speaks plain HTTP; use http://"
        ));
    }
    if !Path::new(from).exists() {
        if from
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            return Ok(from.to_owned());
        }
        return Err(format!(
            "{from} is no file here and no address; give http://HOST:PORT of the daemon's status port, or its shake.toml"
        ));
    }
    let config = Config::read(Path::new(from)).map_err(|error| error.to_string())?;
    let http = config.http.ok_or_else(|| {
        format!("{from} has no status port; set advanced.status_port and start the daemon again")
    })?;
    // Bound to every address it is reached by this one.
    Ok(http.bind.replace("0.0.0.0:", "127.0.0.1:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        let ok = |text: &str| address(Some(text)).unwrap();
        assert_eq!(ok("http://h:1/status"), "h:1");
        assert_eq!(ok("http://h"), "h:80");
        assert_eq!(ok("10.0.0.1:9090"), "10.0.0.1:9090");
        assert!(
            address(Some("https://h:1"))
                .unwrap_err()
                .contains("http://")
        );
        assert!(address(Some("nowhere")).unwrap_err().contains("nowhere"));
    }
}
