//! A switch-over of a link that reads by SCAN: when is the target what the source is?
//!
//! There is no offset to stop at. Under the fence it is proved by four things, in this order:
//!
//! 1. Every event that was published before has arrived, and its key is at the target.
//! 2. A pass over every key of both ends that began behind that finds no difference, nor a key that cannot be compared.
//! 3. Meanwhile no event has told of a client's write: somebody would write past the fence.
//! 4. The worker rests, its checkpoint is written, and no event waits. From there on nothing is written to the target.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::late::{self, LateEvents};
use super::shared::Shared;
use crate::compare::Name;
use crate::handover::{Over, Stage, look_for_the_switch};

/// Between two looks at what waits.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Between two looks at what is asked for.
const ASKED_AGAIN: Duration = Duration::from_millis(200);
/// Late writes are counted so long after their events: they may be the way back's.
const SETTLE_EVERY: Duration = Duration::from_millis(100);

const LOST: &str = "the target or the subscription was lost under the fence, or a database was flushed: what the pass has found no longer holds";

/// What a switch-over wants of this session, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// The number of the hold that is wanted.
    ticket: Cell<Option<u64>>,
    /// A pass is wanted for it: what was on its way before is at the target.
    wants_pass: Cell<bool>,
    /// The hold under which a pass has found no difference.
    passed: Cell<Option<u64>>,
    /// Keys that this pass could not compare.
    unchecked: Cell<u64>,
    /// A client's write is one past the fence, from here on.
    is_fenced: Cell<bool>,
    /// What such a one was.
    past: RefCell<Option<String>>,
    wants_rest: Cell<bool>,
    rests: Cell<bool>,
    is_closed: Cell<bool>,
    /// A hash of which a field has just ended: if it was the last, the `del` that comes next is the server's own.
    ended: RefCell<Option<Name>>,
    late: RefCell<LateEvents>,
    changed: Notify,
}

impl Hold {
    /// The number of the hold that is wanted.
    pub(super) fn ticket(&self) -> Option<u64> {
        self.ticket.get()
    }

    /// The hold for which a pass is to be made now, at the pace of the fence.
    pub(super) fn wants_pass(&self) -> Option<u64> {
        self.ticket.get().filter(|_| self.wants_pass.get())
    }

    /// Waits until one is wanted that this pass was not for.
    pub(super) async fn asks_for_pass(&self, pass: Option<u64>) {
        self.until(|| self.wants_pass().is_some_and(|now| pass != Some(now)))
            .await;
    }

    /// A pass under this hold is over; with how many keys that it could not compare, if it found no difference.
    pub(super) fn passed(&self, ticket: u64, clean: Option<u64>) {
        if self.ticket.get() != Some(ticket) {
            return;
        }
        match clean {
            Some(unchecked) => {
                self.unchecked.set(unchecked);
                self.passed.set(Some(ticket));
                self.wants_pass.set(false);
            }
            // Another one is wanted: with the same number it would not be asked for.
            None => tracing::info!("the pass under the fence has found differences: once more"),
        }
        self.changed.notify_waiters();
    }

    /// The worker is to put nothing at the target.
    pub(super) fn wants_rest(&self) -> bool {
        self.wants_rest.get()
    }

    /// It does not, and its checkpoint is written; comes back when it may go on.
    pub(super) async fn rest(&self) {
        self.rests.set(true);
        self.changed.notify_waiters();
        self.until(|| !self.wants_rest.get()).await;
        self.rests.set(false);
    }

    /// An event of this key. True where the switch is made: it is only counted then.
    pub(super) fn event(&self, shared: &Shared<'_>, db: u32, key: &[u8], event: &[u8]) -> bool {
        if !self.is_fenced.get() {
            return false;
        }
        let is_over = shared.status.handover.state().is_over();
        let ended = self.ended.take();
        if event == b"hexpired" {
            *self.ended.borrow_mut() = Some((db, Bytes::copy_from_slice(key)));
        } else if event == b"del"
            && ended.is_some_and(|(of, ended)| of == db && ended.as_ref() == key)
        {
            return is_over;
        }
        if self.is_closed.get() {
            let mut late = self.late.borrow_mut();
            late.event(&shared.status.handover, db, key, event, Instant::now());
        }
        if !is_over && late::is_write(key, event) {
            let mut past = self.past.borrow_mut();
            past.get_or_insert_with(|| {
                let event = event.escape_ascii();
                format!("{event} of {}", crate::pipeline::prefix_of(key))
            });
            self.changed.notify_waiters();
        }
        is_over
    }

    /// The switch is made.
    pub(super) fn over(&self) {
        self.is_fenced.set(true);
        self.is_closed.set(true);
        self.change(|| self.wants_rest.set(true));
    }

    fn begin(&self, ticket: u64) {
        if self.ticket.get() != Some(ticket) {
            self.release();
            self.change(|| self.ticket.set(Some(ticket)));
        }
    }

    fn release(&self) {
        if self.ticket.take().is_none() {
            return;
        }
        self.change(|| {
            self.wants_pass.set(false);
            self.passed.set(None);
            self.is_fenced.set(false);
            self.is_closed.set(false);
            self.wants_rest.set(false);
            self.past.take();
            self.late.take();
        });
    }

    fn change(&self, change: impl FnOnce()) {
        change();
        self.changed.notify_waiters();
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so() {
                return;
            }
            changed.await;
        }
    }
}

/// Does what is asked for, until the switch has been made.
pub(super) async fn obey(shared: &Shared<'_>) -> Over {
    tokio::select! {
        over = follow(shared) => over,
        never = prove_forever(shared) => match never {},
        never = settle_forever(shared) => match never {},
    }
}

async fn follow(shared: &Shared<'_>) -> Over {
    let (hold, handover) = (&shared.hold, &shared.status.handover);
    loop {
        let state = handover.state();
        if state.is_over() {
            hold.over();
            return Over;
        }
        match (state.stage, state.hold) {
            (Stage::Closing | Stage::Closed, Some(ticket)) => hold.begin(ticket),
            _ => hold.release(),
        }
        if state.is_forgotten() {
            look_for_the_switch(shared.config, shared.status).await;
        }
        tokio::select! {
            () = handover.changed() => {}
            () = tokio::time::sleep(ASKED_AGAIN) => {}
        }
    }
}

async fn prove_forever(shared: &Shared<'_>) -> Infallible {
    let (hold, handover) = (&shared.hold, &shared.status.handover);
    loop {
        hold.until(|| hold.ticket().is_some()).await;
        let Some(ticket) = hold.ticket() else {
            continue;
        };
        let is_other = hold.until(|| hold.ticket() != Some(ticket));
        let past = hold.until(|| hold.past.borrow().is_some() && !handover.state().is_over());
        let proved = async {
            let doubt = match prove(shared, ticket).await {
                Ok(doubt) => doubt,
                Err(why) => return why,
            };
            tracing::info!(
                "a pass under the fence has found no difference: nothing more is put at the target"
            );
            handover.is_closed();
            // The fence may fall with the source, while somebody is asked about GO.
            while shared.doubt.count() == doubt {
                tokio::time::sleep(ASKED_AGAIN).await;
            }
            LOST.to_owned()
        };
        tokio::select! {
            why = proved => handover.trouble(ticket, &why),
            () = past => {
                let what = hold.past.borrow().clone().unwrap_or_default();
                let why = format!("an event has told of {what} behind the fence: somebody writes there past it");
                handover.trouble(ticket, &why);
            }
            () = is_other => continue,
        }
        hold.until(|| hold.ticket() != Some(ticket)).await;
    }
}

/// Gives how many doubts there were when it began: one more, and it holds no longer.
async fn prove(shared: &Shared<'_>, ticket: u64) -> Result<u64, String> {
    let hold = &shared.hold;
    heard(shared).await?;
    hold.is_fenced.set(true);
    drained(shared).await;
    let doubt = shared.doubt.count();
    hold.change(|| hold.wants_pass.set(true));
    hold.until(|| hold.passed.get() == Some(ticket)).await;
    let unchecked = hold.unchecked.get();
    if unchecked > 0 {
        return Err(format!(
            "{unchecked} keys cannot be compared (the log names some): nobody can say that they are equal"
        ));
    }
    loop {
        // The source ends keys even now, under some fences.
        heard(shared).await?;
        drained(shared).await;
        hold.change(|| hold.wants_rest.set(true));
        shared.marked.notify_one();
        hold.until(|| hold.rests.get()).await;
        heard(shared).await?;
        if shared.doubt.count() != doubt {
            return Err(LOST.to_owned());
        }
        if shared.dirty.borrow().len() == 0 {
            hold.is_closed.set(true);
            return Ok(doubt);
        }
        hold.change(|| hold.wants_rest.set(false));
        hold.until(|| !hold.rests.get()).await;
    }
}

/// Every event that was published before this has arrived.
async fn heard(shared: &Shared<'_>) -> Result<(), String> {
    loop {
        if shared.listeners.barrier().await {
            return Ok(());
        }
        if !shared.listeners.are_on() {
            return Err("keyspace events do not arrive: the subscription is lost".to_owned());
        }
        // Much stands before the answer; the fence's limit ends it.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// No key waits.
async fn drained(shared: &Shared<'_>) {
    while shared.dirty.borrow().len() > 0 {
        tokio::select! {
            () = shared.confirmed.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Counts late writes.
pub(super) async fn settle_forever(shared: &Shared<'_>) -> Infallible {
    loop {
        tokio::time::sleep(SETTLE_EVERY).await;
        let mut late = shared.hold.late.borrow_mut();
        late.settle(&shared.status.handover, Instant::now());
    }
}
