//! The standard output: results go there, and a result that could not be written is a failure of the verb.
//!
//! A reader that went away (`pvr log | head`) is none: nobody wants the rest. Everything else, a full disk above all, is
//! remembered here and reported when the verb is done, so that what it had to do is done in any case.

use crate::error::{Error, Result};
use std::{
    io::{self, ErrorKind, Write},
    sync::{Mutex, PoisonError},
};

/// The first trouble there was.
static TROUBLE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line.
pub(super) fn print(text: &str) {
    write(format!("{text}\n").as_bytes());
}

/// Writes bytes.
pub(super) fn write(bytes: &[u8]) {
    let mut output = io::stdout().lock();
    if let Err(e) = output.write_all(bytes).and_then(|()| output.flush()) {
        TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
    }
}

/// Whether everything that was printed arrived, or nobody wanted it.
pub(super) fn finish() -> Result<()> {
    match TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::host(format!("cannot write the standard output: {e}"))
                .hint("the verb did its work; only what it printed is incomplete"))
        }
        _ => Ok(()),
    }
}

/// The standard output for content, which knows whether its reader went away.
#[derive(Default)]
pub(super) struct Output {
    gone: bool,
}

impl Output {
    /// Whether nobody reads it any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    fn look<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        self.gone |= done.as_ref().is_err_and(|e| e.kind() == ErrorKind::BrokenPipe);
        done
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.look(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.look(io::stdout().flush())
    }
}
