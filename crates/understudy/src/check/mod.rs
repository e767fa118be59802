//! `understudy check`: what would happen, before anything does.
//!
//! Both ends are asked ([`facts`]), and what they say is judged, each finding with its mend. Nothing is written, no snapshot
//! is begun; a source that is far away is asked a few dozen questions and some thousand for its largest keys.

mod data;
mod facts;
mod file;
mod files;
mod finding;
mod limits;
mod line;
mod nodes;
mod provider;
mod rights;
mod source;
mod target;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rewrite::Db;

use crate::config::{Config, ScanWhen, Writer};
use crate::error::{Side, SyncError};
use data::Sample;
use facts::Server;
use finding::{Finding, State, exit_code, fail, json, pass, table, unknown};
use line::{Estimate, Mark};
pub(crate) use provider::{Provider, provider};
pub(crate) use rights::refusal_of_psync;

/// Options of `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is changed at either end, and no snapshot is begun. pass: as it should be; warn: it would run, but look at it; fail: it
would not run, or lose something; unknown: the server does not tell. Exit code 1 if anything failed.

Example: understudy check shake.toml
         understudy check shake.toml --json | jq '.checks[] | select(.state == \"fail\")'
         understudy check shake.toml --rdb dump.rdb")]
pub(crate) struct CheckArgs {
    /// The configuration.
    file: PathBuf,
    /// An RDB file in the place of the live source.
    #[arg(long, value_name = "FILE")]
    rdb: Option<PathBuf>,
    /// How many keys are looked at for the largest.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: u64,
    /// How long the rate of writes is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `check`; gives the exit code.
pub(crate) fn run(args: &CheckArgs) -> u8 {
    let config = match Config::read(&args.file) {
        Ok(config) => config,
        Err(error) => return crate::cli::say(&error, crate::cli::USAGE),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return crate::cli::say(&error, 5),
    };
    let mut check = Check {
        config: &config,
        args,
        findings: Vec::new(),
        acl: Vec::new(),
    };
    let result = runtime.block_on(check.all());
    if let Err(error) = result {
        check.trouble(&error);
    }
    match args.json {
        true => println!("{}", json(&check.findings, &check.acl)),
        false => print!("{}", table(&check.findings, &check.acl)),
    }
    exit_code(&check.findings)
}

struct Check<'a> {
    config: &'a Config,
    args: &'a CheckArgs,
    findings: Vec<Finding>,
    /// Lines for users with the least rights.
    acl: Vec<(&'static str, String)>,
}

/// What is known of the data.
#[derive(Default)]
struct Data {
    used: Option<u64>,
    peak: Option<u64>,
    dbs: BTreeSet<u32>,
    libraries: Option<u64>,
    sample: Option<Sample>,
}

impl Check<'_> {
    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// An end that cannot be asked.
    fn trouble(&mut self, error: &SyncError) {
        let check = match error.side {
            Side::Source => "source",
            Side::Target => "target",
            Side::Local => "local",
        };
        let (what, mend) = error
            .what
            .split_once("; ")
            .map_or((error.what.as_str(), ""), |(what, mend)| (what, mend));
        let place = match error.address.is_empty() {
            true => String::new(),
            false => format!("{}: ", error.address),
        };
        self.add(fail(check, format!("{place}{what}"), mend));
    }

    async fn all(&mut self) -> Result<(), SyncError> {
        let config = self.config;
        self.add(pass(
            "config",
            format!(
                "{} is sound; link {}",
                self.args.file.display(),
                config.link_name
            ),
        ));
        let is_of_files = config.reader.is_of_files() || config.writer != Writer::Redis;
        if is_of_files && self.args.rdb.is_none() {
            return self.with_files().await;
        }
        let target = Server::look(&config.target.endpoint, Side::Target).await;
        if let Some(file) = &self.args.rdb {
            return self.with_file(file, target).await;
        }
        let source = Server::look(&config.source.endpoint, Side::Source).await;
        match (source, target) {
            (Ok(source), Ok(target)) => self.both(source, target).await,
            (source, target) => {
                // What can be said of the one without the other is said.
                match source {
                    Ok(source) => self.source(&source).await?,
                    Err(error) => self.trouble(&error),
                }
                match target {
                    Ok(mut target) => self.target(&mut target).await?,
                    Err(error) => self.trouble(&error),
                }
                Ok(())
            }
        }
    }

    async fn both(&mut self, mut source: Server, mut target: Server) -> Result<(), SyncError> {
        let config = self.config;
        self.source(&source).await?;
        self.target(&mut target).await?;
        self.same(&source, &target);
        self.add(data::versions(&source, &target));
        let mut data = Data {
            used: source.number("used_memory"),
            peak: source.number("used_memory_peak"),
            dbs: source.info.keyspace().iter().map(|(db, _)| *db).collect(),
            libraries: source.libraries.map(|count| count as u64),
            sample: None,
        };
        data.sample = Sample::of(config, &mut source, self.args.keys).await?;
        let modules = source.modules.clone();
        self.data(&data, modules.as_ref(), &target).await?;
        self.findings.extend(data::commands(&source, &target));
        let first = Mark::take(&mut source).await?;
        tokio::time::sleep(Duration::from_secs(self.args.seconds)).await;
        let now = Mark::take(&mut source).await?;
        let estimate = Estimate::new(
            data.used.unwrap_or(0),
            source.bytes_per_second,
            target.bytes_per_second,
            now.rate_since(&first),
        );
        self.findings.extend(source::fork(&source));
        self.add(source::backlog(&source, &estimate));
        self.add(source::output_buffer(&source, &estimate, config));
        self.findings.extend(source::timeouts(&source));
        self.add(source::sentinels(&source));
        self.add(line::clocks(&source, &target));
        self.findings
            .extend(line::lines(Some(&source), &target, &estimate));
        self.add(line::disk(config, &estimate));
        self.add(data::node(data.peak));
        self.acl = rights::lines(&source, &target, config);
        Ok(())
    }

    async fn source(&mut self, source: &Server) -> Result<(), SyncError> {
        self.findings.extend(source::role(
            source,
            self.config.source.cluster || self.config.scan.cluster,
        ));
        let psync = rights::psync(self.config, source).await?;
        let is_offered = psync.state == State::Pass;
        let is_refused = psync.state == State::Fail;
        let falls_back = source::falls_back(self.config);
        self.add(match falls_back && is_refused {
            true => Finding {
                state: State::Warn,
                what: format!("{}; sync would read it by SCAN instead", psync.what),
                ..psync
            },
            false => psync,
        });
        let by_scan = self.config.scan.when == ScanWhen::Always || (falls_back && !is_offered);
        if by_scan {
            let events = source::events(source, self.config).await?;
            self.findings.extend(events);
        }
        let rights = rights::source(self.config, source).await?;
        self.add(rights);
        Ok(())
    }

    async fn target(&mut self, target: &mut Server) -> Result<(), SyncError> {
        let role = target::role(self.config, target).await?;
        self.findings.extend(role);
        let rights = rights::target(self.config, target).await?;
        self.add(rights);
        let contents = target::contents(self.config, target).await?;
        self.add(contents);
        let leftovers = target::leftovers(self.config, target).await?;
        self.findings.extend(leftovers);
        let limits = limits::limits(self.config, target.info.get("os")).await?;
        self.findings.extend(limits);
        self.findings.extend(target::obstacles(target));
        Ok(())
    }

    /// Whether both are one server.
    fn same(&mut self, source: &Server, target: &Server) {
        let id = |server: &Server| server.info.get("run_id").map(str::to_owned);
        if id(source).is_some() && id(source) == id(target) {
            self.add(fail(
                "same_server",
                "source and target are the same server under two names",
                "set redis_writer.address to another server",
            ));
        }
    }

    async fn data(
        &mut self,
        data: &Data,
        modules: Option<&Vec<String>>,
        target: &Server,
    ) -> Result<(), SyncError> {
        let config = self.config;
        let dbs: BTreeSet<u32> = data
            .dbs
            .iter()
            .copied()
            .filter(|db| config.filter.db(Db(*db)))
            .collect();
        let databases = target::databases(config, &dbs, target).await?;
        self.add(databases);
        let types = data.sample.as_ref().map(|sample| &sample.types);
        self.add(data::modules(modules, target, types));
        self.add(data::functions(data.libraries, target));
        self.findings
            .extend(target::memory(data.used, data.peak, target));
        self.add(match &data.sample {
            Some(sample) => sample.biggest(config),
            None => unknown(
                "big_keys",
                "the source does not let its keys be looked at",
                format!("allow {}", rights::SOURCE_MORE),
            ),
        });
        Ok(())
    }

    /// A file instead of a live source.
    async fn with_file(
        &mut self,
        file: &Path,
        target: Result<Server, SyncError>,
    ) -> Result<(), SyncError> {
        let contents = file::read(file)?;
        self.findings.extend(contents.finding);
        let mut target = target?;
        self.target(&mut target).await?;
        // Where the file does not say: twice its size.
        let used = contents.used_memory.unwrap_or(contents.bytes * 2);
        let data = Data {
            used: Some(used),
            peak: Some(used),
            dbs: contents.dbs,
            libraries: Some(contents.libraries),
            sample: Some(contents.sample),
        };
        self.data(&data, Some(&contents.modules), &target).await?;
        let estimate = Estimate::new(
            contents.bytes * 2,
            None,
            target.bytes_per_second,
            (0.0, true),
        );
        self.findings.extend(line::lines(None, &target, &estimate));
        self.add(data::node(Some(used)));
        Ok(())
    }
}
