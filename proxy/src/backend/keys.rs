//! Names of connections within a worker.

slotmap::new_key_type! {
    /// Names a client within its worker; a reused place gets a new key.
    pub struct ClientKey;
    /// Names a connection to a node within its worker; a reused place gets a new key.
    pub struct LinkKey;
}
