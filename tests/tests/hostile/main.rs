//! What is wrong from outside: bad input, bad settings, signals, clients that do not read.

mod input;
mod memory;
mod settings;
mod stop;
mod strangers;
