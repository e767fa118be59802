//! `understudy cutover`: the switch of an application from the source to the target of a running sync.
//!
//! ```text
//! gate     lag, health, comparison: nothing is changed
//! fence    writes are held back at the source; its offset is O
//! proof    the link stops at O, and the target's checkpoint says O; both ends are compared
//! GO       one transaction at the target: the link has ended there, and the target is the application's
//! after    hooks, stragglers, late writes
//! ```
//! Until GO every step is undone: by Ctrl-C, a failed proof, a lost fence, or by itself when this process dies. See
//! `docs/cutover.md`.

mod acl;
mod after;
mod back;
mod daemon;
mod fence;
mod finish;
mod gate;
mod hooks;
mod proof;
mod reverse;
mod run;
mod shards;
mod signals;
mod steps;
mod take_back;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::daemon::Daemon;
use self::fence::Sites;
use self::run::Run;
use self::steps::Steps;
use crate::cli::{USAGE, say};
use crate::config::{CompareExtent, Config, FenceKind, time_ms};
use crate::error::{Class, SyncError};
use crate::handover::mark::{self, Record};

pub(crate) use reverse::start as start_way_back;

/// Options of `cutover`.
#[derive(Debug, Args)]
#[command(after_help = "\
It acts on a running sync of the same file, which needs advanced.status_port and advanced.admin_token. On a terminal it asks
before each step that matters; with --yes it does not. Everything up to GO is undone by Ctrl-C, by a step that fails, and by
itself if this command dies. Exit code 0: done; 1: not done, and nothing is changed.

Example: understudy cutover shake.toml --check
         understudy cutover shake.toml
         understudy cutover shake.toml --yes --json --on-go ./switch-dns.sh
         understudy cutover shake.toml --finish")]
pub(crate) struct CutoverArgs {
    /// The configuration that sync runs with.
    pub(crate) file: PathBuf,
    /// Look at the gate alone.
    #[arg(long, group = "mode")]
    check: bool,
    /// Take back what a cutover has left that died, or that has not come to GO.
    #[arg(long, group = "mode")]
    undo: bool,
    /// Give the source's users back the right to write.
    #[arg(long, group = "mode")]
    unfence: bool,
    /// Show who is connected to the old server, and what is still written there.
    #[arg(long, group = "mode")]
    stragglers: bool,
    /// When all is over: stop sync, and remove every key of ours from the target.
    #[arg(long, group = "mode")]
    finish: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// One JSON object a step.
    #[arg(long)]
    json: bool,
    /// What keeps writes away from the source [default: cutover.fence].
    #[arg(long, value_name = "KIND", value_parser = fence_kind)]
    fence: Option<FenceKind>,
    /// What is compared before GO [default: cutover.compare].
    #[arg(long, value_name = "EXTENT")]
    compare: Option<CompareExtent>,
    /// The longest time that writes are held back before GO [default: cutover.fence_limit].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    fence_limit: Option<Duration>,
    /// Run at GO by a shell, with UNDERSTUDY_TARGET and others in its environment [default: cutover.on_go].
    #[arg(long, value_name = "COMMAND")]
    on_go: Option<String>,
    /// End the clients' connections to the source at GO, so that they connect anew.
    #[arg(long)]
    kill_clients: bool,
    /// What becomes of writes at the source after GO: hold or apply [default: cutover.late_writes].
    #[arg(long, value_name = "WORD", value_parser = ["hold", "apply"])]
    late_writes: Option<String>,
    /// How long the old server is watched after an unattended GO [default: cutover.watch].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    watch: Option<Duration>,
    /// Prepare the way back: `understudy reverse --start` then follows the new server without a snapshot.
    #[arg(long)]
    reverse: bool,
    /// After GO (or with --stragglers), listen to all that the old server does for so long, to name who writes. Costs it much.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    monitor: Option<Duration>,
    /// With --finish: remove the spool too.
    #[arg(long, requires = "finish")]
    remove_spool: bool,
    /// With --finish: make the source's Sentinels forget us (SENTINEL RESET).
    #[arg(long, requires = "finish")]
    reset_sentinels: bool,
    /// With --undo or --finish: even if that gives up what is there, or the target cannot tell.
    #[arg(long)]
    force: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let ms = time_ms(text)?;
    let ms = u64::try_from(ms).map_err(|_| "is negative".to_owned())?;
    Ok(Duration::from_millis(ms))
}

fn fence_kind(text: &str) -> Result<FenceKind, String> {
    let names = FenceKind::NAMES.iter();
    let found = names.clone().find(|(name, _)| *name == text);
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let known: Vec<&str> = names.map(|(name, _)| *name).collect();
        format!("must be one of {}", known.join(", "))
    })
}

/// Runs `cutover`; gives the exit code.
pub(crate) fn run(args: &CutoverArgs) -> u8 {
    let mut config = match Config::read(&args.file) {
        Ok(config) => config,
        Err(error) => return say(&error, USAGE),
    };
    args.put_into(&mut config);
    if let Err(what) = args.check_with(&config) {
        return say(&what, USAGE);
    }
    let daemon = match Daemon::of(&config) {
        Ok(daemon) => daemon,
        Err(what) => return say(&format!("{}: {what}", args.file.display()), USAGE),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return say(&error, 5),
    };
    let steps = Steps::new(args.json, args.yes);
    let done = runtime.block_on(Box::pin(async {
        if args.undo {
            return undo(&config, args, &daemon, &steps).await;
        }
        if args.unfence {
            return unfence(&config, &steps).await;
        }
        if args.finish {
            return finish_link(&config, args, &daemon, &steps).await;
        }
        if args.stragglers {
            return stragglers(&config, args, &daemon, &steps).await;
        }
        let switch = Run::new(&config, args, daemon, steps)?.switch();
        Box::pin(switch).await
    }));
    match done {
        Ok(code) => code,
        Err(error) => say(&error, error.exit_code()),
    }
}

impl CutoverArgs {
    /// The command line is stronger than the file.
    fn put_into(&self, config: &mut Config) {
        let cutover = &mut config.cutover;
        cutover.fence = self.fence.unwrap_or(cutover.fence);
        cutover.compare = self.compare.unwrap_or(cutover.compare);
        cutover.fence_limit = self.fence_limit.unwrap_or(cutover.fence_limit);
        cutover.watch = self.watch.unwrap_or(cutover.watch);
        cutover.kill_clients |= self.kill_clients;
        if self.on_go.is_some() {
            cutover.on_go.clone_from(&self.on_go);
        }
        if let Some(word) = &self.late_writes {
            cutover.applies_late = word == "apply";
        }
    }

    /// What a source cluster cannot have.
    fn check_of_shards(&self, config: &Config) -> Result<(), String> {
        if config.slice.is_part() {
            return Err(format!(
                "shards is \"{}\": several processes share the source cluster, and for a switch-over one has to run all of its links: stop them, and start one with shards = \"1/1\" (nothing is lost)",
                config.slice
            ));
        }
        if self.reverse {
            return Err("--reverse: there is no way back to a source cluster in this version; switch without it".to_owned());
        }
        if config.cutover.applies_late {
            return Err("late_writes = \"apply\", and the source is a cluster: slots that move there later would be copied over the application's keys; say hold".to_owned());
        }
        Ok(())
    }

    fn check_with(&self, config: &Config) -> Result<(), String> {
        if config.scan.cluster {
            return Err("the source is a cluster that is read by SCAN, and cutover is for one that offers PSYNC (sync_reader.cluster) in this version: hold back writes at every shard, wait for `consistent` in the status JSON, and stop sync (docs/operations.md, When it is over)".to_owned());
        }
        if config.source.cluster {
            self.check_of_shards(config)?;
        }
        if self.reverse && config.cutover.applies_late {
            return Err("--reverse and late_writes = \"apply\": each link would follow what the other one writes; choose one".to_owned());
        }
        let cutover = &config.cutover;
        if cutover.fence == FenceKind::Command
            && (cutover.fence_command.is_none() || cutover.unfence_command.is_none())
        {
            return Err("--fence command needs cutover.fence_command and cutover.unfence_command in the file".to_owned());
        }
        Ok(())
    }
}

/// Takes back what a cutover has left.
async fn undo(
    config: &Config,
    args: &CutoverArgs,
    daemon: &Daemon,
    steps: &Steps,
) -> Result<u8, SyncError> {
    // A cutover that lives after all makes no switch any more.
    let read = mark::call_off(&config.target, &config.link_name).await;
    let record = match read {
        Ok(record) => record,
        Err(error) if args.force => {
            let what = format!(
                "{error}: the target cannot tell whether the switch was made, nor how the source's users were; taking back what is known without it"
            );
            steps.tell("undo", false, &what, json!({}));
            None
        }
        Err(error) => {
            let what = format!(
                "{error}: the target cannot tell whether the switch was made, so that nothing is taken back; --undo --force if it was not, or the target is lost"
            );
            steps.tell("undo", false, &what, json!({}));
            return Ok(1);
        }
    };
    if record.as_ref().is_some_and(Record::is_go) && !args.force {
        let what = "the switch has been made: what the application has written at the target since would meet the old server's writes again. To go back without loss use the way back (`understudy reverse`); --undo --force if nothing was written at the target";
        steps.tell("undo", false, what, json!({}));
        return Ok(1);
    }
    take_back::take_back(config, &args.file, record.as_ref(), daemon, steps).await
}

/// Gives the source's users their rights back, and leaves all else.
async fn unfence(config: &Config, steps: &Steps) -> Result<u8, SyncError> {
    let mut client = mark::connect(&config.target, &config.link_name).await?;
    let Some(mut record) = mark::get(&mut client, &config.link_name).await? else {
        steps.tell(
            "unfence",
            true,
            "no cutover has changed anything",
            json!({}),
        );
        return Ok(0);
    };
    if let Some(command) = &config.cutover.unfence_command {
        let ran = hooks::run("cutover.unfence_command", command, &[]).await;
        ran.map_err(SyncError::local)?;
    }
    let whose: Vec<String> = record.undo.iter().map(|undo| undo.what.clone()).collect();
    fence::undo(&fence::endpoint(config), &record.undo).await?;
    record.undo.clear();
    let (key, value) = (mark::key(&config.link_name), record.text());
    client
        .call(&[b"SET", key.as_bytes(), value.as_bytes()])
        .await?;
    let text = format!("given back: {}", whose.join(", "));
    steps.tell("unfence", true, &text, json!({ "what": whose }));
    Ok(0)
}

/// The end: nothing of ours is left.
async fn finish_link(
    config: &Config,
    args: &CutoverArgs,
    daemon: &Daemon,
    steps: &Steps,
) -> Result<u8, SyncError> {
    let record = mark::read(&config.target, &config.link_name).await?;
    if !record.as_ref().is_some_and(Record::is_go) && !args.force {
        let what = "no switch has been made: without its checkpoint the link would begin anew; --finish --force if that is wanted";
        steps.tell("finish", false, what, json!({}));
        return Ok(1);
    }
    let question = "Stop sync and remove its keys from the target?";
    if !steps.can_ask() || !steps.ask(question).await {
        steps.tell("finish", false, "not confirmed (--yes)", json!({}));
        return Ok(1);
    }
    let spools = finish::links(config, record.as_ref()).await?;
    match finish::stop(config, &spools, daemon).await {
        Ok(text) => steps.tell("stop", true, &text, json!({})),
        Err(why) => {
            steps.tell("stop", false, &why, json!({}));
            return Ok(1);
        }
    }
    let removed = finish::remove_keys(config).await?;
    let text = format!("{removed} keys of ours are removed from the target");
    steps.tell("keys", true, &text, json!({ "removed": removed }));
    let left = record.as_ref().map(finish::left).unwrap_or_default();
    if !left.is_empty() {
        let text = "the old server's users may still not write; this gives it back:";
        steps.tell("users", true, text, json!({ "commands": left }));
        left.iter().for_each(|line| steps.say(line));
    }
    // The old server may be gone already.
    let source = fence::endpoint(config);
    let sentinels = finish::sentinels(&source, args.reset_sentinels, steps);
    // (No Sentinel watches a cluster.)
    if !config.source.cluster
        && let Err(error) = sentinels.await
    {
        steps.tell(
            "sentinels",
            error.class != Class::Stop,
            &error.to_string(),
            json!({}),
        );
    }
    if args.remove_spool {
        for spool in &spools {
            match finish::remove_spool(spool) {
                Ok(text) => steps.tell("spool", true, &text, json!({})),
                Err(why) => {
                    steps.tell("spool", false, &why, json!({}));
                    return Ok(1);
                }
            }
        }
    }
    steps.tell("finished", true, "the link is over", json!({}));
    Ok(0)
}

async fn stragglers(
    config: &Config,
    args: &CutoverArgs,
    daemon: &Daemon,
    steps: &Steps,
) -> Result<u8, SyncError> {
    if let Err(why) = after::show(daemon, steps).await {
        steps.tell("stragglers", false, &why, json!({}));
        return Ok(1);
    }
    if let Some(time) = args.monitor {
        let source = fence::endpoint(config);
        let sites = match shards::survey(config, daemon).await {
            Ok(Some(survey)) => Sites::of(&source, &survey),
            Ok(None) | Err(_) => Sites::one(source),
        };
        after::monitor_each(sites.primaries(), time, steps).await?;
    }
    Ok(0)
}
