//! More rows of the table: what is said where several processes share a source cluster.

use super::{Row, row};
use crate::error::{Class, Side};

use Class::{Reconnect, Stop};
use Side::{Source, Target};

pub(super) const ROWS: &[Row] = &[
    row(
        "is not as understudy writes it: remove it",
        Target,
        Stop,
        "stop all processes of this source, remove the key, start them again",
    ),
    row(
        "another understudy of this source has begun as one of",
        Target,
        Stop,
        "give all processes the same n in `shards`, and each its own i",
    ),
    row(
        "read by SCAN is not shared by several processes",
        Source,
        Stop,
        "allow PSYNC at every node, or `shards = \"1/1\"` in one process",
    ),
    row(
        "another understudy has taken this link; the claims",
        Target,
        Reconnect,
        "nothing: this process was replaced, and its link ends",
    ),
    row(
        "it does not answer CLUSTER NODES",
        Source,
        Reconnect,
        "nothing; `understudy cutover` waits for no node: mend it, or make the others forget it (CLUSTER FORGET)",
    ),
    row(
        "the switch has been made, and this shard of the source",
        Source,
        Stop,
        "nothing: who still writes there has to be moved; `understudy cutover --finish`",
    ),
    row(
        "it does not answer HGETALL",
        Target,
        Reconnect,
        "the target is asked again",
    ),
];
