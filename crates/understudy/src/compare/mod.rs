//! `understudy compare`: is the target equal to the source?
//!
//! Every key of the source is looked at on both ends, and every key of the target is looked for at the source. What
//! differs is looked at again in rounds ([`rounds`]), so that what is only on its way is not called a difference.

mod background;
mod end;
mod functions;
mod lag;
mod large;
mod limiter;
mod look;
mod nodes;
mod progress;
mod repair;
mod report;
mod rounds;
mod run;
mod scan;
mod snapshot;
mod what;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{CompareConfig, Config, share_ppm, time_ms};
use crate::error::{Side, SyncError};
use crate::logging::tell;
pub(crate) use background::verify_forever;
pub(crate) use end::End;
pub(crate) use functions::{Libraries, Library, differing as differing_libraries};
pub(crate) use large::has_field_ttl;
use look::REPLY_BYTES_MAX;
pub(crate) use look::{Comparer, Held, Name, Shape, Verdict, read, shapes};
use progress::Progress;
use report::{Difference, Repair, Report};
use run::Run;
pub(crate) use scan::{Choice, Walk, absent, is_ours};

/// Options of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Compared are types, values and expiries of all keys in both directions, streams with their groups and pending messages, and
libraries of functions; encodings and versions do not matter. Keys with `understudy` in their names are left out, as are those
that the filter keeps away. What differs is looked at again in rounds, so the source may be written to, and sync may run,
meanwhile. Exit code 1 if something differs.

Example: understudy compare shake.toml
         understudy compare shake.toml --sample 1% --qps 2000
         understudy compare shake.toml --tsv differences.tsv --json
         understudy compare shake.toml --repair")]
pub(crate) struct CompareArgs {
    /// The configuration.
    file: PathBuf,
    /// Share of the keys that is looked at, such as 5% [default: compare.sample].
    #[arg(long, value_name = "SHARE", value_parser = share_ppm)]
    sample: Option<u32>,
    /// Most keys a second; 0: no limit [default: compare.qps].
    #[arg(long, value_name = "N")]
    qps: Option<u64>,
    /// Looks at a key that differs before it is looked at closely [default: compare.rounds].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How far expiries may be apart, such as 500ms [default: compare.ttl_tolerance].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl_tolerance: Option<std::time::Duration>,
    /// Compare with a snapshot that the source makes for it (by PSYNC, as sync does): its keys are not read one by one, but
    /// for those that differ.
    #[arg(long, conflicts_with = "rdb")]
    snapshot: bool,
    /// Compare with this RDB file of the source, plain, gzip or zstd; keys that differ from it are looked at at the source.
    #[arg(long, value_name = "FILE")]
    rdb: Option<PathBuf>,
    /// Put the source's values in the place of those that differ, and remove what the source does not have.
    #[arg(long)]
    repair: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write all differences to this file, one a line, with tabs between.
    #[arg(long, value_name = "FILE")]
    tsv: Option<PathBuf>,
    /// How many differences the table has at most.
    #[arg(long, value_name = "N", default_value_t = 50)]
    show: usize,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let ms = time_ms(text)?;
    let ms = u64::try_from(ms).map_err(|_| "is negative".to_owned())?;
    Ok(std::time::Duration::from_millis(ms))
}

impl CompareArgs {
    /// What the file says, where the command line says nothing else.
    fn options(&self, config: &Config) -> CompareConfig {
        let CompareConfig {
            sample_ppm,
            qps,
            background_qps,
            ttl_tolerance,
            rounds,
            pause,
        } = config.compare;
        CompareConfig {
            sample_ppm: self.sample.unwrap_or(sample_ppm),
            qps: self.qps.unwrap_or(qps),
            background_qps,
            ttl_tolerance: self.ttl_tolerance.unwrap_or(ttl_tolerance),
            rounds: self.rounds.unwrap_or(rounds),
            pause,
        }
    }
}

/// Runs `compare`; gives the exit code.
pub(crate) fn run(args: &CompareArgs) -> u8 {
    let config = match Config::read(&args.file) {
        Ok(config) => config,
        Err(error) => return crate::cli::say(&error, crate::cli::USAGE),
    };
    if config.reader.is_of_files() || config.writer != crate::config::Writer::Redis {
        let what = "compare looks at two servers, and an end of this link is a file; `understudy rdb diff` compares two RDB files";
        return crate::cli::say(&what, crate::cli::USAGE);
    }
    if config.function.is_some() {
        let what = "filter.function is set: what the target should hold is what the function has made, which the source does not tell";
        return crate::cli::say(&what, crate::cli::USAGE);
    }
    if config.source.cluster && args.rdb.is_some() {
        let what = "--rdb names one file, and sync_reader.cluster is set: a file has the keys of one shard; compare with --snapshot, or key by key";
        return crate::cli::say(&what, crate::cli::USAGE);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return crate::cli::say(&error, 5),
    };
    let report = match runtime.block_on(compare(&config, args)) {
        Ok(report) => report,
        Err(error) => return crate::cli::say(&error, error.exit_code()),
    };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table(args.show));
    }
    if let Some(file) = &args.tsv
        && let Err(code) = write_tsv(&report, file)
    {
        return code;
    }
    report.exit_code()
}

fn write_tsv(report: &Report, file: &Path) -> Result<(), u8> {
    report.write_tsv(file).map_err(|error| {
        let what = format!("{}: cannot be written: {error}", file.display());
        crate::cli::say(&SyncError::local(what), 5)
    })?;
    tell(format_args!(
        "{}: {} differences",
        file.display(),
        report.differences.len()
    ));
    Ok(())
}

async fn compare(config: &Config, args: &CompareArgs) -> Result<Report, SyncError> {
    let options = args.options(config);
    let comparer = connect(config, &options, options.qps).await?;
    let progress = Progress::new(config.log.interval);
    let mut run = Run::begin(config, &options, comparer, progress).await?;
    match (&args.rdb, args.snapshot) {
        (Some(file), _) => run.snapshot(&[file]).await?,
        (None, true) => {
            let masters = run.comparer.source.primaries();
            let files = snapshot::take(config, &masters, &run.progress).await?;
            let paths: Vec<&Path> = files.iter().map(tempfile::NamedTempFile::path).collect();
            run.snapshot(&paths).await?;
        }
        (None, false) => {
            run.source_keys().await?;
            run.target_keys(None).await?;
        }
    }
    run.settle().await?;
    let libraries = run.functions().await?;
    for library in &libraries {
        run.report.differences.push(Difference {
            db: None,
            key: library.name.clone(),
            at_target: None,
            found: library.found.clone(),
            repair: Repair::None,
            is_stray: false,
        });
    }
    if args.repair {
        repair::repair(&mut run, &libraries).await?;
    }
    Ok(run.end())
}

/// What goes on while both ends are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// The source is written to, and the target follows.
    Sync,
    /// Nothing moves: there is nothing to be waited for, and no rate to be kept.
    Nothing,
}

/// What a comparison without a report comes to.
pub(crate) struct Verified {
    pub(crate) keys: u64,
    pub(crate) differing: u64,
    /// Keys, or parts of them, of which nothing can be told.
    pub(crate) unclear: u64,
    /// Some of those that differ.
    pub(crate) named: Vec<String>,
}

/// Keys that a sample has, about.
const SAMPLE_KEYS: u64 = 10_000;
/// Keys that are named.
const NAMED_MAX: usize = 5;

/// Compares all keys, or some of them.
///
/// # Errors
/// Those of the connections.
pub(crate) async fn verify(
    config: &Config,
    is_full: bool,
    beside: Beside,
) -> Result<Verified, SyncError> {
    let mut options = config.compare.clone();
    if beside == Beside::Nothing {
        (options.qps, options.rounds) = (0, 1);
    }
    let mut comparer = connect(config, &options, options.qps).await?;
    options.sample_ppm = crate::config::WHOLE_PPM;
    if !is_full {
        let keyspaces = comparer.source.keyspaces().await?;
        let all = keyspaces.iter().flat_map(|(_, keyspace)| keyspace);
        let keys: u64 = all.map(|(_, keys)| keys).sum();
        let ppm = SAMPLE_KEYS.saturating_mul(1_000_000) / keys.max(1);
        options.sample_ppm = u32::try_from(ppm)
            .unwrap_or(u32::MAX)
            .clamp(1, crate::config::WHOLE_PPM);
    }
    let mut run = Run::begin(
        config,
        &options,
        comparer,
        Progress::new(config.log.interval),
    )
    .await?;
    if beside == Beside::Nothing {
        run.lag.set_none();
    }
    run.source_keys().await?;
    run.target_keys(None).await?;
    run.settle().await?;
    let libraries = run.functions().await?;
    let report = run.end();
    let named = report.differences.iter().map(|difference| {
        let db = difference
            .db
            .map_or(String::new(), |db| format!(" in db {db}"));
        let key = crate::rdb::names::printable(&difference.key);
        format!("\"{key}\"{db} ({})", difference.found.what.name())
    });
    let libraries_named = libraries.iter().map(|library| {
        format!(
            "library {} ({})",
            library.name.escape_ascii(),
            library.found.detail
        )
    });
    Ok(Verified {
        keys: report.source_keys,
        differing: report.differences.len() as u64 + libraries.len() as u64 + report.beyond,
        unclear: match beside {
            // What is written all the time is no difference.
            Beside::Sync => report.unchecked.len() as u64,
            Beside::Nothing => (report.unchecked.len() + report.unsettled.len()) as u64,
        },
        named: named.chain(libraries_named).take(NAMED_MAX).collect(),
    })
}

/// Connections to both ends.
async fn connect(
    config: &Config,
    options: &CompareConfig,
    qps: u64,
) -> Result<Comparer, SyncError> {
    let (from, to) = (&config.source.endpoint, &config.target.endpoint);
    let source = match config.source.cluster {
        false => End::connect(from, Side::Source, REPLY_BYTES_MAX).await?,
        true => End::connect_cluster(from, Side::Source, REPLY_BYTES_MAX).await?,
    };
    let mut target = match config.target.cluster {
        None => End::connect(to, Side::Target, REPLY_BYTES_MAX).await?,
        Some(_) => End::connect_cluster(to, Side::Target, REPLY_BYTES_MAX).await?,
    };
    target.name_by(config.target.db_map.clone());
    let tolerance_ms = u64::try_from(options.ttl_tolerance.as_millis()).unwrap_or(u64::MAX);
    Ok(Comparer::new(source, target, qps, tolerance_ms))
}
