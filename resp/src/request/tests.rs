//! Each rule of the request protocol, by an example.

use super::*;

const LIMITS: Limits = Limits {
    max_bulk_len: 100_000,
    max_multibulk_len: 20,
    max_inline_len: 64,
    large_bulk: 50_000,
    authenticated: true,
};

fn scan(input: &str) -> Result<Scan, ProtocolError> {
    RequestScanner::new().scan(input.as_bytes(), &LIMITS)
}

/// The result when the input comes byte by byte, up to the first that is not `Incomplete`.
fn scan_bytewise(input: &str) -> Result<Scan, ProtocolError> {
    let mut scanner = RequestScanner::new();
    (0..=input.len())
        .map(|end| scanner.scan(&input.as_bytes()[..end], &LIMITS))
        .find(|scan| *scan != Ok(Scan::Incomplete))
        .unwrap_or(Ok(Scan::Incomplete))
}

#[test]
fn arguments_lie_where_they_say() {
    let mut scanner = RequestScanner::new();
    let request = b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\n0123456789ab\r\n*1";
    assert_eq!(scanner.scan(request, &LIMITS), Ok(Scan::Complete { len: request.len() - 2 }));
    assert_eq!(scanner.declared(), 3);
    let bodies: Vec<_> = scanner.args().iter().map(|arg| arg.of(request)).collect();
    assert_eq!(bodies, [&b"SET"[..], b"", b"0123456789ab"]);
    let framed: Vec<_> = scanner.args().iter().map(|arg| arg.framed(request)).collect();
    assert_eq!(framed, [&b"$3\r\nSET\r\n"[..], b"$0\r\n\r\n", b"$12\r\n0123456789ab\r\n"]);
    assert!(!scanner.is_mid_request());
    assert_eq!(scanner.scan(b"*1", &LIMITS), Ok(Scan::Incomplete));
    assert!(scanner.is_mid_request() && scanner.args().is_empty());
    scanner.reset();
    assert!(!scanner.is_mid_request());
}

#[test]
fn nothing_to_do() {
    for input in ["*0\r\n", "*-1\r\n", "*-7\r\n"] {
        assert_eq!(scan(input), Ok(Scan::Complete { len: input.len() }), "{input:?}");
    }
    let mut scanner = RequestScanner::new();
    for line in ["\n", "\r\n", "  \r\n"] {
        assert_eq!(scanner.scan(line.as_bytes(), &LIMITS), Ok(Scan::Inline { len: line.len() }), "{line:?}");
        assert!(scanner.inline_args().is_empty() && scanner.args().is_empty());
    }
}

#[test]
fn inline_commands() {
    let mut scanner = RequestScanner::new();
    assert_eq!(scanner.scan(b"SET \"a b\" c\r\nPING\n", &LIMITS), Ok(Scan::Inline { len: 13 }));
    assert_eq!(scanner.inline_args(), [b"SET".to_vec(), b"a b".to_vec(), b"c".to_vec()]);
    assert_eq!(scanner.scan(b"PING\n", &LIMITS), Ok(Scan::Inline { len: 5 }));
    assert_eq!(scanner.inline_args(), [b"PING".to_vec()]);
    assert_eq!(scan("PING\r"), Ok(Scan::Incomplete));
}

#[test]
fn line_ends_are_skipped_unseen() {
    let mut scanner = RequestScanner::new();
    let request = b"*1\rX$4\rYPING..";
    assert_eq!(scanner.scan(request, &LIMITS), Ok(Scan::Complete { len: request.len() }));
    assert_eq!(scanner.args()[0].of(request), b"PING");
}

#[test]
fn every_protocol_error_in_redis_words() {
    let long = "x".repeat(70);
    for (input, text) in [
        ("*x\r\n", "invalid multibulk length"),
        ("*\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*21\r\n", "invalid multibulk length"),
        ("*9223372036854775808\r\n", "invalid multibulk length"),
        ("*1\n$4\r\n", "invalid multibulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$\r\n", "invalid bulk length"),
        ("*1\r\n$003\r\n", "invalid bulk length"),
        ("*1\r\n$100001\r\n", "invalid bulk length"),
        ("*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        ("*1\r\nPING\r\n", "expected '$', got 'P'"),
        ("*1\r\n\r\n", "expected '$', got ' '"),
        ("*2\r\n$1\r\na\r\n:1\r\n", "expected '$', got ':'"),
        (&long, "too big inline request"),
        (&format!("*{long}"), "too big mbulk count string"),
        (&format!("*1\r\n${long}"), "too big bulk count string"),
        ("PING \"a\n", "unbalanced quotes in request"),
        ("PING 'a'b\r\n", "unbalanced quotes in request"),
    ] {
        let expected = format!("Protocol error: {text}");
        assert_eq!(scan(input).map_err(|error| error.to_string()), Err(expected), "{input:?}");
        assert_eq!(scan(input), scan_bytewise(input), "{input:?}");
    }
    assert_eq!(ProtocolError::ExpectedDollar(b'\n').to_string(), "Protocol error: expected '$', got ' '");
}

#[test]
fn before_authentication() {
    let limits = Limits { authenticated: false, ..LIMITS };
    let scan = |input: &str| {
        RequestScanner::new().scan(input.as_bytes(), &limits).map_err(|error| error.to_string())
    };
    assert_eq!(scan("*10\r\n$16384\r\n"), Ok(Scan::Incomplete));
    assert_eq!(scan("*11\r\n"), Err("Protocol error: unauthenticated multibulk length".to_owned()));
    assert_eq!(scan("*21\r\n"), Err("Protocol error: unauthenticated multibulk length".to_owned()));
    let beyond = scan("*2147483648\r\n");
    assert_eq!(beyond, Err("Protocol error: invalid multibulk length".to_owned()));
    assert_eq!(scan("*1\r\n$16385\r\n"), Err("Protocol error: unauthenticated bulk length".to_owned()));
    assert_eq!(scan("*1\r\n$100001\r\n"), Err("Protocol error: invalid bulk length".to_owned()));
}

#[test]
fn lines_of_just_the_greatest_length() {
    let fits = format!("{}\n", "x".repeat(LIMITS.max_inline_len));
    for scan in [scan, scan_bytewise] {
        assert_eq!(scan(&fits), Ok(Scan::Inline { len: fits.len() }));
        assert_eq!(scan(&format!("x{fits}")), Err(ProtocolError::TooBigInline));
        let header = format!("*1\r\n{}\r\n", "x".repeat(LIMITS.max_inline_len));
        assert_eq!(scan(&header), Err(ProtocolError::ExpectedDollar(b'x')));
    }
}

#[test]
fn a_nul_hides_the_rest_of_its_line() {
    for (start, error) in [
        ("\0", ProtocolError::TooBigInline),
        ("*1\0", ProtocolError::TooBigMultibulkCount),
        ("*1\r\n$4\0", ProtocolError::TooBigBulkCount),
    ] {
        let input = format!("{start}\r\n{}", "\r\n".repeat(40));
        for scan in [scan, scan_bytewise] {
            assert_eq!(scan(&input[..start.len() + 10]), Ok(Scan::Incomplete));
            assert_eq!(scan(&input), Err(error));
        }
    }
}

#[test]
fn a_request_above_4_gib_is_refused() {
    let limits = Limits { max_bulk_len: u64::MAX, large_bulk: u64::MAX, ..LIMITS };
    for (len, result) in [
        (u64::from(u32::MAX) - 100, Ok(Scan::Incomplete)),
        (u64::from(u32::MAX), Err(ProtocolError::InvalidBulkLength)),
        (i64::MAX as u64, Err(ProtocolError::InvalidBulkLength)),
    ] {
        let input = format!("*1\r\n${len}\r\n");
        assert_eq!(RequestScanner::new().scan(input.as_bytes(), &limits), result, "{len}");
    }
}

#[test]
fn large_arguments_can_be_held() {
    let mut scanner = RequestScanner::new();
    let request = format!("*2\r\n$1\r\na\r\n$50001\r\n{}\r\n", "b".repeat(50_001));
    let large = Ok(Scan::Large { header_len: 19, bulk_len: 50_001 });
    for end in [19, request.len()] {
        assert_eq!(scanner.scan(&request.as_bytes()[..end], &LIMITS), large);
        assert_eq!((scanner.args().len(), scanner.declared()), (1, 2));
    }
    scanner.accept_large();
    assert_eq!(scanner.scan(&request.as_bytes()[..20], &LIMITS), Ok(Scan::Incomplete));
    assert_eq!(scanner.scan(request.as_bytes(), &LIMITS), Ok(Scan::Complete { len: request.len() }));
    assert_eq!(scanner.args()[1], Arg { start: 19, len: 50_001 });
}

#[test]
fn large_arguments_can_be_streamed() {
    let rest = format!("{}\r\n$3\r\nend\r\n", "b".repeat(50_001));
    for piece in [1, 2, 7, 1000, rest.len()] {
        let mut scanner = RequestScanner::new();
        let header = b"*3\r\n$1\r\na\r\n$50001\r\n";
        assert!(matches!(scanner.scan(header, &LIMITS), Ok(Scan::Large { header_len: 19, .. })));
        let mut stream = scanner.take_stream();
        assert!(!scanner.is_mid_request() && !stream.is_done());
        let (mut used, input) = (0, format!("{rest}*1\r\n"));
        while !stream.is_done() {
            let end = input.len().min(used + piece);
            used += stream.feed(&input.as_bytes()[used..end], &LIMITS).expect("well formed").used;
        }
        assert_eq!(used, rest.len());
        assert_eq!(scanner.scan(&input.as_bytes()[used..], &LIMITS), Ok(Scan::Incomplete));
    }
}

#[test]
fn a_stream_without_a_large_argument_is_done() {
    let mut scanner = RequestScanner::new();
    assert_eq!(scanner.scan(b"*1\r\n", &LIMITS), Ok(Scan::Incomplete));
    assert!(scanner.take_stream().is_done());
    assert!(scanner.is_mid_request());
}

#[test]
fn a_stream_knows_the_errors() {
    let too_big = format!("$1{}", "x".repeat(70));
    let just_fits = format!("{}\r\n", "x".repeat(LIMITS.max_inline_len));
    let hidden = format!("$1\0{}", "\r\n".repeat(40));
    for (next, error) in [
        ("$x\r\n", ProtocolError::InvalidBulkLength),
        ("$11111111111111111111111111111111\r\n", ProtocolError::InvalidBulkLength),
        ("$100001\r\n", ProtocolError::InvalidBulkLength),
        ("\r\n", ProtocolError::ExpectedDollar(b'\r')),
        (":1\r\n", ProtocolError::ExpectedDollar(b':')),
        ("$$1\r\na\r\n", ProtocolError::InvalidBulkLength),
        (&too_big, ProtocolError::TooBigBulkCount),
        (&just_fits, ProtocolError::ExpectedDollar(b'x')),
        (&hidden, ProtocolError::TooBigBulkCount),
    ] {
        for piece in [1, 3, 4, 100] {
            let mut stream = RequestStream::new(1, 1);
            let input = format!("b\r\n{next}");
            let found = input.as_bytes().chunks(piece).find_map(|chunk| stream.feed(chunk, &LIMITS).err());
            assert_eq!(found, Some(error), "{next:?} by {piece}");
        }
    }
    let unauthenticated = Limits { authenticated: false, ..LIMITS };
    let result = RequestStream::new(0, 1).feed(b"\r\n$16385\r\n", &unauthenticated);
    assert_eq!(result, Err(ProtocolError::UnauthenticatedBulk));
}

#[test]
fn memory_is_used_again_but_not_hoarded() {
    let mut scanner = RequestScanner::new();
    let mut pointers = Vec::new();
    for _ in 0..3 {
        assert!(matches!(scanner.scan(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", &LIMITS), Ok(Scan::Complete { .. })));
        pointers.push(scanner.args().as_ptr());
    }
    assert!(pointers.iter().all(|pointer| *pointer == pointers[0]));
    let many = format!("*20000\r\n{}", "$0\r\n\r\n".repeat(20_000));
    let limits = Limits::default();
    assert_eq!(scanner.scan(many.as_bytes(), &limits), Ok(Scan::Complete { len: many.len() }));
    assert!(scanner.scan(b"*0\r\n", &limits).is_ok());
    assert!(scanner.args.capacity() <= KEPT_ARGS);
}
