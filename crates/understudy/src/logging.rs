//! Log lines: text or JSON on standard error, and JSON lines in `advanced.log_file`.

mod rotate;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;
use crate::notices::Notices;
use crate::progress::Bar;

use rotate::LogFile;
pub use rotate::Rotation;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Sets up logging for the process, and gives what collects its warnings.
///
/// # Errors
/// The log file cannot be written.
pub(crate) fn init(config: &LogConfig, format: Format, bar: Bar) -> Result<Notices, String> {
    let level: LevelFilter = config.level.parse().unwrap_or(LevelFilter::INFO);
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let console = tracing_subscriber::fmt::layer()
        .with_writer(AboveBar(bar))
        .with_target(false);
    let console = match format {
        Format::Text => console.with_ansi(colours).boxed(),
        Format::Json => console.json().flatten_event(true).boxed(),
    };
    let file = match &config.file {
        None => None,
        Some(path) => {
            let file = LogFile::open(path, config.rotation).map_err(|error| {
                format!(
                    "log file {}: {error}; set advanced.dir or advanced.log_file",
                    path.display()
                )
            })?;
            let writer = Shared(Arc::new(Mutex::new(file)));
            Some(
                tracing_subscriber::fmt::layer()
                    .with_writer(writer)
                    .json()
                    .flatten_event(true)
                    .with_target(false),
            )
        }
    };
    let notices = Notices::default();
    tracing_subscriber::registry()
        .with(console.with_filter(level))
        .with(file.with_filter(level))
        // The spans that tell whose a warning is are below it.
        .with(notices.clone().with_filter(LevelFilter::INFO))
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(notices)
}

/// A line on standard error, for commands that have no log. Whoever reads it may have gone: that is no reason to panic, as
/// the macro of the standard library does.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// One file for all threads.
#[derive(Clone)]
struct Shared(Arc<Mutex<LogFile>>);

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Shared {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Standard error, with the progress bar kept below.
#[derive(Clone)]
struct AboveBar(Bar);

impl Write for AboveBar {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.suspended(|| io::stderr().write_all(buf))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveBar {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
