//! Any bytes from a source, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replica::fuzzing::link(data));
