//! The one stream type and the one place where a connection is opened or taken.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// A connection, whatever carries it.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Begins to connect to a node; the socket becomes writable when it is connected.
    ///
    /// # Errors
    /// The system refuses at once.
    pub fn connect(address: SocketAddr, keepalive: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        set_keepalive(&SockRef::from(&stream), keepalive)?;
        Ok(Self::Tcp(stream))
    }

    /// Whether a connection that was begun stands.
    ///
    /// # Errors
    /// It was refused or broke.
    pub fn is_connected(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(stream) => {
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                match stream.peer_addr() {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Self::Unix(_) => Ok(true),
        }
    }

    /// The socket's number in this process.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Our address.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// As `read`; `WouldBlock` when nothing is.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    /// Writes what fits.
    ///
    /// # Errors
    /// As `write`; `WouldBlock` when nothing fits.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    /// Registers for edges of both directions.
    ///
    /// # Errors
    /// As the system says.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, both),
            Self::Unix(stream) => stream.register(registry, token, both),
        }
    }

    /// Takes it out of a registry, so that it can be registered in another.
    ///
    /// # Errors
    /// As the system says.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }

    /// Closes it so that what was written is delivered: without this, unread input would make the kernel throw
    /// the last reply away.
    pub fn finish(&mut self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
    }
}

/// A client that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Its connection.
    pub stream: Stream,
    /// Its address; none for a Unix socket.
    pub peer: Option<SocketAddr>,
}

/// Where clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Binds to a TCP address. What is set here, accepted connections have too (tcp(7), "Socket options").
    ///
    /// # Errors
    /// The address is in use, not ours, or not permitted.
    pub fn tcp(address: SocketAddr, backlog: u32, keepalive: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        set_keepalive(&SockRef::from(&socket), keepalive)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Self::Tcp(TcpListener::from_std(socket.into())))
    }

    /// Binds to a path, as `unixsocket` in redis.conf: what was there is replaced.
    ///
    /// # Errors
    /// The path cannot be made, or its permissions not set.
    pub fn unix(path: &Path, permissions: Option<u32>) -> io::Result<Self> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        if let Some(permissions) = permissions {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(permissions))?;
        }
        Ok(Self::Unix(listener))
    }

    /// Changes `tcp-keepalive` for connections that are accepted from now on.
    ///
    /// # Errors
    /// As the system says.
    pub fn set_keepalive(&self, keepalive: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(listener) if keepalive.is_zero() => SockRef::from(listener).set_keepalive(false),
            Self::Tcp(listener) => set_keepalive(&SockRef::from(listener), keepalive),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Our address.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Takes the next client.
    ///
    /// # Errors
    /// As `accept`; `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok(Accepted { stream: Stream::Tcp(stream), peer: Some(peer) })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok(Accepted { stream: Stream::Unix(stream), peer: None })
            }
        }
    }

    /// Registers for new clients.
    ///
    /// # Errors
    /// As the system says.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Self::Unix(listener) => listener.register(registry, token, Interest::READABLE),
        }
    }
}

/// As `tcp-keepalive` in redis.conf: the first probe after so long, three more at a third of it.
fn set_keepalive(socket: &SockRef<'_>, keepalive: Duration) -> io::Result<()> {
    if keepalive.is_zero() {
        return Ok(());
    }
    let interval = (keepalive / 3).max(Duration::from_secs(1));
    let settings = TcpKeepalive::new().with_time(keepalive).with_interval(interval).with_retries(3);
    socket.set_tcp_keepalive(&settings)
}
