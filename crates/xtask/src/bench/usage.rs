//! What processes use, out of /proc.

use std::collections::HashMap;
use std::fs;

/// Of /proc's clock, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process group's use so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// User and system seconds.
    pub(super) cpu: f64,
    /// Most memory ever resident, in MB, summed over its processes.
    pub(super) rss_mb: f64,
    /// Written to disk, in MB.
    pub(super) written_mb: f64,
}

struct Process {
    id: u32,
    parent: u32,
    group: u32,
    /// With that of children that have ended.
    cpu: f64,
}

/// The use of a group's living processes.
pub(super) fn of_group(group: u32) -> Usage {
    of(|process| process.group == group)
}

/// The use of one.
pub(super) fn of_process(id: u32) -> Usage {
    of(|process| process.id == id)
}

fn of(is_meant: impl Fn(&Process) -> bool) -> Usage {
    let mut usage = Usage::default();
    for process in processes().iter().filter(|process| is_meant(process)) {
        let file = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", process.id));
        usage.cpu += process.cpu;
        usage.rss_mb += field(&file("status").unwrap_or_default(), "VmHWM:") / 1024.0;
        usage.written_mb += field(&file("io").unwrap_or_default(), "write_bytes:") / 1e6;
    }
    usage
}

/// The number behind a name in a file of lines.
fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn processes() -> Vec<Process> {
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .filter_map(|entry| process(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn process(id: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter();
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some(Process {
        id,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        cpu: ticks / TICKS_PER_SECOND,
    })
}

/// How much of the machine others take from now on.
pub(super) struct Foreign {
    busy: f64,
    capacity: f64,
    own: f64,
}

impl Foreign {
    /// From now on.
    pub(super) fn begin() -> Self {
        let (busy, capacity) = machine();
        let own = own();
        Self {
            busy,
            capacity,
            own,
        }
    }

    /// Share of the machine's CPU, 0 to 1, that went to processes which are not ours.
    pub(super) fn share(&self) -> f64 {
        let (busy, capacity) = machine();
        let others = (busy - self.busy) - (own() - self.own);
        (others / (capacity - self.capacity).max(1e-9)).max(0.0)
    }
}

/// CPU seconds of the machine: busy, and in all.
fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let all: f64 = ticks.iter().sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    ((all - idle) / TICKS_PER_SECOND, all / TICKS_PER_SECOND)
}

/// CPU seconds of this process and all that it has started.
fn own() -> f64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut cpu = HashMap::new();
    for process in processes() {
        children.entry(process.parent).or_default().push(process.id);
        cpu.insert(process.id, process.cpu);
    }
    let mut todo = vec![std::process::id()];
    let mut sum = 0.0;
    while let Some(id) = todo.pop() {
        sum += cpu.get(&id).unwrap_or(&0.0);
        todo.extend(children.get(&id).into_iter().flatten());
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let from = Foreign::begin();
        let mut spin = 0_u64;
        let started = std::time::Instant::now();
        while started.elapsed().as_millis() < 50 {
            spin = std::hint::black_box(spin + 1);
        }
        assert!(own() > 0.0);
        assert!((0.0..=1.0).contains(&from.share()));
        let me = process(std::process::id()).unwrap();
        assert!(of_group(me.group).rss_mb > 1.0);
        let alone = of_process(me.id);
        assert!(alone.rss_mb > 1.0 && alone.cpu > 0.0);
    }
}
