//! The Understudy daemon.
