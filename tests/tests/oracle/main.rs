//! Portico against a standalone Redis, which is what it has to be taken for.

mod command_table;
mod dialogues;
mod differential;
mod info_fields;
mod server_names;
