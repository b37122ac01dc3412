//! Clients' bytes: cuts them into requests and has each dispatched, until one has to wait.

use std::sync::Arc;

use portico_resp::{Limits, RequestScanner, Scan, encode};

use super::Engine;
use super::quiet::QUIET;
use super::send::Flow;
use crate::backend::ClientKey;
use crate::session::{ClientFlags, Stall, Work};

impl Engine {
    /// What one client's requests may take of a turn: with the last of them about a millisecond.
    const MOST_SPENT: usize = 1000;

    /// Bytes from a client. Returns whether it may be read on.
    #[inline]
    pub fn client_input(&mut self, key: ClientKey, bytes: &[u8]) -> bool {
        const NOT_NOW: ClientFlags =
            ClientFlags::STALLED.with(ClientFlags::UPLOADING).with(ClientFlags::CLOSING);
        let heard = self.seconds();
        let Some(client) = self.clients.get_mut(key) else { return false };
        client.heard = heard;
        let busy = client.flags.any(NOT_NOW);
        let pool = &mut self.pool;
        let work = client.work.get_or_insert_with(|| pool.works.pop().unwrap_or_default());
        if !busy && work.input.is_empty() {
            let used = self.serve(key, bytes);
            if used < bytes.len() {
                self.keep(key, &bytes[used..]);
            }
        } else {
            if client.flags.has(ClientFlags::CLOSING) {
                return true; // what comes after QUIT or an error is of no interest
            }
            if client.flags.has(ClientFlags::UPLOADING) && !client.flags.has(ClientFlags::STALLED) {
                return self.upload_input(key, bytes);
            }
            let (stalled, read_on) = (client.flags.has(ClientFlags::STALLED), client.is_read_on());
            let kept = self.keep(key, bytes);
            if stalled || !kept {
                return read_on && kept;
            }
            self.serve_kept(key);
        }
        self.clients
            .get(key)
            .is_some_and(|client| !client.flags.has(ClientFlags::STALLED) || client.is_read_on())
    }

    /// Goes on with what was received earlier.
    pub(super) fn serve_kept(&mut self, key: ClientKey) {
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            return;
        };
        let mut input = std::mem::take(&mut work.input);
        let used = self.serve(key, input.bytes());
        input.consume(used);
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            return;
        };
        // What an upload left over is there already; then nothing is left of this.
        if work.input.is_empty() {
            work.input = input;
        }
    }

    /// Keeps what was received and cannot be served yet. Returns whether the client may send more; it is closed at the
    /// limit, as Redis closes it.
    #[inline]
    fn keep(&mut self, key: ClientKey, rest: &[u8]) -> bool {
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            return false;
        };
        work.input.add(rest);
        if work.input.len() as u64 > self.config.client_query_buffer_limit {
            self.query_too_long(key);
            return false;
        }
        true
    }

    /// Dispatches every complete request in `bytes`. Returns how many bytes are done with.
    fn serve(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            return bytes.len();
        };
        let pool = &mut self.pool;
        let mut scanner = work.scanner.take().unwrap_or_else(|| pool.scanners.pop().unwrap_or_default());
        let used = self.serve_with(key, bytes, &mut scanner);
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            scanner.reset();
            self.pool.give_scanner(scanner);
            return bytes.len();
        };
        if scanner.is_mid_request() {
            work.scanner = Some(scanner);
        } else {
            self.pool.give_scanner(scanner);
        }
        used
    }

    /// Returns how many bytes are done with.
    fn serve_with(&mut self, key: ClientKey, bytes: &[u8], scanner: &mut RequestScanner) -> usize {
        let cluster = Arc::clone(&self.cluster);
        let mut at = 0;
        let mut limits = self.limits_of(key);
        self.spent = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (len, flow) = match scanner.scan(rest, &limits) {
                Ok(Scan::Complete { len }) => {
                    (len, self.dispatch(key, &cluster, &rest[..len], scanner.args()))
                }
                Ok(Scan::Inline { .. }) if self.turn_stranger_away(key, rest) => return bytes.len(),
                Ok(Scan::Inline { len }) => (len, self.inline(key, &cluster, scanner.inline_args(), &limits)),
                Ok(Scan::Incomplete) if scanner.is_mid_inline() && self.turn_stranger_away(key, rest) => {
                    scanner.reset();
                    return bytes.len();
                }
                Ok(Scan::Incomplete) => return at,
                Ok(Scan::Large { header_len, .. }) => {
                    match self.begin_upload(key, &cluster, &rest[..header_len], scanner) {
                        Some(Flow::Done) => {
                            // The rest is the upload's.
                            at += header_len;
                            let body = &bytes[at..];
                            self.upload_input(key, body);
                            return bytes.len();
                        }
                        Some(Flow::Wait(stall)) => {
                            scanner.reset();
                            self.stall(key, stall);
                            return at;
                        }
                        Some(Flow::Close | Flow::Block) => return bytes.len(),
                        None => {
                            // Its place cannot be known before it is complete: kept like any other.
                            scanner.accept_large();
                            continue;
                        }
                    }
                }
                Err(error) => {
                    scanner.reset();
                    if self.turn_stranger_away(key, rest) {
                        return bytes.len();
                    }
                    self.counters.protocol_errors += 1;
                    self.reply_error(key, format!("ERR {error}"));
                    self.close_when_told(key);
                    return bytes.len();
                }
            };
            match flow {
                Flow::Done => {
                    at += len;
                    if let Some(client) = self.clients.get_mut(key) {
                        client.stall = None;
                        limits.authenticated = client.flags.has(ClientFlags::AUTHENTICATED);
                    }
                    if self.spent > Self::MOST_SPENT && at < bytes.len() {
                        // The others first.
                        self.stall(key, Stall::Order);
                        self.tired.push(key);
                        return at;
                    }
                }
                Flow::Wait(stall) => {
                    self.stall(key, stall);
                    return at;
                }
                Flow::Block => {
                    at += len;
                    if self.block(key) {
                        return at;
                    }
                }
                Flow::Close => return bytes.len(),
            }
        }
        at
    }

    /// An inline command (telnet): made a request like any other.
    #[cold]
    fn inline(
        &mut self,
        key: ClientKey,
        cluster: &crate::topology::Cluster,
        words: &[Vec<u8>],
        limits: &Limits,
    ) -> Flow {
        if words.is_empty() {
            return Flow::Done;
        }
        let mut request = Vec::new();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        encode::command(&mut request, &words);
        let mut scanner = RequestScanner::new();
        match scanner.scan(&request, &Limits { authenticated: true, ..*limits }) {
            Ok(Scan::Complete { .. }) => self.dispatch(key, cluster, &request, scanner.args()),
            _ => Flow::Done, // an inline command is at most 64 KB long: always a complete request
        }
    }

    #[inline]
    fn limits_of(&self, key: ClientKey) -> Limits {
        let authenticated =
            self.clients.get(key).is_some_and(|client| client.flags.has(ClientFlags::AUTHENTICATED));
        Limits { authenticated, ..self.limits }
    }

    /// The client's next request has to wait; nothing is read from it meanwhile.
    #[cold]
    pub(super) fn stall(&mut self, key: ClientKey, stall: Stall) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(key) else { return };
        let same = client.stall.is_some_and(|(before, _)| before == stall);
        if !same {
            client.stall = Some((stall, now));
        }
        client.flags.set(ClientFlags::STALLED);
        if stall == Stall::Paused {
            if !same {
                self.wait_for_pause(key);
            }
            return; // woken by its end, no sooner
        }
        if stall == Stall::Unread {
            return; // woken when it reads
        }
        if client.flags.set(ClientFlags::LISTED) {
            self.stalled.push(key);
        }
        if stall != Stall::Order {
            self.next_tick = self.next_tick.min(self.now + Self::TICK);
        }
    }

    /// Answers a client with an error of Portico's own, in its place in the order.
    #[cold]
    pub(super) fn reply_error(&mut self, key: ClientKey, text: impl AsRef<[u8]>) {
        let mut reply = Vec::new();
        encode::error(&mut reply, text);
        self.reply_now(key, &reply);
        self.counters.errors += 1;
    }

    /// Answers a client with a reply that Portico made, in its place in the order, if it wants to be answered.
    pub(super) fn reply_now(&mut self, key: ClientKey, reply: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.flags.any(QUIET) {
            client.flags.clear(ClientFlags::REPLY_SKIP); // this was the one
            return;
        }
        let pool = &mut self.pool;
        let work: &mut Work = client.work.get_or_insert_with(|| pool.works.pop().unwrap_or_default());
        work.queue.push_answered(reply, &mut work.out);
        if client.flags.set(ClientFlags::DIRTY) {
            self.dirty_clients.push(key);
        }
        if work.reply_bytes() as u64 > self.output_watch {
            self.watch_output(key);
        }
    }

    /// Closes a client as soon as it was told everything.
    pub(super) fn close_when_told(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.flags.set(ClientFlags::CLOSING);
            self.mark_client(key);
        }
    }

    #[cold]
    pub(super) fn query_too_long(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        let limit = self.config.client_query_buffer_limit;
        tracing::warn!(id = client.id, limit, "closing client that reached max query buffer length");
        self.counters.query_limit_disconnections += 1;
        self.close_client(key);
    }
}
