//! SCAN's reply: the node's keys under Portico's cursor.

use portico_resp::{Items, bulk_reply, encode};

use crate::plan::scan_cursor::ScanCursor;

/// Rewrites the reply of the node at `cursor`; `nodes` masters are walked and `tag` names the map in force now.
pub fn scan_reply(reply: &[u8], cursor: ScanCursor, nodes: usize, tag: u16, out: &mut Vec<u8>) {
    let mut items = Items::new(reply).into_iter().flatten();
    let next = items
        .next()
        .and_then(bulk_reply)
        .and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
    let (Some(next), Some(keys)) = (next, items.next()) else {
        return encode::error(out, "ERR SCAN: the node's reply cannot be read");
    };
    match cursor.after(next, nodes, tag) {
        Ok(told) => {
            encode::array_header(out, 2);
            encode::bulk(out, told.to_string().as_bytes());
            out.extend_from_slice(keys);
        }
        Err(error) => encode::error(out, error.to_string()),
    }
}
