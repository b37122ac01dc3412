//! Texts in the formats of Redis 4 to 7.2 (the 7.0 one recorded, the others composed), and texts that no server sends.

use super::*;
use crate::testing::{address, id};
use proptest::prelude::*;

/// 4.0: a failed master, its promoted replica, a node in handshake, one without an address.
const REDIS_4: &str = "\
07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004 slave e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1426238317239 4 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 127.0.0.1:30002@31002 master,fail? - 1426238316232 1426238316232 2 disconnected 5461-10922
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 127.0.0.1:30003@31003 master,fail - 0 1426238318243 3 disconnected
6ec23923021cf3ffec47632106199cb7f496ce01 127.0.0.1:30005@31005 handshake - 0 0 0 disconnected
824fe116063bc5fcf9f4ffd895bc17aee7731ac3 :0@0 slave,fail,noaddr 292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 1 2 3 disconnected
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5460 10923 10925-16383 [5461->-67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1] [5470-<-67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1]
";

/// 5.0 and 6.2, IPv6, flag nofailover.
const REDIS_6_2: &str = "\
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca ::1:30001@31001 myself,slave,nofailover 67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 0 0 2 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 2001:db8::7:30002@31002 master - 0 1426238316232 2 connected 0-16383
";

/// 7.0.15, recorded: node 7911 moves slot 5 to 7912, 7913 announces a hostname.
const REDIS_7_0: &str = "\
4192fa42db2682dd25a3eac7112a9d872265287f 127.0.0.1:7911@17911 myself,master - 0 1795234922000 1 connected 0-5460 [5->-b73c4969c0c99abf081532d3530702545c9e572d]
b73c4969c0c99abf081532d3530702545c9e572d 127.0.0.1:7912@17912 master - 0 1795234922018 2 connected 5461-10922
a03e1fa7347ab02f3a1886c087b1199bae94f0f5 127.0.0.1:7913@17913,c.local master - 0 1795234924025 3 connected 10923-16383
";

/// 7.2 and Valkey with auxiliary fields, hostnames in place of addresses, and the trailer of nodes.conf.
const REDIS_7_2: &str = "\
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 10.0.0.1:6379@16379,a.example,shard-id=69bc080733d1355567173199cff4a6a039a2f024 myself,master - 0 0 1 connected 0-5460\r
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 ?:6379@16379,b.example master - 0 0 2 connected 5461-10922\r
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 10.0.0.3:6379@16379,,tls-port=0,shard-id=114f6674a35b84949fe567f5dfd41415ee776261 master - 0 0 3 connected 10923-16383\r
824fe116063bc5fcf9f4ffd895bc17aee7731ac3 :6379@16379,? slave 292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 0 0 3 connected\r
vars currentEpoch 3 lastVoteEpoch 0
";

fn read(text: &str) -> View {
    parse(text, &address(1)).expect("a readable text")
}

fn node(text: &str) -> NodeId {
    text.parse().expect("a node id")
}

#[test]
fn redis_4() {
    let view = read(REDIS_4);
    let me = view.own().expect("a line about itself");
    let other = node("67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1");
    assert_eq!(me.id.short(), "e7d1eecc");
    assert_eq!(me.slots, [0..=5460, 10923..=10923, 10925..=16383]);
    assert_eq!(
        (me.migrating.as_slice(), me.importing.as_slice()),
        (&[(5461, other)][..], &[(5470, other)][..])
    );
    assert_eq!(me.role(), Some(Role::Master));
    let [replica, suspected, failed, handshake, lost, _] = view.lines.as_slice() else { panic!("six lines") };
    assert_eq!(replica.role(), Some(Role::Replica { of: me.id }));
    assert!(replica.flags.replica && replica.connected && replica.config_epoch == 4);
    assert!(suspected.flags.suspected && !suspected.flags.failed && !suspected.connected);
    assert!(failed.flags.failed && !failed.flags.suspected && failed.slots.is_empty());
    assert!(handshake.flags.handshake && handshake.role().is_none());
    assert!(lost.flags.noaddr && lost.address.is_none());
    assert_eq!(suspected.address, Some(Address::new("127.0.0.1", 30002)));
}

#[test]
fn redis_6_2_with_ipv6() {
    let view = read(REDIS_6_2);
    assert_eq!(view.lines[0].address, Some(Address::new("::1", 30001)));
    assert_eq!(view.lines[1].address, Some(Address::new("2001:db8::7", 30002)));
    assert_eq!(view.lines[1].slots, [0..=16383]);
}

#[test]
fn redis_7_0() {
    let view = read(REDIS_7_0);
    assert_eq!(view.lines[0].migrating, [(5, view.lines[1].id)]);
    assert_eq!(view.lines[2].hostname.as_deref(), Some("c.local"));
    assert_eq!(view.lines[2].address, Some(Address::new("127.0.0.1", 7913)));
}

#[test]
fn redis_7_2_hostnames_and_auxiliary_fields() {
    let view = read(REDIS_7_2);
    let addresses: Vec<_> =
        view.lines.iter().map(|line| line.address.as_ref().map(ToString::to_string)).collect();
    let names = view.lines.iter().map(|line| line.hostname.as_deref());
    let seen: Vec<_> = addresses.iter().map(Option::as_deref).zip(names).collect();
    assert_eq!(
        seen,
        [
            (Some("10.0.0.1:6379"), Some("a.example")),
            (Some("b.example:6379"), Some("b.example")),
            (Some("10.0.0.3:6379"), None),
            (None, None),
        ]
    );
}

#[test]
fn a_node_that_does_not_know_its_address() {
    let view = read("4192fa42db2682dd25a3eac7112a9d872265287f :7911@17911 myself,master - 0 0 0 connected\n");
    assert_eq!((view.lines[0].address.clone(), view.asked), (None, address(1)));
    // before 4.0 there was no bus port
    let view = read("4192fa42db2682dd25a3eac7112a9d872265287f h:7911 myself,master - 0 0 0 connected");
    assert_eq!(view.lines[0].address, Some(Address::new("h", 7911)));
}

#[test]
fn errors_say_where_and_what() {
    let good = format!("{} 127.0.0.1:1@2 myself,master - 0 0 1 connected", id(1));
    for (bad, what) in [
        ("x".to_owned(), "bad node id"),
        (id(1).to_string(), "too few fields"),
        (good.replace(" connected", ""), "too few fields"),
        (good.replace("127.0.0.1:1@2", "nowhere"), "no port in the address"),
        (good.replace("127.0.0.1:1@2", "a:b:1@2"), "bad address"),
        (good.replace(" - ", " master "), "bad id of the master"),
        (good.replace(" 1 connected", " -1 connected"), "bad config epoch"),
        (good.replace("connected", "maybe"), "bad link state"),
        (format!("{good} 16384"), "bad slot"),
        (format!("{good} 1-"), "bad slot"),
        (format!("{good} 2-1"), "slot range ends before it starts"),
        (format!("{good} [1->-{}", id(2)), "bad open slot"),
        (format!("{good} [1>{}]", id(2)), "bad open slot"),
        (format!("{good} [1->-2]"), "bad node id of an open slot"),
    ] {
        let error = parse(&format!("{good}\n{bad}\n"), &address(1)).expect_err(&bad);
        assert_eq!(error, ParseError::Line { line: 2, what }, "{bad}");
        assert_eq!(error.to_string(), format!("CLUSTER NODES, line 2: {what}"));
    }
    assert_eq!(parse("", &address(1)), Err(ParseError::NoMyself));
    assert_eq!(parse(&good.replace("myself,", ""), &address(1)), Err(ParseError::NoMyself));
    assert_eq!(parse(&format!("{good}\n{good}"), &address(1)), Err(ParseError::TwoMyselfs));
}

proptest! {
    #[test]
    fn mutated_texts_never_panic(
        text in prop::sample::select(vec![REDIS_4, REDIS_6_2, REDIS_7_0, REDIS_7_2]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, "[ -~\n\r\té]{0,4}"), 1..6),
    ) {
        let mut text: Vec<char> = text.chars().collect();
        for (at, cut, insert) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        if let Ok(view) = parse(&text, &address(1)) {
            prop_assert!(view.own().is_some());
            prop_assert!(view.lines.iter().flat_map(|line| &line.slots).all(|range| *range.end() < SLOT_COUNT));
            let _ = crate::merge(&[view], &Address::clone);
        }
    }

    #[test]
    fn any_text_never_panics(text in "(\\PC|[ \n:@,\\[\\]-]){0,300}") {
        let _ = parse(&text, &address(1));
    }
}
