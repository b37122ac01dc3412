//! A request that waits for something that may never come: BLPOP, XREAD BLOCK, WAIT.

use std::time::Instant;

/// What is known of a blocked client's request.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// When it is answered with nothing; never if none.
    pub deadline: Option<Instant>,
}
