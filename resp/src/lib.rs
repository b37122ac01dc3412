//! The wire: RESP request and reply scanning.
