//! A TCP port of this machine that no other sandbox takes, in whichever process.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

/// Below the ports that the kernel gives to outgoing connections (from 32768).
const RANGE: Range<u16> = 10_000..32_000;

const ATTEMPTS: usize = 1_000;

/// A loopback TCP port, reserved until this is dropped.
///
/// What reserves it is the UDP port of the same number, which Redis does not use: taking it is atomic between all
/// processes, and the kernel gives it back however a process ends.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UdpSocket,
}

impl Port {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// None of a thousand ports is free.
    pub fn reserve() -> io::Result<Self> {
        // Random, so that parallel tests rarely try the same one.
        let span = u64::from(RANGE.end - RANGE.start);
        let random = RandomState::new().build_hasher().finish() % span;
        let start = u16::try_from(random).unwrap_or_default();
        for step in 0..ATTEMPTS {
            let offset = (usize::from(start) + step * 7) % usize::from(RANGE.end - RANGE.start);
            let number = RANGE.start + u16::try_from(offset).unwrap_or_default();
            let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            // All addresses, to notice one who listens on any of them.
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Ok(Port { number, _reservation: reservation });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port"))
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
