//! Whether an expiry that the target has is a lease's.

use super::{Form, Lease};

impl Lease {
    /// In which form the target has it; `None`: somebody has changed the expiry. A target that has fallen back may have
    /// another form than was written last.
    pub(super) fn found_as(&self, at_ms: Option<i64>, slack_ms: u64) -> Option<Form> {
        let forms = [Form::Leased, Form::Exact].into_iter();
        let mut near = forms.filter(|form| self.distance(at_ms, *form) <= slack_ms);
        near.next()
    }

    /// Whether an expiry is rather this lease's than another one's of the same key: where it is not known exactly, two that were
    /// given one after the other can both be meant.
    pub(super) fn is_nearer(&self, other: &Self, at_ms: Option<i64>) -> bool {
        let least = |lease: &Self| {
            let distances = [Form::Leased, Form::Exact].map(|form| lease.distance(at_ms, form));
            distances.into_iter().min()
        };
        (self.db, &self.key) == (other.db, &other.key) && least(self) < least(other)
    }

    /// Milliseconds from what this form has; the most that there are where the key has no expiry.
    fn distance(&self, at_ms: Option<i64>, form: Form) -> u64 {
        at_ms.map_or(u64::MAX, |at_ms| at_ms.abs_diff(self.written_as(form)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::LEASE_MS;
    use super::*;

    #[test]
    fn of_two_leases_of_a_key_the_nearer_one_is_meant() {
        let lease = |key: &'static str, at_ms| Lease::leased(0, key.into(), at_ms, 0);
        let (first, second) = (lease("a", 1_000), lease("a", 1_030));
        for at_ms in [1_030, 1_030 + LEASE_MS, 1_040] {
            let at_ms = Some(at_ms);
            assert!(first.found_as(at_ms, 50).is_some());
            assert!(second.is_nearer(&first, at_ms) && !first.is_nearer(&second, at_ms));
            assert!(!lease("b", 1_030).is_nearer(&first, at_ms));
        }
        assert_eq!(
            second.found_as(Some(1_030 + LEASE_MS), 0),
            Some(Form::Leased)
        );
        assert_eq!(second.found_as(Some(1_031), 0), None);
        // One that was given twice is its own.
        assert!(!first.is_nearer(&lease("a", 1_000), Some(1_000)));
        assert!(!first.is_nearer(&second, None) && first.found_as(None, 50).is_none());
    }
}
