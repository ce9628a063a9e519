//! What a file system promises of effects that no sync covered.

/// A persistence model. The loader's view is taken over each of them: names as of the last checkpoint, of what became
/// durable since then nothing, all, one name alone, or all but one (`Hardware::loader_file`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Model {
    /// Nothing (minimal POSIX): each effect is lost or kept, independently of all others; of a content any sectors, the
    /// others holding what was there before, or zeros. A file's sync does not make its name durable.
    #[default]
    Posix,
    /// ext4, `data=ordered`: names of one file system reach the disk in their order, as transactions, and any sync on it
    /// brings all that came before. New blocks before the transaction that makes them visible: a file whose name is
    /// there holds the sectors up to some point, maybe none (they are allocated late), and never something foreign.
    /// A sector that is overwritten in place waits for nobody.
    Ext4Ordered,
    /// FAT: no journal; a rename is a target removed, a source removed and a target made, in any order: a target that is
    /// replaced can vanish. Of contents any sectors. Only a sector overwritten in place is old or new.
    Fat,
}

impl Model {
    /// Those that the device's two file systems are held to.
    pub const DEVICE: [Model; 2] = [Model::Posix, Model::Ext4Ordered];

    /// Its word in tables and in lines that repeat a run.
    pub fn word(self) -> &'static str {
        match self {
            Model::Posix => "posix",
            Model::Ext4Ordered => "ext4-ordered",
            Model::Fat => "fat",
        }
    }

    /// The model of this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Model::Posix, Model::Ext4Ordered, Model::Fat].into_iter().find(|model| model.word() == word)
    }
}
