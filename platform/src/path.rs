//! Paths made of names, without allocation.

use core::{ffi::CStr, fmt::Write as _};

/// Longest path that we make; those of the kernel's sockets are the shortest bound, with 108.
const PATH_MAX: usize = 256;

/// Room for one path.
pub struct Path {
    bytes: [u8; PATH_MAX],
    used: usize,
}

impl Path {
    /// Empty.
    pub const fn new() -> Self {
        Self { bytes: [0; PATH_MAX], used: 0 }
    }

    /// Makes a path. One that does not fit is the empty path, which no system call accepts.
    pub fn set(&mut self, path: core::fmt::Arguments<'_>) -> &CStr {
        self.used = 0;
        if self.write_fmt(path).is_err() {
            self.used = 0;
        }
        self.bytes[self.used] = 0;
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

impl Default for Path {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Write for Path {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.used + text.len();
        if end >= PATH_MAX {
            return Err(core::fmt::Error);
        }
        self.bytes[self.used..end].copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_fit_is_none() {
        let mut path = Path::new();
        assert_eq!(path.set(format_args!("/a/{}", 1)), c"/a/1");
        assert_eq!(path.set(format_args!("{}", "x".repeat(PATH_MAX))), c"");
        assert_eq!(path.set(format_args!("/b")), c"/b");
    }
}
