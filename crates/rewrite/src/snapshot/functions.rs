//! Libraries of functions: `FUNCTION LOAD`.

use super::losses::Loss;
use super::write::{self, Sent};
use super::{SnapshotError, SnapshotRewriter};

impl SnapshotRewriter {
    /// A library as release candidates of 7.0 wrote it: the source's first line, which names it, has to be made.
    pub(super) fn function_pre_ga(
        &mut self,
        name: &[u8],
        engine: &[u8],
        code: &[u8],
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let header = format!(
            "#!{} name={}\n",
            String::from_utf8_lossy(engine).to_lowercase(),
            String::from_utf8_lossy(name)
        );
        self.function(&[header.as_bytes(), code].concat(), out, sent)
    }

    pub(super) fn function(
        &mut self,
        code: &[u8],
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let group = crate::Group::Scripting;
        if self.options.filter.command("function|load", group).is_err() {
            self.counts.functions_dropped += 1;
            return Ok(());
        }
        if !self.options.target.functions {
            self.may_lose(Loss::Function)
                .map_err(|kind| SnapshotError {
                    key: String::new(),
                    kind,
                })?;
            self.count_loss(Loss::Function);
            return Ok(());
        }
        if std::mem::take(&mut self.options.flush_functions) {
            write::flush_functions(out, sent);
        }
        write::function(code, self.options.existing, out, sent);
        Ok(())
    }
}
