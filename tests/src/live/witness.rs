//! A replica's word that it has what its master acknowledged: such writes survive the master.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::Result;
use portico::sandbox::Connection;
use portico_slots::Address;

use super::model::{Key, Losses};

/// How often a replica is asked.
const PERIOD: Duration = Duration::from_millis(400);

/// Asks a master's replica, now and then.
#[derive(Debug)]
pub struct Witness {
    /// None: the master is gone.
    connection: Option<Connection>,
    slots: RangeInclusive<u16>,
    key: String,
    asked_at: Instant,
}

impl Witness {
    /// For this master and its slots; the hash tag is of one of them.
    ///
    /// # Errors
    /// The master does not accept a connection.
    pub fn new(master: &Address, slots: RangeInclusive<u16>, tag: &str) -> Result<Self> {
        let connection = Some(Connection::open(master, Duration::from_millis(500))?);
        Ok(Witness { connection, slots, key: format!("{{{tag}}}confirm"), asked_at: Instant::now() })
    }

    /// Whether it speaks of this key.
    #[must_use]
    pub fn speaks_of(&self, key: &Key) -> bool {
        self.slots.contains(&key.slot)
    }

    /// Whether the replica was asked now, and has all that was acknowledged so far.
    pub fn confirms(&mut self, losses: &Losses) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        // Whoever waited for a dead node here would not notice that Portico does not.
        if self.asked_at.elapsed() < PERIOD || losses.allowed(*self.slots.start(), Some(self.asked_at)) {
            return false;
        }
        self.asked_at = Instant::now();
        // A write of this connection's own: WAIT waits for what its connection wrote.
        let reply =
            connection.ask(&["SET", &self.key, "1"]).and_then(|_| connection.ask(&["WAIT", "1", "400"]));
        if reply.is_err() {
            self.connection = None;
        }
        reply.is_ok_and(|count| count != "0")
    }
}
