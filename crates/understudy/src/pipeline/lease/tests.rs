//! Leases: which step is taken when.

use super::*;

#[test]
fn only_what_expires_soon_gets_a_lease() {
    let leases = Leases::default();
    let now = now_ms();
    assert_eq!(
        leases.grant(0, b"far", now + 2 * WINDOW_MS),
        now + 2 * WINDOW_MS
    );
    assert!(!leases.any());
    assert_eq!(leases.grant(0, b"near", now + 5), now + 5 + LEASE_MS);
    assert_eq!(leases.grant(0, b"past", 7), 7 + LEASE_MS);
    assert_eq!(leases.open.borrow().len(), 2);
}

#[test]
fn an_expiry_that_somebody_means_is_no_lease() {
    let now = now_ms();
    let is_live = |at_ms| is_grantable(at_ms, false);
    assert!(is_live(now - 1000) && is_live(now + WINDOW_MS));
    assert!(!is_live(9_999_999_999_999 - LEASE_MS) && !is_live(now + 2 * WINDOW_MS));
    let is_recorded = |at_ms| is_grantable(at_ms, true);
    assert!(is_recorded(now - 2 * OLDEST_MS) && is_recorded(now + 2 * WINDOW_MS));
    assert!(!is_recorded(9_999_999_999_999 - LEASE_MS));
}

#[test]
fn what_a_recording_ends_gets_a_lease_however_far_it_is() {
    let leases = Leases::of_a_recording();
    let (now, tide) = (now_ms(), Tide::of_a_recording());
    assert_eq!(
        leases.grant(0, b"far", now + 2 * WINDOW_MS),
        now + 2 * WINDOW_MS + LEASE_MS
    );
    assert!(Leases::rule(false, &tide).before_ms > now + 2 * WINDOW_MS);
}

#[test]
fn steps() {
    let mark = Mark {
        source_ms: 1_000_000,
        offset: 0,
        read: Instant::now(),
    };
    let lease = |left_ms, form| Lease {
        db: 0,
        key: Bytes::new(),
        at_ms: 1_000_000 + left_ms,
        form,
        from: 0,
    };
    let step = |left_ms, form, is_idle| mark.step(&lease(left_ms, form), is_idle, 0);
    assert_eq!(step(-SKEW_MS, Form::Leased, false), Step::End);
    assert_eq!(step(-SKEW_MS + 1, Form::Leased, true), Step::Keep);
    assert_eq!(step(AHEAD_MS + 1, Form::Leased, false), Step::Keep);
    assert_eq!(
        step(AHEAD_MS + 1, Form::Leased, true),
        Step::Write(Form::Exact)
    );
    assert_eq!(step(AHEAD_MS + 1, Form::Exact, true), Step::Keep);
    assert_eq!(step(AHEAD_MS, Form::Exact, true), Step::Write(Form::Leased));
    assert_eq!(step(NEAR_MS + 1, Form::Leased, false), Step::End);
    assert_eq!(step(NEAR_MS + 1, Form::Exact, false), Step::Forget);
    let ahead = mark.step(&lease(AHEAD_MS + 3999, Form::Exact), true, 4000);
    assert_eq!(ahead, Step::Write(Form::Leased));
}

#[test]
fn what_goes_on_in_every_round_keeps_no_switch_waiting() {
    let (leases, status) = (Leases::default(), Status::new(0));
    let shown = || {
        leases.show(&status, now_ms());
        (status.leases_open.get(), status.leases_far.get())
    };
    leases.suspect(9);
    assert_eq!(shown(), (1, 0), "a RENAME in the stream");
    leases.suspect(0);
    assert_eq!(shown(), (1, 1), "left by an earlier run");
}
