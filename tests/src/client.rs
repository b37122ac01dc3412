//! A raw client: sends bytes, takes replies as the bytes that came.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portico_resp::ReplyScanner;

use crate::reply::show;
use crate::words;

/// Longest that a reply or a write may take, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bytes of one request.
#[must_use]
pub fn encode<A: AsRef<[u8]>>(command: &[A]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        let argument = argument.as_ref();
        request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        request.extend_from_slice(argument);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// The bytes of one request, written as in redis-cli.
///
/// # Panics
/// Its quotes are not closed.
#[must_use]
pub fn encode_line(line: &str) -> Vec<u8> {
    encode(&words(line).expect("the test's own line"))
}

/// A blocking connection to Portico or to Redis.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where the next reply begins in `input`.
    begin: usize,
    scanner: ReplyScanner,
}

impl Client {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, input: Vec::new(), begin: 0, scanner: ReplyScanner::default() })
    }

    /// How long a read or a write may take from now on.
    ///
    /// # Errors
    /// The time is zero.
    pub fn set_patience(&mut self, time: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(time))?;
        Ok(self.stream.set_write_timeout(Some(time))?)
    }

    /// The socket; what was read from it already is not there.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A second handle of the socket, for a thread that only writes.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn writer(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is closed, or nothing is taken for too long.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending")
    }

    /// No more requests will come; replies may.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn end_requests(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Sends one command, without waiting for the reply.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn request<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<()> {
        self.send(&encode(command))
    }

    /// The bytes of exactly one reply (or push).
    ///
    /// # Errors
    /// The connection is closed, nothing comes for too long, or what comes is not RESP.
    pub fn reply(&mut self) -> Result<Vec<u8>> {
        loop {
            let scanned = self.scanner.scan(&self.input[self.begin..]);
            let end = match scanned {
                Ok(end) => end,
                Err(error) => bail!("{error}: {}", show(&self.input[self.begin..])),
            };
            if let Some(length) = end {
                let reply = self.input[self.begin..self.begin + length].to_vec();
                self.begin += length;
                if self.begin == self.input.len() {
                    self.input.clear();
                    self.begin = 0;
                }
                return Ok(reply);
            }
            if self.begin > 0 {
                self.input.drain(..self.begin);
                self.begin = 0;
            }
            ensure!(self.read()? > 0, "closed before a reply, after {:?}", show(&self.input));
        }
    }

    /// The next reply (or push), if it comes within this time.
    ///
    /// # Errors
    /// As [`Client::reply`], but for that nothing comes.
    pub fn within(&mut self, limit: Duration) -> Result<Option<Vec<u8>>> {
        let patience = self.stream.read_timeout()?;
        self.stream.set_read_timeout(Some(limit))?;
        let reply = self.reply();
        self.stream.set_read_timeout(patience)?;
        match reply {
            Err(error) if timed_out(&error) => Ok(None),
            reply => reply.map(Some),
        }
    }

    fn read(&mut self) -> Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let length = self.stream.read(&mut chunk).context("waiting for a reply")?;
        self.input.extend_from_slice(&chunk[..length]);
        Ok(length)
    }

    /// So many replies.
    ///
    /// # Errors
    /// As [`Client::reply`].
    pub fn replies(&mut self, count: usize) -> Result<Vec<Vec<u8>>> {
        (0..count).map(|at| self.reply().with_context(|| format!("reply {at} of {count}"))).collect()
    }

    /// One command and its reply's bytes.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::reply`].
    pub fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<Vec<u8>> {
        self.request(command)?;
        self.reply().with_context(|| {
            let words: Vec<_> = command.iter().take(8).map(|word| show(word.as_ref())).collect();
            words.join(" ")
        })
    }

    /// One command, written as in redis-cli, and its reply's bytes.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn line(&mut self, line: &str) -> Result<Vec<u8>> {
        self.call(&words(line)?)
    }

    /// One command, written as in redis-cli, and its reply, legible.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn text(&mut self, line: &str) -> Result<String> {
        self.line(line).map(|reply| show(&reply))
    }

    /// Checks one command's reply, both written legibly: `client.expect("GET a", "$1\\r\\nx\\r\\n")`.
    ///
    /// # Errors
    /// As [`Client::call`]; also another reply.
    pub fn expect(&mut self, line: &str, reply: &str) -> Result<()> {
        let got = self.line(line)?;
        ensure!(got == reply.as_bytes(), "{line}: {} instead of {}", show(&got), show(reply.as_bytes()));
        Ok(())
    }

    /// Asks for RESP3.
    ///
    /// # Errors
    /// As [`Client::call`], or it is refused.
    pub fn hello3(&mut self) -> Result<()> {
        let reply = self.call(&["HELLO", "3"])?;
        ensure!(reply.starts_with(b"%"), "HELLO 3: {}", show(&reply));
        Ok(())
    }

    /// All that comes until the other side closes.
    ///
    /// # Errors
    /// It does not close in time. A reset counts as closed.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        let deadline = Instant::now() + self.stream.read_timeout()?.unwrap_or(PATIENCE);
        loop {
            ensure!(Instant::now() < deadline, "not closed");
            match self.read() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                    Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
                    _ => return Err(error).context(format!("not closed; it said {}", show(&self.input))),
                },
            }
        }
        self.scanner.reset();
        let begin = std::mem::take(&mut self.begin);
        Ok(std::mem::take(&mut self.input).split_off(begin))
    }

    /// Whether the other side has closed (waits a moment for it).
    #[must_use]
    pub fn is_closed(&mut self) -> bool {
        let old = self.stream.read_timeout().ok().flatten();
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(300)));
        let closed = match self.read() {
            Ok(length) => length == 0,
            Err(error) => !timed_out(&error),
        };
        let _ = self.stream.set_read_timeout(old);
        closed
    }
}

fn timed_out(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}
