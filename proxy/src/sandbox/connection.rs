//! A blocking RESP2 connection for one command at a time: simple, not fast.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::BytesMut;
use portico_slots::Address;
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::BytesFrame;

/// A connection to one server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

impl Connection {
    /// Connects to the first of the host's addresses that answers; the time limit holds for each of them, and for
    /// each read and write later.
    ///
    /// # Errors
    /// The name is unknown, or nobody answers in time.
    pub fn open(address: &Address, timeout: Duration) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in (address.host.as_str(), address.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(timeout))?;
                    stream.set_write_timeout(Some(timeout))?;
                    return Ok(Connection { stream, input: BytesMut::new() });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Sends a command and waits for its reply; an error reply is a reply.
    ///
    /// # Errors
    /// The connection failed or timed out, or what came is not RESP2.
    pub fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> io::Result<BytesFrame> {
        let mut output = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            let argument = argument.as_ref();
            output.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            output.extend_from_slice(argument);
            output.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&output)?;
        self.receive()
    }

    /// Waits for a reply, or for a message of a subscription.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn receive(&mut self) -> io::Result<BytesFrame> {
        loop {
            let decoded = decode_bytes_mut(&mut self.input);
            let decoded =
                decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if let Some((frame, ..)) = decoded {
                return Ok(frame);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "connection closed by the server",
                    ));
                }
                length => self.input.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// Sends a command whose reply is text.
    ///
    /// # Errors
    /// As [`Connection::call`]; also an error reply, in its own words, and one that is not text.
    pub fn ask<A: AsRef<[u8]>>(&mut self, command: &[A]) -> io::Result<String> {
        match self.call(command)? {
            BytesFrame::Error(error) => Err(io::Error::other(error.to_string())),
            frame => text(&frame).ok_or_else(|| io::Error::other(format!("unexpected reply {frame:?}"))),
        }
    }
}

/// What a string, an integer or an error reply says.
#[must_use]
pub fn text(frame: &BytesFrame) -> Option<String> {
    match frame {
        BytesFrame::SimpleString(bytes) | BytesFrame::BulkString(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        BytesFrame::Error(error) => Some(error.to_string()),
        BytesFrame::Integer(number) => Some(number.to_string()),
        BytesFrame::Array(_) | BytesFrame::Null => None,
    }
}
