//! Arbitrary bytes as a reply: `cargo +nightly fuzz run reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portico_resp::fuzz::reply(data));
