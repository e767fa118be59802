//! A full sync of a data set.

use std::path::Path;

use serde_json::Value;
use testkit::{Engine, Server};

use super::link::{Link, Marker, Tool};

/// One run, in seconds: from the start of the tool until a write that came after the snapshot is at the target.
pub(super) fn measure(engine: &Engine, tool: &Tool, data: &Path) -> Result<Value, String> {
    let mut source = Server::start(engine, tool.servers());
    std::fs::copy(data, source.rdb_file())
        .map_err(|error| format!("{}: {error}", data.display()))?;
    source.restart();
    let forks = source.client().info_number("stats", "total_forks");
    let mut link = Link::start(tool, &source, engine)?;
    let mut marker = Marker::new(&source, &link.target);
    link.wait_streaming(&mut marker, forks)?;
    let seconds = link.from.elapsed().as_secs_f64();
    let mut figures = link.costs(1.0);
    figures["seconds"] = seconds.into();
    link.end_equal()?;
    Ok(figures)
}
