//! Faults under load: slots move, masters fail over, die, stop, join and leave, while clients check what they are told.

mod blocking;
mod failover;
mod handover;
mod hands;
mod kill;
mod pause;
mod pubsub;
mod reshard;
mod scale;
mod scan;
mod scripts;
mod stops;
mod tracking;
mod transactions;
mod waiting;
mod watch;
mod workers;
