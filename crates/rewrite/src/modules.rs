//! Values of modules (type 7): whose they are, whether the target has the module, and vector sets for Redis 8.0.
//!
//! ```text
//! value      = module-id part × n  0
//! vector set = id, then as parts: dim  n  config  flags  [flag 1: input-dim matrix]  node × n
//! node       = item  [flag 2: attributes]  vector  count  param × count
//! params     = node-id  level | version << 24  layer × (level + 1)  l2-and-range
//! layer      = links  links-max  node-id × links  [version 1: worst-link]
//! ```
//!
//! Redis 8.2 notes the worst link of each layer (`hnsw.c: hnsw_serialize_node`, version 1), which 8.0 does not know and
//! calls bad data. Without it, and as version 0, the same value is what 8.0 writes itself. Nothing else changes: vectors,
//! links, attributes and quantisation are the source's to the bit.

use std::borrow::Cow;

use rdb::ModuleId;

use crate::abilities::{Abilities, Fork};
use crate::body::Body;

/// The type byte of a module's value.
pub(crate) const TYPE_ID: u8 = 7;

/// Types of values, and a command that their module brings: a server that lacks the command lacks the module.
const COMMANDS: [(&str, &str); 10] = [
    (VECTOR_SET, "vadd"),
    ("ReJSON-RL", "json.set"),
    ("MBbloom--", "bf.add"),
    ("MBbloomCF", "cf.add"),
    ("CMSk-TYPE", "cms.initbydim"),
    ("TopK-TYPE", "topk.add"),
    ("TDIS-TYPE", "tdigest.add"),
    ("TSDB-TYPE", "ts.add"),
    ("graphdata", "graph.query"),
    ("graphmeta", "graph.query"),
];

const VECTOR_SET: &str = "vectorset";
const NUMBER: u64 = 2;
const STRING: u64 = 5;
const HAS_MATRIX: u64 = 1;
const HAS_ATTRIBUTES: u64 = 2;
const VERSION_SHIFT: u32 = 24;

/// What can be done with a module's value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit<'a> {
    /// The target has the module: these bytes go.
    Known(Cow<'a, [u8]>),
    /// The target alone knows whether it has it.
    Perhaps,
    /// It has no such module, or none that reads this.
    Lacks,
}

/// Whose value it is; `None` if that is not to be read.
pub(crate) fn type_of(body: &[u8]) -> Option<ModuleId> {
    Body::new(body).number().map(ModuleId)
}

/// What of a module's value the target can take.
pub(crate) fn fit<'a>(id: ModuleId, body: &'a [u8], target: &Abilities) -> Fit<'a> {
    let name = id.to_string();
    match has(&name, target) {
        None => Fit::Perhaps,
        Some(false) => Fit::Lacks,
        Some(true) if name == VECTOR_SET && is_before_8_2(target) => {
            vectors_of_8_0(body).map_or(Fit::Lacks, |body| Fit::Known(Cow::Owned(body)))
        }
        Some(true) => Fit::Known(Cow::Borrowed(body)),
    }
}

/// Whether the target has the module that has values of this type; `None` if that is not known.
fn has(name: &str, target: &Abilities) -> Option<bool> {
    let command = COMMANDS.iter().find(|(of, _)| *of == name);
    match (command, &target.commands) {
        (Some((_, command)), Some(_)) => Some(target.has_command(command.as_bytes())),
        // Built in; all others are loaded, or are not.
        (_, None) if name == VECTOR_SET => {
            Some(target.fork == Fork::Redis && target.version.major >= 8)
        }
        _ => None,
    }
}

fn is_before_8_2(target: &Abilities) -> bool {
    (target.version.major, target.version.minor) < (8, 2)
}

/// A vector set as Redis 8.0 writes it; `None` if it is not a vector set as we know them.
fn vectors_of_8_0(body: &[u8]) -> Option<Vec<u8>> {
    let mut body = Body::to_copy(body);
    body.number()?;
    number(&mut body)?;
    let nodes = number(&mut body)?;
    number(&mut body)?;
    let flags = number(&mut body)?;
    if flags & !(HAS_MATRIX | HAS_ATTRIBUTES) != 0 {
        return None;
    }
    if flags & HAS_MATRIX != 0 {
        number(&mut body)?;
        string(&mut body)?;
    }
    for _ in 0..nodes {
        string(&mut body)?;
        if flags & HAS_ATTRIBUTES != 0 {
            string(&mut body)?;
        }
        string(&mut body)?;
        body.keep();
        params(&mut body)?;
    }
    if body.number()? != 0 {
        return None;
    }
    body.keep();
    body.finish()
}

/// The parameters of a node, without its worst links.
fn params(body: &mut Body<'_>) -> Option<()> {
    let count = number(body)?;
    body.keep_if(false);
    let node_id = number(body)?;
    let level = number(body)?;
    body.keep_if(false);
    let (version, layers) = (level >> VERSION_SHIFT, (level & 0xff) + 1);
    let has_worst = match version {
        0 => false,
        1 => true,
        _ => return None,
    };
    let worst = if has_worst { layers } else { 0 };
    for param in [
        count.checked_sub(worst)?,
        node_id,
        level & !(u64::MAX << VERSION_SHIFT),
    ] {
        body.put_number(NUMBER);
        body.put_number(param);
    }
    let mut read = 2_u64;
    for _ in 0..layers {
        let links = number(body)?;
        number(body)?;
        for _ in 0..links {
            number(body)?;
        }
        body.keep();
        if has_worst {
            number(body)?;
            body.keep_if(false);
        }
        read = read
            .checked_add(2 + u64::from(has_worst))?
            .checked_add(links)?;
    }
    number(body)?;
    body.keep();
    (read.checked_add(1)? == count).then_some(())
}

fn number(body: &mut Body<'_>) -> Option<u64> {
    (body.number()? == NUMBER).then(|| body.number())?
}

fn string(body: &mut Body<'_>) -> Option<()> {
    (body.number()? == STRING).then(|| body.text())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abilities::Version;

    fn id_of(name: &str) -> Vec<u8> {
        let charset = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let place = |c: u8| charset.iter().position(|other| *other == c).unwrap() as u64;
        let id = name.bytes().fold(0, |id, c| id << 6 | place(c)) << 10;
        let mut out = vec![0x81];
        out.extend_from_slice(&id.to_be_bytes());
        out
    }

    /// A vector set of two nodes, one of them on two layers.
    fn vectors(version: u64, attributes: bool, matrix: bool) -> Vec<u8> {
        let mut body = Body::new(b"");
        let mut part = |number: u64| {
            body.put_number(NUMBER);
            body.put_number(number);
        };
        let flags = u64::from(matrix) * HAS_MATRIX + u64::from(attributes) * HAS_ATTRIBUTES;
        for number in [3, 2, 0x1002, flags] {
            part(number);
        }
        let mut out = id_of(VECTOR_SET);
        out.extend(body.finish().unwrap());
        if matrix {
            out.extend_from_slice(b"\x02\x03\x05\x04mmmm");
        }
        for (node, layers) in [(7_u64, 1_u64), (70_000, 2)] {
            out.extend_from_slice(b"\x05\xc0\x05");
            if attributes {
                out.extend_from_slice(b"\x05\x02{}");
            }
            out.extend_from_slice(b"\x05\x04vvvv");
            let mut params = vec![node, (layers - 1) | version << VERSION_SHIFT];
            for _ in 0..layers {
                params.extend_from_slice(&[2, 32, 70_000, 7]);
                if version == 1 {
                    params.push(u64::MAX - 5);
                }
            }
            params.push(1 << 40);
            let mut numbers = Body::new(b"");
            for number in [params.len() as u64].into_iter().chain(params) {
                numbers.put_number(NUMBER);
                numbers.put_number(number);
            }
            out.extend(numbers.finish().unwrap());
        }
        out.push(0);
        out
    }

    fn redis(text: &str) -> Abilities {
        Abilities::from_version(Fork::Redis, text.parse().unwrap())
    }

    fn fitted(body: &[u8], target: &Abilities) -> Fit<'static> {
        match fit(type_of(body).unwrap(), body, target) {
            Fit::Known(body) => Fit::Known(Cow::Owned(body.into_owned())),
            Fit::Perhaps => Fit::Perhaps,
            Fit::Lacks => Fit::Lacks,
        }
    }

    #[test]
    fn vector_sets_become_those_of_8_0() {
        for (attributes, matrix) in [(false, false), (true, false), (false, true), (true, true)] {
            let older = vectors(0, attributes, matrix);
            for version in [0, 1] {
                let body = vectors(version, attributes, matrix);
                let made = fitted(&body, &redis("8.0.6"));
                assert_eq!(made, Fit::Known(Cow::Borrowed(&older)), "{version}");
                let as_it_is = fitted(&body, &redis("8.2.0"));
                assert_eq!(as_it_is, Fit::Known(Cow::Borrowed(&body)));
            }
        }
    }

    #[test]
    fn what_is_no_vector_set_as_we_know_them_is_not_made_one() {
        let target = redis("8.0.6");
        assert_eq!(fitted(&vectors(2, true, true), &target), Fit::Lacks);
        let body = vectors(1, true, true);
        for len in 9..body.len() {
            assert_eq!(fitted(&body[..len], &target), Fit::Lacks, "{len}");
        }
        let longer = [&body[..], b"x"].concat();
        assert_eq!(fitted(&longer, &target), Fit::Lacks);
    }

    #[test]
    fn who_has_which_module() {
        let of = |name: &str, target: &Abilities| fitted(&id_of(name), target);
        let valkey = Abilities::from_version(Fork::Valkey, Version::new(9, 1, 0));
        assert_eq!(of(VECTOR_SET, &redis("7.4.0")), Fit::Lacks);
        assert_eq!(of(VECTOR_SET, &valkey), Fit::Lacks);
        assert_eq!(of("MBbloom--", &valkey), Fit::Perhaps);
        let mut told = redis("8.2.0");
        let names = ["set", "bf.add"].map(String::from);
        told.commands = Some(std::sync::Arc::new(names.into_iter().collect()));
        assert!(matches!(of("MBbloom--", &told), Fit::Known(_)));
        assert_eq!(of("ReJSON-RL", &told), Fit::Lacks);
        assert_eq!(of(VECTOR_SET, &told), Fit::Lacks);
        assert_eq!(of("mymodule1", &told), Fit::Perhaps);
    }
}
