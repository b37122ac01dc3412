//! Writes requests and replies at the end of a buffer.

/// The protocol that a client has chosen with `HELLO`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// RESP2, which a connection begins with.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// Appends the header of an array of `n` elements.
#[inline]
pub fn array_header(out: &mut Vec<u8>, n: usize) {
    number_line(out, b'*', n);
}

/// Appends a bulk string.
#[inline]
pub fn bulk(out: &mut Vec<u8>, body: &[u8]) {
    number_line(out, b'$', body.len());
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// Appends an integer.
#[inline]
pub fn integer(out: &mut Vec<u8>, n: i64) {
    number_line(out, b':', n);
}

/// Appends a simple string, with spaces for CR and LF.
pub fn simple(out: &mut Vec<u8>, s: &str) {
    text_line(out, b'+', s.as_bytes());
}

/// Appends an error of `text`, which begins with its code (`ERR`), with spaces for CR and LF.
pub fn error(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    text_line(out, b'-', text.as_ref());
}

/// Appends a null: that of a bulk string in RESP2.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Appends a null: that of an array in RESP2.
pub fn null_array(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Appends the header of a map of `n_pairs` keys and values: an array of twice as many in RESP2.
pub fn map_header(out: &mut Vec<u8>, n_pairs: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => array_header(out, n_pairs.saturating_mul(2)),
        Protocol::Resp3 => number_line(out, b'%', n_pairs),
    }
}

/// Appends the header of a set of `n` elements: an array in RESP2.
pub fn set_header(out: &mut Vec<u8>, n: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => array_header(out, n),
        Protocol::Resp3 => number_line(out, b'~', n),
    }
}

/// Appends a double in the fewest digits that give it back, as Redis does from 7.2: a bulk string in RESP2.
pub fn double(out: &mut Vec<u8>, n: f64, protocol: Protocol) {
    let text = match n {
        _ if n.is_nan() => "nan".to_owned(),
        _ if n.is_infinite() => if n > 0.0 { "inf" } else { "-inf" }.to_owned(),
        _ if n == 0.0 || (1e-5..1e17).contains(&n.abs()) => n.to_string(),
        _ => format!("{n:e}"),
    };
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => text_line(out, b',', text.as_bytes()),
    }
}

/// Appends a boolean: 0 or 1 in RESP2.
pub fn boolean(out: &mut Vec<u8>, value: bool, protocol: Protocol) {
    out.extend_from_slice(match (protocol, value) {
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
    });
}

/// Appends a verbatim string of format `txt`: a bulk string in RESP2.
pub fn verbatim_txt(out: &mut Vec<u8>, body: &[u8], protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => bulk(out, body),
        Protocol::Resp3 => {
            number_line(out, b'=', body.len().saturating_add(4));
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a request: an array of bulk strings.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    array_header(out, args.len());
    args.iter().for_each(|arg| bulk(out, arg));
}

/// Appends the type, the number and CRLF.
#[inline]
fn number_line(out: &mut Vec<u8>, kind: u8, n: impl itoa::Integer) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the type, the text, which may not break the line, and CRLF.
fn text_line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"kept ".to_vec();
        write(&mut out);
        let text = String::from_utf8(out).expect("the tests write text");
        text.strip_prefix("kept ").expect("writers append").to_owned()
    }

    #[test]
    fn lines() {
        assert_eq!(written(|out| array_header(out, 12)), "*12\r\n");
        assert_eq!(written(|out| bulk(out, b"")), "$0\r\n\r\n");
        assert_eq!(written(|out| bulk(out, b"a\r\nb")), "$4\r\na\r\nb\r\n");
        assert_eq!(written(|out| integer(out, i64::MIN)), ":-9223372036854775808\r\n");
        assert_eq!(written(|out| simple(out, "OK")), "+OK\r\n");
        assert_eq!(written(|out| error(out, "ERR a\r\nb")), "-ERR a  b\r\n");
        assert_eq!(written(|out| command(out, &[b"GET", b"k"])), "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }

    #[test]
    fn both_protocols() {
        for (resp2, resp3, write) in [
            ("$-1\r\n", "_\r\n", null as fn(&mut Vec<u8>, Protocol)),
            ("*-1\r\n", "_\r\n", null_array),
            ("*4\r\n", "%2\r\n", |out, p| map_header(out, 2, p)),
            ("*2\r\n", "~2\r\n", |out, p| set_header(out, 2, p)),
            (":1\r\n", "#t\r\n", |out, p| boolean(out, true, p)),
            (":0\r\n", "#f\r\n", |out, p| boolean(out, false, p)),
            ("$2\r\nab\r\n", "=6\r\ntxt:ab\r\n", |out, p| verbatim_txt(out, b"ab", p)),
            ("$3\r\n3.1\r\n", ",3.1\r\n", |out, p| double(out, 3.1, p)),
        ] {
            assert_eq!(written(|out| write(out, Protocol::Resp2)), resp2);
            assert_eq!(written(|out| write(out, Protocol::Resp3)), resp3);
        }
    }

    #[test]
    fn doubles() {
        for (number, text) in [
            (0.0, "0"),
            (-2.0, "-2"),
            (1e300, "1e300"),
            (-1.5e-9, "-1.5e-9"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(written(|out| double(out, number, Protocol::Resp3)), format!(",{text}\r\n"));
        }
    }
}
