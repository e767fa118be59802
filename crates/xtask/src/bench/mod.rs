//! `cargo xtask bench`: what a migration costs, beside the source's own replication in the same run.

mod cluster;
mod compare;
mod data;
mod full;
mod growth;
mod latency;
mod link;
mod report;
mod restore;
mod scan;
mod stream;
mod tls;
mod usage;

use std::path::PathBuf;

use testkit::Engine;

use crate::children;

use link::Tool;
use report::Report;

const USAGE: &str = "\
usage: cargo xtask bench [full] [set] [mixed] [latency] [restore] [growth] [cluster] [compare] [scan] [--runs N] [--keys N] [--commands N] [--engine NAME] [--binary FILE] [--tls] [--json FILE]

Measures understudy beside REPLICAOF (\"native\"), and beside PEER if the environment names one, in turns, and prints medians
with their spread and each ratio to native. The first four measurements when none is named.

  full       a full sync of a data set: from the start until a write that came after the snapshot is at the target
  set        a stream of SETs at the full speed of redis-benchmark
  mixed      the same with INCR, LPUSH, HSET and ZADD
  latency    from a write's reply at the source until it can be read at the target, at 1,000 writes/s
  restore    what a value costs the target by RESTORE and by commands, by its kind and size (no daemon takes part)
  growth     the daemon alone with a hundredth of the keys up to all, with 300 to 300,000 writes/s, and with 1 to 100 links in
             one process; drawn into the file of --svg
  cluster    a stream of SETs into a cluster of three nodes, by each fence, beside the same SETs straight to the nodes
  compare    a hundred differences of every kind among the keys (a million unless --keys says more or less), under live writes, by
             each rate: what is found, and what it costs the source
  scan       a source that refuses PSYNC, written to at --rate, of whose keyspace events 15 % are lost, flushed three times and
             swapped twice meanwhile: how long a GET takes there before and during, and until both ends are equal

  --runs N       times each is run (5)
  --keys N       strings in the data set (2000000); other kinds in proportion, and three large keys
  --commands N   commands of a stream (3000000)
  --rate N       writes a second in scan (20000)
  --seconds N    how long scan follows them (60)
  --engine NAME  both servers (redis-7.0)
  --binary FILE  the daemon (target/release/understudy; build it first: cargo build --release -p understudy)
  --tls          the daemon a second time, with TLS to both servers (shown as understudy-tls; the engine has to have TLS)
  --json FILE    appends every single run, a line of JSON each
  --svg FILE     where growth is drawn (target/bench/growth.svg)

PEER names a program that is called as `PEER SOURCE TARGET FOLDER` (host:port twice), and that execs a tool which streams
until it is killed. PEER_KEYS is a pattern for the keys that the tool keeps at the target.

The data set is made once, and kept in target/bench. The column `foreign` is the share of the machine that other processes
had meanwhile: above 0.05 distrust the times.";

struct Options {
    what: Vec<Measurement>,
    runs: usize,
    keys: u64,
    compared_keys: u64,
    commands: u64,
    rate: u64,
    seconds: u64,
    engine: Engine,
    binary: PathBuf,
    tls: bool,
    json: Option<PathBuf>,
    svg: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Measurement {
    Full,
    Set,
    Mixed,
    Latency,
    Restore,
    Growth,
    Cluster,
    Compare,
    Scan,
}

impl Measurement {
    const ALL: [Self; 9] = [
        Self::Full,
        Self::Set,
        Self::Mixed,
        Self::Latency,
        Self::Restore,
        Self::Growth,
        Self::Cluster,
        Self::Compare,
        Self::Scan,
    ];

    /// What is measured beside native, and without being asked for.
    fn is_usual(self) -> bool {
        !matches!(
            self,
            Self::Restore | Self::Growth | Self::Cluster | Self::Compare | Self::Scan
        )
    }

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Set => "set",
            Self::Mixed => "mixed",
            Self::Latency => "latency",
            Self::Restore => "restore",
            Self::Growth => "growth",
            Self::Cluster => "cluster",
            Self::Compare => "compare",
            Self::Scan => "scan",
        }
    }
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let mut options = options(args)?;
    children::stop_them_on_signals();
    if options.what.contains(&Measurement::Restore) {
        restore::run(&options.engine, options.runs)?;
        options.what.retain(|what| *what != Measurement::Restore);
        if options.what.is_empty() {
            return Ok(());
        }
    }
    let grows = options.what.contains(&Measurement::Growth);
    let clusters = options.what.contains(&Measurement::Cluster);
    let compares = options.what.contains(&Measurement::Compare);
    let scans = options.what.contains(&Measurement::Scan);
    options.what.retain(|what| what.is_usual());
    if !options.binary.exists() {
        let file = options.binary.display();
        return Err(format!(
            "{file} is not there: cargo build --release -p understudy"
        ));
    }
    let understudy = |tls| Tool::Understudy {
        binary: options.binary.clone(),
        tls,
    };
    let mut tools = vec![understudy(None)];
    if options.tls {
        tools.push(understudy(Some(tls::Certificate::new()?)));
    }
    tools.push(Tool::Native);
    tools.extend(Tool::peer());
    let mut report = Report::new(options.json.as_deref())?;
    for what in &options.what {
        for run in 1..=options.runs {
            for tool in &tools {
                let figures = match what {
                    Measurement::Full => data::prepare(&options.engine, options.keys)
                        .and_then(|data| full::measure(&options.engine, tool, &data)),
                    Measurement::Set => {
                        stream::measure(&options.engine, tool, "set", options.commands)
                    }
                    Measurement::Mixed => stream::measure(
                        &options.engine,
                        tool,
                        "incr,lpush,hset,zadd",
                        options.commands,
                    ),
                    Measurement::Latency => latency::measure(&options.engine, tool, run as u64),
                    // They are no comparisons.
                    Measurement::Restore
                    | Measurement::Growth
                    | Measurement::Cluster
                    | Measurement::Compare
                    | Measurement::Scan => continue,
                };
                let figures = figures
                    .map_err(|error| format!("{} of {}: {error}", what.name(), tool.name()))?;
                report.add(what.name(), &tool.name(), figures)?;
            }
        }
        report.print(what.name());
    }
    if grows {
        let (keys, svg) = (options.keys, &options.svg);
        growth::run(&options.engine, &understudy(None), keys, options.runs, svg)?;
    }
    if clusters {
        let (binary, commands) = (&options.binary, options.commands);
        cluster::run(&options.engine, binary, options.runs, commands)?;
    }
    if compares {
        let keys = options.compared_keys;
        compare::run(&options.engine, &options.binary, keys)?;
    }
    if scans {
        let load = scan::Load {
            rate: options.rate,
            seconds: options.seconds,
        };
        scan::run(&options.engine, &options.binary, options.runs, load)?;
    }
    Ok(())
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        what: Vec::new(),
        runs: 5,
        keys: 2_000_000,
        compared_keys: 1_000_000,
        commands: 3_000_000,
        rate: 20_000,
        seconds: 60,
        engine: Engine::find("redis-7.0")?,
        binary: "target/release/understudy".into(),
        tls: false,
        json: None,
        svg: "target/bench/growth.svg".into(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if let Some(what) = Measurement::ALL.iter().find(|what| what.name() == arg) {
            options.what.push(*what);
            continue;
        }
        if arg == "--tls" {
            options.tls = true;
            continue;
        }
        let value = args.next().ok_or_else(|| USAGE.to_owned())?;
        let number = || {
            let number = value.parse::<u64>().ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("{arg} takes a number from 1 up, not {value:?}"))
        };
        match arg.as_str() {
            "--runs" => options.runs = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--keys" => {
                options.keys = number()?;
                options.compared_keys = options.keys;
            }
            "--commands" => options.commands = number()?,
            "--rate" => options.rate = number()?,
            "--seconds" => options.seconds = number()?,
            "--engine" => options.engine = Engine::find(value)?,
            "--binary" => options.binary = value.into(),
            "--json" => options.json = Some(value.into()),
            "--svg" => options.svg = value.into(),
            _ => return Err(format!("{arg} is not known\n\n{USAGE}")),
        }
    }
    if options.what.is_empty() {
        options.what = Measurement::ALL.to_vec();
        options.what.retain(|what| what.is_usual());
    }
    Ok(options)
}
