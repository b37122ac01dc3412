//! The functions that the nodes have, as one of them listed them, and what their libraries call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame as _};

use super::Reading;

/// A function at the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// What its library calls.
    pub library: Arc<Reading>,
    /// It is flagged `no-writes`.
    pub no_writes: bool,
}

/// The functions by name in lower case, and whether that may have changed since they were listed.
#[derive(Debug, Default)]
pub struct Functions {
    known: ArcSwap<HashMap<Box<[u8]>, Function>>,
    /// Moves when they may have changed.
    doubts: AtomicU64,
    /// They did change, through Portico, and were not listed since.
    changed: AtomicBool,
    /// The doubts that the last list was asked after.
    settled: AtomicU64,
}

impl Functions {
    /// They may have changed: they have to be listed again before the next is called.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
    }

    /// They have changed.
    pub fn change(&self) {
        self.changed.store(true, Ordering::SeqCst);
        self.doubt();
    }

    /// Whether they have changed and were not listed since.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        self.changed.load(Ordering::SeqCst)
    }

    /// What to say to [`Functions::settle`] after listing them; none if nobody doubts what is known.
    #[must_use]
    pub fn doubts(&self) -> Option<u64> {
        let doubts = self.doubts.load(Ordering::SeqCst);
        (doubts != self.settled.load(Ordering::SeqCst)).then_some(doubts)
    }

    /// They were listed after `doubts`. None: no node lists them, and nothing is known of them.
    pub fn settle(&self, doubts: u64, functions: Option<HashMap<Box<[u8]>, Function>>) {
        self.known.store(Arc::new(functions.unwrap_or_default()));
        self.settled.store(doubts, Ordering::SeqCst);
        if self.doubts.load(Ordering::SeqCst) == doubts {
            self.changed.store(false, Ordering::SeqCst);
        }
    }

    /// The function of this name, as far as is known. Redis does not tell the case of their names apart.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Function> {
        self.known.load().get(&*name.to_ascii_lowercase()).cloned()
    }
}

/// Reads the reply to `FUNCTION LIST WITHCODE` of Redis 7.0 and later: the functions by name in lower case.
#[must_use]
pub fn parse_function_list(frame: &BytesFrame) -> Option<HashMap<Box<[u8]>, Function>> {
    let BytesFrame::Array(libraries) = frame else { return None };
    let mut found = HashMap::new();
    for library in libraries {
        let Some(BytesFrame::Array(functions)) = field(library, "functions") else { continue };
        let code = field(library, "library_code").and_then(BytesFrame::as_bytes).unwrap_or_default();
        let reading = Arc::new(Reading::of(code, true));
        for function in functions {
            let Some(name) = field(function, "name").and_then(BytesFrame::as_bytes) else { continue };
            let flags = match field(function, "flags") {
                Some(BytesFrame::Array(flags)) => flags.as_slice(),
                _ => &[],
            };
            let no_writes = flags.iter().any(|flag| flag.as_str() == Some("no-writes"));
            found.insert(
                name.to_ascii_lowercase().into(),
                Function { library: Arc::clone(&reading), no_writes },
            );
        }
    }
    Some(found)
}

/// The value of `name` in a map, which RESP2 has as a flat array.
fn field<'f>(map: &'f BytesFrame, name: &str) -> Option<&'f BytesFrame> {
    let BytesFrame::Array(items) = map else { return None };
    items.chunks_exact(2).find(|pair| pair[0].as_str() == Some(name)).map(|pair| &pair[1])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redis_protocol::resp2::decode::decode_bytes;

    use super::*;

    #[test]
    fn a_list_tells_what_each_function_may_do() {
        let code =
            "#!lua name=l\nredis.register_function('f', function(keys, args) return redis.call(args[1]) end)";
        let function = |name: &str, flags: &str| {
            format!(
                "*6\r\n$4\r\nname\r\n${}\r\n{name}\r\n$11\r\ndescription\r\n$-1\r\n$5\r\nflags\r\n{flags}",
                name.len()
            )
        };
        let reply = format!(
            "*1\r\n*8\r\n$12\r\nlibrary_name\r\n$1\r\nl\r\n$6\r\nengine\r\n$3\r\nLUA\r\n$9\r\nfunctions\r\n*2\r\n{}{}\
             $12\r\nlibrary_code\r\n${}\r\n{code}\r\n",
            function("f", "*0\r\n"),
            function("g", "*1\r\n+no-writes\r\n"),
            code.len()
        );
        let (frame, _) = decode_bytes(&Bytes::from(reply)).expect("RESP").expect("a whole frame");
        let functions = parse_function_list(&frame).expect("a list");
        let find = |name: &str| functions.get(name.as_bytes()).expect("listed");
        assert!(find("g").no_writes && !find("f").no_writes);
        assert_eq!(find("f").library.calls.len(), 1);
        assert_eq!(find("f").library.unread, None);
    }

    #[test]
    fn a_function_is_found_however_its_name_is_written() {
        let reply = "*1\r\n*2\r\n$9\r\nfunctions\r\n*1\r\n*2\r\n$4\r\nname\r\n$5\r\nReads\r\n";
        let (frame, _) = decode_bytes(&Bytes::from(reply)).expect("RESP").expect("a whole frame");
        let functions = Functions::default();
        functions.settle(0, parse_function_list(&frame));
        assert!(["Reads", "reads", "READS"].iter().all(|name| functions.find(name.as_bytes()).is_some()));
        assert_eq!(functions.find(b"read"), None);
    }

    #[test]
    fn what_changed_is_listed_again() {
        let functions = Functions::default();
        assert_eq!(functions.doubts(), None);
        functions.doubt();
        let doubts = functions.doubts().expect("somebody doubts");
        functions.doubt();
        functions.settle(doubts, None);
        assert_eq!(functions.doubts(), Some(doubts + 1), "it changed while it was listed");
        functions.change();
        functions.settle(doubts, None);
        assert!(functions.have_changed(), "so it is listed once more, at once");
        functions.settle(functions.doubts().unwrap_or_default(), None);
        assert!(!functions.have_changed());
    }
}
