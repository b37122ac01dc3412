//! Each rule of the reply protocol, by an example.

use super::*;

fn scan(input: &str) -> Result<Option<usize>, ReplyError> {
    ReplyScanner::default().scan(input.as_bytes())
}

#[test]
fn every_type() {
    for reply in [
        "+OK\r\n",
        "-ERR x\r\n",
        ":-1\r\n",
        "$0\r\n\r\n",
        "$4\r\na\r\nb\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n:1\r\n*1\r\n$1\r\na\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        "(123456789012345678901\r\n",
        "!5\r\nERR x\r\n",
        "=6\r\ntxt:ab\r\n",
        "%0\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*0\r\n",
        "~1\r\n+a\r\n",
        ">2\r\n+message\r\n$1\r\na\r\n",
        "|1\r\n+ttl\r\n:1\r\n+OK\r\n",
        "|0\r\n*0\r\n",
        "*2\r\n|1\r\n+a\r\n|1\r\n+b\r\n+c\r\n+d\r\n:1\r\n:2\r\n",
        "+a\rb\nc\r\r\n",
        "+\r\n",
    ] {
        assert_eq!(scan(reply), Ok(Some(reply.len())), "{reply:?}");
        assert_eq!(scan(&format!("{reply}+next\r\n")), Ok(Some(reply.len())), "{reply:?}");
        let mut scanner = ReplyScanner::default();
        for end in 0..reply.len() {
            assert_eq!(scanner.scan(&reply.as_bytes()[..end]), Ok(None), "{reply:?} up to {end}");
            assert_eq!(scanner.is_mid_reply(), end > 0);
        }
        assert_eq!(scanner.scan(reply.as_bytes()), Ok(Some(reply.len())), "{reply:?}");
        assert!(!scanner.is_mid_reply());
    }
}

#[test]
fn what_is_no_reply() {
    for (input, error) in [
        ("PONG\r\n", ReplyError::UnknownType(b'P')),
        ("*1\r\n\r\n", ReplyError::UnknownType(b'\r')),
        ("$?\r\n", ReplyError::InvalidLength),
        ("*?\r\n", ReplyError::InvalidLength),
        ("$-2\r\n", ReplyError::InvalidLength),
        ("*-1x", ReplyError::InvalidLength),
        ("%-1\r\n", ReplyError::InvalidLength),
        ("=-1\r\n", ReplyError::InvalidLength),
        ("$\r\n", ReplyError::InvalidLength),
        ("$1\n", ReplyError::InvalidLength),
        ("$1\rx", ReplyError::InvalidLength),
        ("$99999999999999999999\r\n", ReplyError::InvalidLength),
        ("$1\r\nabc", ReplyError::MissingLineEnd),
        ("$1\r\na\rc", ReplyError::MissingLineEnd),
        ("*2\r\n*9223372036854775807\r\n%9223372036854775807\r\n", ReplyError::TooLong),
        ("%9999999999999999999\r\n", ReplyError::TooLong),
    ] {
        assert_eq!(scan(input), Err(error), "{input:?}");
    }
}

#[test]
fn hostile_lengths_are_waited_for() {
    for input in ["*9223372036854775807\r\n", "%9223372036854775807\r\n", "$9223372036854775807\r\n"] {
        assert_eq!(scan(input), Ok(None), "{input:?}");
    }
    let deep = "*1\r\n".repeat(100_000);
    assert_eq!(scan(&deep), Ok(None));
    assert_eq!(scan(&format!("{deep}:1\r\n")), Ok(Some(deep.len() + 4)));
}

#[test]
fn a_huge_reply_in_a_small_buffer() {
    let reply = format!("*2\r\n$100000\r\n{}\r\n+{}\r\n", "x".repeat(100_000), "y".repeat(5000));
    let (mut scanner, mut buf, mut drained, mut most) = (ReplyScanner::default(), Vec::new(), 0, 0);
    let mut end = None;
    for chunk in reply.as_bytes().chunks(1000) {
        assert_eq!(end, None);
        buf.extend_from_slice(chunk);
        most = most.max(buf.len());
        end = scanner.scan(&buf).expect("well formed");
        let known = scanner.position();
        scanner.rebase(known);
        buf.drain(..known);
        drained += known;
    }
    assert_eq!(end.map(|end| drained + end), Some(reply.len()));
    assert!(most < 1100, "{most}");
}
