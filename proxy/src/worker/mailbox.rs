//! What workers tell each other: new clients, questions to all, the end.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;

use super::Handed;
use crate::backend::ClientKey;
use crate::engine::{Gather, Note};

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// Serve this client.
    Serve(Box<Handed>),
    /// A question of one worker to all.
    Gather(Gather),
    /// A worker's answer to [`Message::Gather`].
    Gathered {
        /// The client that asked.
        client: ClientKey,
        /// Its request.
        seq: u32,
        /// Who answers.
        worker: usize,
        /// The answer.
        answer: Vec<u8>,
    },
    /// What another worker has to say about a client of this one.
    Note(Note),
    /// The map changed: look at it.
    Topology,
    /// Accept nobody, answer what was received, then end.
    Stop,
}

/// The receiving end.
pub struct Mailbox {
    messages: Receiver<Message>,
}

/// The sending end: wakes the worker.
#[derive(Clone)]
pub struct Post {
    messages: Sender<Message>,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// A mailbox whose worker is woken by `waker`.
    #[must_use]
    pub fn new(waker: Arc<Waker>) -> (Self, Post) {
        let (sender, receiver) = channel();
        (Self { messages: receiver }, Post { messages: sender, waker })
    }

    /// The next message, if there is one.
    pub fn next(&self) -> Option<Message> {
        self.messages.try_recv().ok()
    }
}

impl Post {
    /// Sends a message; a worker that has ended gets none.
    pub fn send(&self, message: Message) {
        self.reaches(message);
    }

    /// As [`Post::send`]. Returns whether the worker has not ended.
    pub fn reaches(&self, message: Message) -> bool {
        self.messages.send(message).is_ok() && self.waker.wake().is_ok()
    }
}
