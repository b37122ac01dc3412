//! Programs of others, each set up for one standalone Redis.

mod apps;
mod clients;
mod redis_benchmark;
