//! The scanners agree with the `redis-protocol` crate on every well-formed input, however it is cut.

use portico_resp::encode::{
    array_header, boolean, bulk, command, double, error, integer, map_header, null, null_array, set_header,
    simple, verbatim_txt,
};
use portico_resp::{
    Items, Limits, Protocol, ReplyScanner, RequestScanner, Scan, array_items, bulk_reply, fuzz, integer_reply,
};
use proptest::prelude::*;
use redis_protocol::resp2::{decode::decode as decode2, types::OwnedFrame as Frame2};
use redis_protocol::resp3::decode::complete::decode as decode3;
use redis_protocol::resp3::types::OwnedFrame as Frame3;

fn arguments() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12)
}

/// A reply, as this crate or a server writes it.
fn reply(protocol: Protocol) -> impl Strategy<Value = Vec<u8>> {
    let write = move |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let body = || prop::collection::vec(any::<u8>(), 0..40);
    let leaf = prop_oneof![
        body().prop_map(move |body| write(&|out| bulk(out, &body))),
        any::<i64>().prop_map(move |n| write(&|out| integer(out, n))),
        "[ -~\r\n]{0,30}".prop_map(move |text| write(&|out| simple(out, &text))),
        "[A-Z]{1,9} [ -~]{0,30}".prop_map(move |text| write(&|out| error(out, &text))),
        any::<bool>().prop_map(move |array| {
            write(&|out| if array { null_array(out, protocol) } else { null(out, protocol) })
        }),
        any::<f64>().prop_map(move |n| write(&|out| double(out, n, protocol))),
        any::<bool>().prop_map(move |value| write(&|out| boolean(out, value, protocol))),
        "[a-z]{0,20}".prop_map(move |text| write(&|out| verbatim_txt(out, text.as_bytes(), protocol))),
        "[1-9][0-9]{0,40}".prop_map(move |digits| match protocol {
            Protocol::Resp2 => format!(":{}\r\n", digits.len()).into_bytes(),
            Protocol::Resp3 => format!("({digits}\r\n").into_bytes(),
        }),
        "[A-Z]{1,9}".prop_map(move |text| match protocol {
            Protocol::Resp2 => format!("-{text}\r\n").into_bytes(),
            Protocol::Resp3 => format!("!{}\r\n{text}\r\n", text.len()).into_bytes(),
        }),
    ];
    let key = (any::<u32>(), leaf.clone()).prop_map(|(n, _)| format!("+{n}\r\n").into_bytes());
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let pairs = prop::collection::btree_map(key.clone(), inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(move |items| {
                let mut out = Vec::new();
                array_header(&mut out, items.len());
                out.extend(items.concat());
                out
            }),
            pairs.prop_map(move |pairs| {
                let mut out = Vec::new();
                map_header(&mut out, pairs.len(), protocol);
                pairs.into_iter().for_each(|(key, value)| out.extend([key, value].concat()));
                out
            }),
            prop::collection::btree_set(key.clone(), 0..4).prop_map(move |items| {
                let mut out = Vec::new();
                set_header(&mut out, items.len(), protocol);
                items.into_iter().for_each(|item| out.extend(item));
                out
            }),
        ]
    })
}

/// The bodies of a request, by the oracle.
fn decoded_request(frame: Frame2) -> Vec<Vec<u8>> {
    let Frame2::Array(frames) = frame else { panic!("a request is an array, not {frame:?}") };
    let body = |frame| match frame {
        Frame2::BulkString(body) => body,
        other => panic!("an argument is a bulk string, not {other:?}"),
    };
    frames.into_iter().map(body).collect()
}

/// Where the pipeline's replies end, scanned at once and for every way to cut it in two.
fn ends_at_every_split(input: &[u8]) -> Vec<usize> {
    let scan = |cuts: &[usize]| {
        let (mut scanner, mut start, mut ends) = (ReplyScanner::default(), 0, Vec::new());
        for &cut in cuts {
            while let Some(end) = scanner.scan(&input[start..cut]).expect("well formed") {
                start += end;
                ends.push(start);
            }
        }
        ends
    };
    let whole = scan(&[input.len()]);
    for cut in 0..input.len() {
        assert_eq!(scan(&[cut, input.len()]), whole, "cut at {cut}");
    }
    whole
}

proptest! {
    #[test]
    fn requests_agree(requests in prop::collection::vec(arguments(), 1..5)) {
        let mut pipeline = Vec::new();
        for args in &requests {
            command(&mut pipeline, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        for cut in 0..=pipeline.len() {
            let (mut scanner, mut start, mut seen) = (RequestScanner::new(), 0, 0);
            for end in [cut, pipeline.len()] {
                while let Scan::Complete { len } =
                    scanner.scan(&pipeline[start..end], &Limits::default()).expect("well formed")
                {
                    let bytes = &pipeline[start..start + len];
                    let args: Vec<_> = scanner.args().iter().map(|arg| arg.of(bytes).to_vec()).collect();
                    prop_assert_eq!(&args, &requests[seen], "cut at {}", cut);
                    if cut == 0 {
                        let (frame, used) = decode2(&pipeline[start..]).expect("well formed").expect("complete");
                        prop_assert_eq!(used, len);
                        prop_assert_eq!(decoded_request(frame), args);
                        let framed: Vec<u8> = scanner.args().iter().flat_map(|arg| arg.framed(bytes)).copied().collect();
                        prop_assert_eq!(&bytes[bytes.len() - framed.len()..], framed);
                    }
                    (start, seen) = (start + len, seen + 1);
                }
            }
            prop_assert_eq!((seen, start), (requests.len(), pipeline.len()), "cut at {}", cut);
        }
        fuzz::request(&pipeline);
    }

    #[test]
    fn resp2_replies_agree(replies in prop::collection::vec(reply(Protocol::Resp2), 1..4)) {
        let pipeline = replies.concat();
        let mut start = 0;
        for end in ends_at_every_split(&pipeline) {
            let (frame, used) = decode2(&pipeline[start..]).expect("well formed").expect("complete");
            prop_assert_eq!(start + used, end);
            let bytes = &pipeline[start..end];
            match frame {
                Frame2::Array(items) => {
                    prop_assert_eq!(array_items(bytes).map(|(count, _)| count), Some(items.len() as u64));
                    let elements = Items::new(bytes).expect("an array");
                    for (item, element) in items.iter().zip(elements) {
                        let decoded = decode2(element).expect("well formed").map(|(frame, _)| frame);
                        prop_assert_eq!(Some(item), decoded.as_ref());
                    }
                }
                Frame2::Integer(n) => prop_assert_eq!(integer_reply(bytes), Some(n)),
                Frame2::BulkString(body) | Frame2::SimpleString(body) => {
                    prop_assert_eq!(bulk_reply(bytes), Some(&body[..]));
                }
                Frame2::Error(_) => prop_assert!(portico_resp::is_error(bytes)),
                Frame2::Null => prop_assert!(portico_resp::is_null(bytes)),
            }
            start = end;
        }
        prop_assert_eq!(start, pipeline.len());
        fuzz::reply(&pipeline);
    }

    #[test]
    fn resp3_replies_agree(
        replies in prop::collection::vec(reply(Protocol::Resp3), 1..4),
        push in prop::collection::vec(reply(Protocol::Resp3), 1..3),
        attribute in reply(Protocol::Resp3),
    ) {
        let pushed = [format!(">{}\r\n+invalidate\r\n", push.len() + 1).into_bytes(), push.concat()].concat();
        let pipeline = [replies.concat(), pushed].concat();
        let mut start = 0;
        for end in ends_at_every_split(&pipeline) {
            let (frame, used) = decode3(&pipeline[start..]).expect("well formed").expect("complete");
            prop_assert_eq!(start + used, end);
            let count = match frame {
                Frame3::Array { data, .. } | Frame3::Push { data, .. } => Some(data.len()),
                Frame3::Map { data, .. } => Some(2 * data.len()),
                Frame3::Set { data, .. } => Some(data.len()),
                _ => None,
            };
            prop_assert_eq!(Items::new(&pipeline[start..end]).map(Iterator::count), count);
            start = end;
        }
        prop_assert_eq!(start, pipeline.len());
        // Attributes: the oracle knows them before simple replies, so they are checked by their arithmetic.
        let attributed = [b"|1\r\n+key\r\n".to_vec(), attribute, pipeline].concat();
        prop_assert_eq!(ends_at_every_split(&attributed).len(), replies.len() + 1);
        fuzz::reply(&attributed);
    }
}
