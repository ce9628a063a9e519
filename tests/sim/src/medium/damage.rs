//! What a medium does that no order of writes explains: damage to what was not being written, and flushes that lie.

use crate::medium::{Cells, Hardware, SECTOR};

/// Damage to the environment while the power is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit of a copy.
    Flip {
        /// Which copy, from 0.
        copy: usize,
        /// Which bit of it.
        bit: usize,
    },
    /// One sector of a copy holds what the other copy has there: a write torn long ago, come back.
    Torn {
        /// Which copy, from 0.
        copy: usize,
        /// Which sector of it.
        sector: usize,
    },
    /// A bit of each copy.
    Both {
        /// Which bit.
        bit: usize,
    },
}

impl Damage {
    /// Whether it is about both copies.
    pub fn is_total(self) -> bool {
        self.copy().is_none()
    }

    /// The one copy that it is about.
    pub fn copy(self) -> Option<usize> {
        match self {
            Damage::Flip { copy, .. } | Damage::Torn { copy, .. } => Some(copy),
            Damage::Both { .. } => None,
        }
    }

    /// As `parse` reads it.
    pub fn line(self) -> String {
        match self {
            Damage::Flip { copy, bit } => format!("flip:{copy}:{bit}"),
            Damage::Torn { copy, sector } => format!("torn:{copy}:{sector}"),
            Damage::Both { bit } => format!("both:{bit}"),
        }
    }

    /// What `line` printed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let kind = words.next()?;
        let numbers: Vec<usize> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        Some(match (kind, &numbers[..]) {
            ("flip", [copy, bit]) => Damage::Flip { copy: *copy, bit: *bit },
            ("torn", [copy, sector]) => Damage::Torn { copy: *copy, sector: *sector },
            ("both", [bit]) => Damage::Both { bit: *bit },
            _ => return None,
        })
    }
}

/// A disk that lies about a flush: it answers that all is on the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// It is in the disk's own memory: reading it back, past our cache, shows it, until the power goes. No device can see
    /// this while it runs. Detected means: after the power came back, what is found is not what was reported, and an
    /// observer says so.
    Drops,
    /// It is nowhere. Reading a raw place back past the cache shows what was there before. Detected means: the store of
    /// the environment says that it failed, nothing is reported as done on the strength of it, and all laws hold.
    Forgets,
}

impl Lie {
    /// All of them.
    pub const ALL: [Lie; 2] = [Lie::Drops, Lie::Forgets];
}

impl Hardware {
    /// Damages the environment, whose two copies have this size.
    pub fn damage(&mut self, damage: Damage, copy_size: usize) {
        let flip = |cells: &mut Cells, at: usize, bit: usize| {
            let byte = &mut cells.durable[at * copy_size + bit / 8 % copy_size];
            *byte ^= 1 << (bit % 8);
        };
        match damage {
            Damage::Flip { copy, bit } => flip(&mut self.env, copy, bit),
            Damage::Both { bit } => (0..2).for_each(|copy| flip(&mut self.env, copy, bit)),
            Damage::Torn { copy, sector } => {
                let other = (1 - copy) * copy_size + sector * SECTOR;
                self.env.durable.copy_within(other..other + SECTOR, copy * copy_size + sector * SECTOR);
            }
        }
        self.env.live = self.env.durable.clone();
    }
}
