//! A Redis server of one's own, to be asked about its commands.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::BytesFrame;
use tempfile::TempDir;

/// A server on a socket in a directory of its own: no port to fight for. Stopped when dropped.
pub(crate) struct Server {
    process: Child,
    /// The connection; nothing is on it between a reply and the next request.
    pub(crate) stream: UnixStream,
    received: BytesMut,
    _directory: TempDir,
}

impl Server {
    /// Starts `program` and waits until it takes connections.
    pub(crate) fn start(program: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("redis.sock");
        let mut process = Command::new(program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                return Ok(Self { process, stream, received: BytesMut::new(), _directory: directory });
            }
            if let Some(status) = process.try_wait()? {
                bail!("{program} ended at once: {status}");
            }
            if Instant::now() > deadline {
                process.kill()?;
                process.wait()?;
                bail!("{program} takes no connections");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends one command and returns its reply.
    pub(crate) fn call<B: AsRef<[u8]>>(&mut self, args: &[B]) -> Result<BytesFrame> {
        self.send(args)?;
        let mut chunk = [0; 65536];
        loop {
            if let Some((frame, ..)) = decode_bytes_mut(&mut self.received)? {
                return Ok(frame);
            }
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            self.received.extend_from_slice(&chunk[..read]);
        }
    }

    /// Sends one command, whose reply is read from [`Server::stream`].
    pub(crate) fn send<B: AsRef<[u8]>>(&mut self, args: &[B]) -> Result<()> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            let arg = arg.as_ref();
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        Ok(self.stream.write_all(&request)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
