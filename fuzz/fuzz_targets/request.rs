//! Arbitrary bytes as a request: `cargo +nightly fuzz run request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portico_resp::fuzz::request(data));
