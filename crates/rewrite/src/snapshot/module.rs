//! Values of modules, which only `RESTORE` can bring, and only to a target that has the module.

use std::borrow::Cow;

use rdb::{KeyHead, ModuleId};

use super::write::{self, Expect, Method, Sent};
use super::{Existing, SnapshotError, SnapshotErrorKind, SnapshotRewriter};
use crate::modules::{self, Fit};
use crate::stream::Losses;

impl SnapshotRewriter {
    /// The bytes of a module's value as the target takes them; `None` if they are lost, which is allowed and counted.
    ///
    /// With losses allowed, or where the target alone knows whether it has the module, the key is removed first: what
    /// another value left under its name is not the source's.
    pub(super) fn module_body<'a>(
        &mut self,
        head: &KeyHead,
        body: &'a [u8],
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<Option<Cow<'a, [u8]>>, SnapshotError> {
        let id = modules::type_of(body).ok_or_else(|| Self::malformed(head))?;
        match modules::fit(id, body, &self.options.target) {
            Fit::Known(body) => Ok(Some(body)),
            Fit::Perhaps => {
                self.make_room(head, out, sent);
                Ok(Some(Cow::Borrowed(body)))
            }
            Fit::Lacks => {
                self.lose_module(head, id)?;
                self.make_room(head, out, sent);
                Ok(None)
            }
        }
    }

    fn lose_module(&mut self, head: &KeyHead, id: ModuleId) -> Result<(), SnapshotError> {
        if self.options.losses == Losses::Refuse {
            let module = id.to_string();
            let kind = SnapshotErrorKind::ModuleUnknown { module };
            return Err(Self::error(head, kind));
        }
        self.counts.modules_lost += 1;
        Ok(())
    }

    fn make_room(&mut self, head: &KeyHead, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        if self.options.existing == Existing::Replace && self.options.deletes {
            self.select(head.db, out, sent);
            write::delete(&head.key, self.options.target.unlink, out);
            sent.push(Sent::new(head, Method::Commands, Expect::Int));
        }
    }
}
