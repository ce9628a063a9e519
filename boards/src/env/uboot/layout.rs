//! Where the copies of U-Boot's environment are, and which one the loader uses.
//!
//! The rule is U-Boot's own, for every pair of flag bytes; what the flag byte means depends on the loader's driver, is
//! stated by the board, and cannot be seen from the bytes.

/// Bytes before the variables of one of two copies: checksum and flags.
pub const HEADER: usize = 5;
/// Bytes before the variables of the only copy: the checksum.
const HEADER_SINGLE: usize = 4;
/// The flag byte of a copy that is not in use, boolean scheme.
pub(super) const OBSOLETE: u8 = 0;
/// The flag byte of the copy in use, boolean scheme.
pub(super) const ACTIVE: u8 = 1;

/// What the flag byte means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// A counter modulo 256; the greater one is newer. MMC, FAT, NAND, UBI.
    Incremental,
    /// 1 is in use, 0 is obsolete. Parallel NOR flash, and SPI flash: its driver selects by the other rule, which
    /// agrees for every pair that is ever written there.
    Boolean,
}

/// The only copy of something, or two of which the loader uses the newer valid one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copies<T> {
    /// No flag byte. A store overwrites what is in force: power that fails in it loses the environment.
    Single(T),
    /// Copy 1, copy 2, and what their flag bytes mean.
    Redundant([T; 2], Scheme),
}

impl<T> Copies<T> {
    /// The one or the two.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::Single(one) => core::slice::from_ref(one),
            Self::Redundant(two, _) => two,
        }
    }

    /// The same with something else for each copy; the first refusal ends it.
    pub fn try_map<U, E>(self, mut each: impl FnMut(T) -> Result<U, E>) -> Result<Copies<U>, E> {
        Ok(match self {
            Self::Single(one) => Copies::Single(each(one)?),
            Self::Redundant([first, second], scheme) => Copies::Redundant([each(first)?, each(second)?], scheme),
        })
    }

    /// The flag bytes of copies that are made new: the first one is in force. `None`: there is no flag byte.
    pub fn fresh_flags(&self) -> [Option<u8>; 2] {
        match self {
            Self::Single(_) => [None; 2],
            Self::Redundant(..) => [Some(1), Some(0)],
        }
    }
}

/// Where the copies are, and how they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Byte offsets of the copies.
    pub copies: Copies<u64>,
    /// `CONFIG_ENV_SIZE`, header included. A wrong size reads as invalid copies.
    pub size: usize,
}

impl Layout {
    /// Byte offsets of the copies.
    pub fn offsets(&self) -> &[u64] {
        self.copies.as_slice()
    }

    /// Bytes before the variables.
    pub fn header(&self) -> usize {
        match self.copies {
            Copies::Single(_) => HEADER_SINGLE,
            Copies::Redundant(..) => HEADER,
        }
    }

    /// The flags of a copy whose checksum is right; 0 where there is no flag byte.
    pub fn flags(&self, copy: &[u8]) -> Option<u8> {
        match self.copies {
            Copies::Redundant(..) => flags_of(copy),
            Copies::Single(_) => {
                let (crc, data) = copy.split_first_chunk::<HEADER_SINGLE>()?;
                (u32::from_le_bytes(*crc) == crc32fast::hash(data)).then_some(0)
            }
        }
    }

    /// The copy that the loader uses, given the flags of the valid ones.
    pub fn select(&self, flags: [Option<u8>; 2]) -> Option<usize> {
        match self.copies {
            Copies::Single(_) => flags[0].map(|_| 0),
            Copies::Redundant(_, scheme) => select(scheme, flags),
        }
    }
}

/// The flags of one of two copies whose checksum is right.
pub fn flags_of(copy: &[u8]) -> Option<u8> {
    let (crc, rest) = copy.split_first_chunk::<4>()?;
    let (flags, data) = rest.split_first()?;
    (u32::from_le_bytes(*crc) == crc32fast::hash(data)).then_some(*flags)
}

/// Which of two copies the loader uses, given the flags of the valid ones.
pub fn select(scheme: Scheme, flags: [Option<u8>; 2]) -> Option<usize> {
    let [first, second] = match flags {
        [Some(first), Some(second)] => [first, second],
        [Some(_), None] => return Some(0),
        [None, Some(_)] => return Some(1),
        [None, None] => return None,
    };
    let second_is_newer = match scheme {
        Scheme::Incremental => match (first, second) {
            (u8::MAX, 0) => true,
            (0, u8::MAX) => false,
            _ => second > first,
        },
        // Erased flash (0xFF) counts as in use where the other copy does not settle it. Any further pair is written by
        // nobody; current U-Boot takes the first copy.
        Scheme::Boolean => {
            (first, second) == (OBSOLETE, ACTIVE) || (first != second && first != u8::MAX && second == u8::MAX)
        }
    };
    Some(second_is_newer as usize)
}
