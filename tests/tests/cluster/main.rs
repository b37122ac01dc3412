//! What a dialogue with one Redis cannot show: several nodes and workers, values that stream, maps that change.

mod client_commands;
mod cross_slot;
mod half_closed;
mod info;
mod large_values;
mod outages;
mod pipelines;
mod pubsub;
mod rights;
mod sandbox;
mod scripts;
mod settings;
mod topology;
mod tracking;
mod uploads;
