//! What a request costs, held to the record in `tests/cost/`.

mod instructions;
mod system_calls;
