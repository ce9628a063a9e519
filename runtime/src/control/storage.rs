//! What the status says of the file systems: whether they are there, what had to be done for that, and what is next.
//!
//! A device without them runs no container, takes no update and keeps nothing; it answers on its console and its control
//! socket, so that somebody is told.

use crate::{fault::Code, json::Writer};
use core::fmt;

/// The file systems as this boot found them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// Mounted, and nothing is known to be wrong with them.
    Sound,
    /// Mounted. What was found wrong, and what was done about it.
    Mounted(Code),
    /// Not both are mounted, and why: the rescue.
    Missing(Code),
}

impl Storage {
    /// Why there is none.
    pub fn missing(self) -> Option<Code> {
        if let Self::Missing(code) = self { Some(code) } else { None }
    }

    /// Writes its member into the status.
    pub(super) fn write(self, out: &mut Writer<'_>) -> fmt::Result {
        out.key("storage")?;
        out.begin_object()?;
        out.key("mounted")?;
        out.bool(self.missing().is_none())?;
        if let Self::Mounted(code) | Self::Missing(code) = self {
            out.key("code")?;
            out.display(&code)?;
            out.text_member("reason", code.text())?;
            out.text_member("next", next(code))?;
        }
        out.end_object()
    }
}

/// What a person does about it.
fn next(code: Code) -> &'static str {
    match code {
        Code::EnvUnsupported => "set switchback.board in the device policy to a board that this release knows",
        Code::PartitionMissing => "check the medium and its partition table; if they are gone, write the image anew",
        Code::Unmountable => {
            "read the kernel's log; repair the file system elsewhere with e2fsck -fy, or write the image anew; \
             an image with e2fsck (pvr image bsp --e2fsck) repairs by itself what can be repaired"
        }
        Code::Repaired => "nothing; if it comes again without power cuts, the medium is failing",
        Code::SuperblockMended => {
            "nothing; if it comes again without power cuts, save what is needed: the medium is failing"
        }
        Code::RepairedWithLoss => {
            "look at what containers keep: some of it may be gone or in lost+found; post the revision again if one is damaged"
        }
        _ => {
            "save what is needed; then repair the file system with e2fsck, or make the image with one (pvr image bsp --e2fsck)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_storage_says_why_and_what_is_next() {
        let said = |storage: Storage| {
            let mut text = std::string::String::new();
            let mut out = Writer::new(&mut text);
            out.begin_object().and_then(|()| storage.write(&mut out)).and_then(|()| out.end_object()).unwrap();
            text
        };
        assert_eq!(said(Storage::Sound), r#"{"storage":{"mounted":true}}"#);
        let codes = [
            Code::EnvUnsupported,
            Code::PartitionMissing,
            Code::Unmountable,
            Code::Repaired,
            Code::RepairedWithLoss,
            Code::StillDamaged,
            Code::SuperblockMended,
        ];
        let mut told = codes.map(|code| {
            let text = said(Storage::Missing(code));
            assert!(text.starts_with(r#"{"storage":{"mounted":false,"code":"SB1"#), "{text}");
            assert_eq!(said(Storage::Mounted(code)), text.replace("false", "true"));
            next(code)
        });
        told.sort_unstable();
        assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "each has its own next step");
        assert_eq!(Storage::Missing(Code::Unmountable).missing(), Some(Code::Unmountable));
        assert_eq!(Storage::Mounted(Code::Repaired).missing(), None);
    }
}
