//! Bytes in memory as a region that is only looked at.
//!
//! Invariants: nothing is read past the end, and nothing is written: whoever tries has made a mistake, and panics, because an
//! error could be dropped.

use runtime::{fault::Code, port::Region};

/// Bytes to look at.
pub struct Frozen<T>(pub T);

impl<T: AsRef<[u8]>> Region for Frozen<T> {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        let start = usize::try_from(offset).map_err(|_| Code::StorageIo)?;
        let bytes = self.0.as_ref().get(start..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(Code::StorageIo)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        panic!("{} bytes at {offset}: only to be looked at, and somebody writes", data.len());
    }

    fn sync(&mut self) -> Result<(), Code> {
        panic!("only to be looked at, and somebody syncs");
    }

    fn drop_cache(&mut self) {}

    fn length(&mut self) -> Option<u64> {
        Some(self.0.as_ref().len() as u64)
    }
}
