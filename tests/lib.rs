//! End-to-end tests of Understudy against real servers live in `tests/`.
