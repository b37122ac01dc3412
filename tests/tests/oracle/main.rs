//! Portico against a standalone Redis, which is what it has to be taken for.

mod command_table;
mod dialogues;
mod differential;
mod info_fields;
mod modules;
mod other_servers;
mod server_names;
