//! Portico, one Redis endpoint in front of a Redis Cluster.
//!
//! The layers, each of which imports only what stands above it in this list; ARCHITECTURE.md has the picture.

pub mod config;

pub mod sandbox;

pub mod logging;

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

pub mod worker;

pub mod serve;

pub mod cli;
