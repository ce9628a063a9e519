//! In place of `tls` in a binary without TLS.

use runtime::fault::Code;

/// There is none.
pub(super) enum Server {}

impl Server {
    /// Never.
    pub(super) fn new(_: &[u8], _: &[u8]) -> Result<Self, Code> {
        Err(Code::Internal)
    }
}

/// Nothing to prove who one is.
pub(super) fn identity(_: &str) -> Result<(Vec<u8>, Vec<u8>), Code> {
    Ok((Vec::new(), Vec::new()))
}
