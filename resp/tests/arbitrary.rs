//! Arbitrary bytes, and bytes that look like the protocol: no panic, and no cut that shows.

use portico_resp::fuzz;
use proptest::prelude::*;

/// Lengths and counts on which arithmetic could overflow.
const HOSTILE: &[&str] = &[
    "*9223372036854775807\r\n",
    "%9223372036854775807\r\n",
    "$9223372036854775807\r\n",
    "|9999999999999999999\r\n",
    "$18446744073709551616\r\n",
    "*-9223372036854775808\r\n",
];

/// Pieces of protocol in any order, so that the bytes get past the first line.
fn protocol_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => (prop::sample::select(&b"*$+-:_#,(!=%~>|?"[..]), -2_i64..14)
            .prop_map(|(kind, n)| format!("{}{n}\r\n", char::from(kind)).into_bytes()),
        6 => prop::collection::vec(any::<u8>(), 0..12)
            .prop_map(|body| [format!("${}\r\n", body.len()).into_bytes(), body, b"\r\n".to_vec()].concat()),
        2 => prop::collection::vec(prop::sample::select(&b"\r\n\0 \"'\\x4a*$10-"[..]), 0..10),
        1 => "[ \"'\\\\xa-f0-9]{0,20}\r?\n".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..50),
        1 => prop::sample::select(HOSTILE).prop_map(|line| line.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::request(&data);
        fuzz::reply(&data);
    }

    #[test]
    fn almost_protocol(data in protocol_like()) {
        fuzz::request(&data);
        fuzz::reply(&data);
    }
}
