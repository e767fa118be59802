//! Running links: one on this thread, or several with a thread each.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::{Config, HttpConfig, Rival, Writer};
use crate::error::SyncError;
use crate::notices::Notices;
use crate::progress::{self, Bar, Progress};
use crate::shard::refused;
use crate::shard::watch::Watcher;
use crate::status::{Phase, Status};
use crate::stop::Stop;
use crate::{http, scheduling, supervise};

/// A link that is to run.
struct Link {
    config: Config,
    status: Arc<Status>,
}

impl Link {
    fn new(config: Config) -> Arc<Self> {
        let status = Arc::new(Status::new(rewrite::Table::new().len()));
        Arc::new(Self { config, status })
    }

    /// Runs it on this thread. The other threads of the process have to be there already: they would inherit the way in
    /// which this one is scheduled.
    fn run(&self, stop: &Stop, when_ready: impl AsyncFnOnce() -> Result<(), SyncError>) -> Ended {
        let runtime = runtime()?;
        scheduling::give_way();
        runtime.block_on(async {
            when_ready().await?;
            let own = Stop::default();
            let (either, asked) = (own.clone(), self.status.handover.stop.clone());
            let all = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = all.requested() => {}
                    () = asked.requested() => {}
                }
                either.request();
            });
            supervise::run(&self.config, &self.status, &own).await
        })
    }
}

type Ended = Result<(), SyncError>;

/// Why links cannot run together: two of them are one, or one would write where another one reads.
///
/// # Errors
/// A sentence that names both files.
pub(crate) fn check(links: &[(&Path, &Config)]) -> Result<(), String> {
    for (at, (file, config)) in links.iter().enumerate() {
        let both = |other: &Path| format!("{} and {}", other.display(), file.display());
        for (other_file, other) in links.iter().take(at) {
            let address = &config.target.endpoint.address;
            if config.link_name == other.link_name && *address == other.target.endpoint.address {
                let name = &config.link_name;
                return Err(format!(
                    "{} are both the link {name} into {address}; give each a link.name of its own",
                    both(other_file)
                ));
            }
            if config.spool.dir == other.spool.dir {
                return Err(format!(
                    "{} would share the spool {}; give each a link.name or a spool.dir of its own",
                    both(other_file),
                    config.spool.dir.display()
                ));
            }
        }
    }
    Ok(())
}

/// Runs links until they are asked to stop or cannot go on. One that cannot does not stop the others.
///
/// # Errors
/// What ended the first one that could not go on.
pub(crate) fn run(configs: Vec<Config>, bar: Bar, notices: &Notices) -> Ended {
    let (mut links, mut watchers) = (Vec::new(), Vec::new());
    for config in among_rivals(configs) {
        let by_scan = match config.source.cluster {
            true => runtime()?.block_on(refused::by_scan(&config))?,
            false => None,
        };
        if let Some(by_scan) = by_scan {
            links.push(Link::new(by_scan));
        } else if config.source.cluster {
            let (watcher, shards) = runtime()?.block_on(Watcher::open(&config))?;
            links.extend(shards.into_iter().map(Link::new));
            watchers.push(watcher);
        } else {
            links.push(Link::new(config));
        }
    }
    let mut shown = Vec::new();
    for (http, links) in ports(&links, &watchers) {
        let links = links.iter().map(|link| (&link.config, link.status.clone()));
        let port = http::spawn(http, links.collect(), notices.clone())?;
        shown.push((http.bind.clone(), port));
    }
    let progress = show(&links, bar)?;
    let stop = Stop::default();
    let result = match links.as_slice() {
        [link] if watchers.is_empty() => {
            let ended = link.run(&stop, async || watch_signals(&stop));
            if ended.is_ok() {
                let applied_offset = link.status.applied_offset.get();
                tracing::info!(applied_offset, "stopped");
            }
            ended
        }
        links => run_all(links, watchers, shown, &stop),
    };
    progress.finish();
    result
}

/// Links that write into one target are told of each other. The shards of a cluster are one: no slot is in two of them.
fn among_rivals(mut configs: Vec<Config>) -> Vec<Config> {
    let target = |config: &Config| match config.writer {
        Writer::Redis => Some(config.target.endpoint.address.clone()),
        Writer::File(_) => None,
    };
    let targets: BTreeSet<String> = configs.iter().filter_map(target).collect();
    for address in targets {
        let is_there = |config: &&mut Config| target(config).as_ref() == Some(&address);
        let together: Vec<&mut Config> = configs.iter_mut().filter(is_there).collect();
        if together.len() < 2 {
            continue;
        }
        let names = together.iter().map(|config| config.link_name.clone());
        let rivals = Rival::among(names.collect());
        for (config, rival) in together.into_iter().zip(rivals) {
            config.rival = Some(rival);
        }
    }
    configs
}

/// Links by the status port that tells of them: one port may tell of several.
fn ports<'a>(
    links: &'a [Arc<Link>],
    watchers: &'a [Watcher],
) -> Vec<(&'a HttpConfig, Vec<&'a Arc<Link>>)> {
    let mut ports: Vec<(&HttpConfig, Vec<&Arc<Link>>)> = Vec::new();
    for link in links {
        let Some(http) = &link.config.http else {
            continue;
        };
        match ports.iter_mut().find(|(known, _)| known.bind == http.bind) {
            Some((_, together)) => together.push(link),
            None => ports.push((http, vec![link])),
        }
    }
    // A process whose slice of a cluster has no shard yet tells so.
    for http in watchers.iter().filter_map(Watcher::http) {
        if !ports.iter().any(|(known, _)| known.bind == http.bind) {
            ports.push((http, Vec::new()));
        }
    }
    ports
}

fn show(links: &[Arc<Link>], bar: Bar) -> Result<Progress, SyncError> {
    let interval = links.iter().map(|link| link.config.log.interval).min();
    let shown = links
        .iter()
        .map(|link| (link.config.link_name.clone(), link.status.clone()));
    progress::spawn(shown.collect(), interval.unwrap_or_default(), bar).map_err(cannot_start)
}

/// A thread for each link, and one for each source cluster, which may bring more; this one waits for them, and for signals.
fn run_all(links: &[Arc<Link>], watchers: Vec<Watcher>, shown: Shown, stop: &Stop) -> Ended {
    let (tell, mut told) = mpsc::channel(TOLD_MAX);
    // One whose slice has no shard yet waits for it, or for a stop.
    let mut waits = links.is_empty();
    for link in links {
        begin(link.clone(), stop, &tell)?;
    }
    for watcher in watchers {
        watch(watcher, shown.clone(), stop, &tell)?;
    }
    drop(tell);
    let (mut running, mut panicked) = (links.len(), None);
    let first_error = runtime()?.block_on(async {
        watch_signals(stop)?;
        let mut first_error = Ok(());
        while running > 0 || waits {
            match told.recv().await {
                Some(Told::Begun) => {
                    waits = false;
                    running += 1;
                }
                Some(Told::Ended(Ok(result))) => {
                    running -= 1;
                    first_error = first_error.and(result);
                }
                Some(Told::Ended(Err(panic))) => {
                    running -= 1;
                    panicked = Some(panic);
                }
                None => break,
            }
        }
        first_error
    });
    // For those that watch.
    stop.request();
    if let Some(panic) = panicked {
        std::panic::resume_unwind(panic);
    }
    first_error
}

/// The status ports, by where they are bound.
type Shown = Vec<(String, http::Port)>;

/// So much of what they say waits to be heard.
const TOLD_MAX: usize = 1024;

/// What the threads of links say.
enum Told {
    /// There is one more.
    Begun,
    /// One has ended, perhaps by a panic.
    Ended(std::thread::Result<Ended>),
}

fn begin(link: Arc<Link>, stop: &Stop, tell: &mpsc::Sender<Told>) -> Result<(), SyncError> {
    let (stop, tell) = (stop.clone(), tell.clone());
    let thread = std::thread::Builder::new().name("link".to_owned());
    let thread = thread.spawn(move || {
        let run = || {
            let span = tracing::info_span!("link", name = link.config.link_name);
            let _inside = span.enter();
            let result = link.run(&stop, async || Ok(()));
            link.status.set_phase(Phase::Stopped);
            match &result {
                Ok(()) => {
                    let applied_offset = link.status.applied_offset.get();
                    tracing::info!(applied_offset, "stopped");
                }
                Err(error) => tracing::error!(%error, "stopped; the other links go on"),
            }
            result
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        // Whoever waits for it may have failed.
        let _ = tell.blocking_send(Told::Ended(ended));
    });
    thread.map(drop).map_err(cannot_start)
}

/// Watches a source cluster, and begins the links of shards that are new.
fn watch(
    watcher: Watcher,
    shown: Shown,
    stop: &Stop,
    tell: &mpsc::Sender<Told>,
) -> Result<(), SyncError> {
    let (stop, tell, runtime) = (stop.clone(), tell.clone(), runtime()?);
    let thread = std::thread::Builder::new().name("shards".to_owned());
    let thread = thread.spawn(move || {
        let begins = |config: Config| {
            // The link is counted before it can end.
            if tell.try_send(Told::Begun).is_err() {
                tracing::error!("a new shard is not followed before the next start: too many links begin at once");
                return;
            }
            let link = Link::new(config);
            let bind = link.config.http.as_ref().map(|http| &http.bind);
            let port = shown.iter().find(|(known, _)| Some(known) == bind);
            if let Some((_, port)) = port {
                port.add(&link.config, link.status.clone());
            }
            if let Err(error) = begin(link, &stop, &tell) {
                tracing::error!(%error, "a new shard cannot be followed");
                let _ = tell.try_send(Told::Ended(Ok(Err(error))));
            }
        };
        runtime.block_on(async {
            tokio::select! {
                () = stop.requested() => {}
                ended = watcher.follow(begins) => {
                    let Err(error) = ended;
                    tracing::error!(%error, "the links of this source end");
                    stop.request();
                    let told = [Told::Begun, Told::Ended(Ok(Err(error)))];
                    for one in told {
                        // Whoever waits for it may have ended.
                        let _ = tell.send(one).await;
                    }
                }
            }
        });
    });
    thread.map(drop).map_err(cannot_start)
}

fn runtime() -> Result<tokio::runtime::Runtime, SyncError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().map_err(cannot_start)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn cannot_start(error: std::io::Error) -> SyncError {
    SyncError::local(format!("cannot start: {error}"))
}

/// The first signal asks for a stop; the second exits at once. Nothing is lost by that: what the target
/// has confirmed carries its position.
fn watch_signals(stop: &Stop) -> Result<(), SyncError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| SyncError::local(format!("cannot watch signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_requested() {
                tracing::warn!("asked to stop a second time: exiting at once");
                std::process::exit(0);
            }
            stop.request();
        }
    });
    Ok(())
}
