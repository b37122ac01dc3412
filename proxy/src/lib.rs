//! Portico, one Redis endpoint in front of a Redis Cluster.
//!
//! The layers, each of which imports only what stands above it in this list; ARCHITECTURE.md has the picture.

pub mod config;

#[expect(clippy::disallowed_methods, reason = "it waits for servers to start")]
pub mod sandbox;

pub mod logging;

pub mod descriptors;
#[expect(clippy::disallowed_methods, reason = "a thread of its own sleeps between two looks")]
pub mod memory;
pub mod signals;

pub mod command;

pub mod scripts;

pub mod plan;

pub mod backend;

pub mod pubsub;
pub mod session;

pub mod stats;

pub mod topology;

pub mod local;

pub mod engine;

#[expect(clippy::disallowed_methods, reason = "the shell tells the engine what time it is")]
pub mod worker;

#[expect(clippy::disallowed_methods, reason = "the process begins here")]
pub mod serve;

#[expect(clippy::disallowed_methods, reason = "`portico sandbox` waits for what it starts")]
pub mod cli;
