//! What one mounted file system of the device shows: which revisions and objects have which names, and what is in them.
//!
//! Invariants: contents are compared by their sha256, read through the mount once for each content there is: which file
//! has which content is asked of whoever shows the disk, by inode, right after mounting.
//! Does not: write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtime::id::{ObjectId, RevName};
use sha2::{Digest, Sha256};

use super::layers::Id;
use crate::tour::Outcome;

/// What names contents: of a partition (its number in `Spec::parts`), by inode. `None`: it has to be read.
pub type Names<'a> = dyn FnMut(usize, &[u64]) -> Outcome<Vec<Option<Id>>> + 'a;

/// Contents that were read before.
pub type Known = HashMap<Id, ObjectId>;

/// A mounted file system.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Where it is mounted.
    root: PathBuf,
    /// Objects under their final names, and what they hold.
    pub objects: BTreeMap<ObjectId, ObjectId>,
    /// Files of revisions under their final names, and what they hold; `None`: a file that cannot be read.
    pub trails: BTreeMap<RevName, BTreeMap<String, Option<ObjectId>>>,
    /// Names below `trails` and `objects/.incoming` that nobody looks at.
    pub odd: BTreeSet<String>,
    /// Files in the root, and what they hold.
    pub files: BTreeMap<String, Option<ObjectId>>,
    /// All names in the root.
    pub names: BTreeSet<String>,
}

/// Where a content is told.
enum Place {
    Object(ObjectId),
    Trail(RevName, String),
    Root(String),
}

/// The names alone.
#[derive(Debug, Default)]
pub struct Listing {
    /// Objects under their final names.
    pub objects: BTreeSet<ObjectId>,
    /// Revisions under their final names.
    pub trails: BTreeSet<RevName>,
    /// Names below `trails` and `objects/.incoming` that nobody looks at.
    pub odd: BTreeSet<String>,
}

impl Listing {
    /// Of a file system mounted at `root`.
    pub fn of(root: &Path) -> Outcome<Self> {
        let mut listing = Self::default();
        for Entry { name, path, kind, .. } in list(&root.join("objects"))? {
            match ObjectId::parse(&name) {
                Some(id) if kind.is_file() => _ = listing.objects.insert(id),
                _ if name == ".incoming" => {
                    listing.odd.extend(list(&path)?.into_iter().map(|entry| format!("incoming {}", entry.name)));
                }
                _ => _ = listing.odd.insert(name),
            }
        }
        let locals = list(&root.join("trails/locals"))?.into_iter().map(|entry| format!("locals/{}", entry.name));
        let trails = list(&root.join("trails"))?.into_iter().map(|entry| entry.name).filter(|name| name != "locals");
        for name in locals.chain(trails) {
            match RevName::parse(&name) {
                Ok(rev) => _ = listing.trails.insert(rev),
                Err(_) => _ = listing.odd.insert(name),
            }
        }
        Ok(listing)
    }
}

impl Shelf {
    /// Looks at the trails of a file system that was not brought up to date: what cannot be read is not there.
    pub fn look_at_trails(root: &Path, part: usize, known: &mut Known, names: &mut Names<'_>) -> Outcome<Self> {
        let Listing { trails, .. } = Listing::of(root).unwrap_or_default();
        let mut shelf = Self { root: root.into(), ..Self::default() };
        let mut files = Vec::new();
        for rev in trails {
            let mut found = Vec::new();
            if shelf.trail(rev, &root.join(format!("trails/{rev}")), &mut found).is_ok() {
                files.append(&mut found);
            }
        }
        shelf.fill(files, part, known, names)?;
        Ok(shelf)
    }

    /// Looks at a file system mounted at `root`, the partition of this number.
    pub fn look(root: &Path, part: usize, known: &mut Known, names: &mut Names<'_>) -> Outcome<Self> {
        read_inodes(root)?;
        let Listing { objects, trails, odd } = Listing::of(root)?;
        let mut shelf = Self { root: root.into(), odd, ..Self::default() };
        let mut files: Vec<(u64, PathBuf, Place)> = Vec::new();
        for id in objects {
            let path = root.join(format!("objects/{id}"));
            files.push((inode(&path)?, path, Place::Object(id)));
        }
        for rev in trails {
            shelf.trail(rev, &root.join(format!("trails/{rev}")), &mut files)?;
        }
        for Entry { name, path, kind } in list(root)? {
            shelf.names.insert(name.clone());
            if kind.is_file() && name != "journal" {
                files.push((inode(&path)?, path, Place::Root(name)));
            }
        }
        shelf.fill(files, part, known, names)?;
        Ok(shelf)
    }

    /// Notes what files hold.
    fn fill(
        &mut self,
        files: Vec<(u64, PathBuf, Place)>,
        part: usize,
        known: &mut Known,
        names: &mut Names<'_>,
    ) -> Outcome<()> {
        let inodes: Vec<u64> = files.iter().map(|(inode, ..)| *inode).collect();
        for ((_, path, place), name) in files.into_iter().zip(names(part, &inodes)?) {
            let content = content(&path, name, known);
            match place {
                Place::Object(id) => _ = self.objects.insert(id, content.unwrap_or(ObjectId([0; 32]))),
                Place::Trail(rev, key) => _ = self.trails.entry(rev).or_default().insert(key, content),
                Place::Root(name) => _ = self.files.insert(name, content),
            }
        }
        Ok(())
    }

    /// A file, by its path below the root.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.root.join(path))
    }

    fn trail(&mut self, rev: RevName, folder: &Path, files: &mut Vec<(u64, PathBuf, Place)>) -> Outcome<()> {
        self.trails.entry(rev).or_default();
        let mut folders = vec![(folder.to_path_buf(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for Entry { name, path, kind } in list(&folder)? {
                let key = format!("{prefix}{name}");
                if kind.is_dir() {
                    folders.push((path, format!("{key}/")));
                } else {
                    files.push((inode(&path)?, path, Place::Trail(rev, key)));
                }
            }
        }
        Ok(())
    }
}

/// What a file holds, read only if nothing of the same name was.
fn content(path: &Path, name: Option<Id>, known: &mut Known) -> Option<ObjectId> {
    if let Some(found) = name.and_then(|name| known.get(&name)) {
        return Some(*found);
    }
    let content = ObjectId(Sha256::digest(fs::read(path).ok()?).into());
    if let Some(name) = name {
        known.insert(name, content);
    }
    Some(content)
}

/// The number of a file's inode, which is read: a damaged one is an error.
fn inode(path: &Path) -> io::Result<u64> {
    let read = fs::symlink_metadata(path);
    Ok(read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?.ino())
}

/// Reads the inode of each name in the root and in the folders of revisions and objects, also where nobody else looks.
fn read_inodes(root: &Path) -> Outcome<()> {
    for folder in ["", "objects", "objects/.incoming", "trails", "trails/locals"] {
        for Entry { path, .. } in list(&root.join(folder))? {
            inode(&path)?;
        }
    }
    Ok(())
}

/// What a folder says of one of its entries.
struct Entry {
    name: String,
    path: PathBuf,
    kind: fs::FileType,
}

/// A folder's entries; none if there is no such folder. Their inodes are not read.
fn list(folder: &Path) -> Outcome<Vec<Entry>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "lost+found" {
            found.push(Entry { name, path: entry.path(), kind: entry.file_type()? });
        }
    }
    Ok(found)
}
