//! Kernel modules: found in a tree by name, with what they depend on, in the order in which they are loaded.
//!
//! What a module needs is read from the module itself (its `depends=`), so no `depmod` has to have run. Modules
//! may be compressed by xz or gzip; the device gets them as they are loaded. Names are the kernel's: `-` is `_`.
//! The modules' code is not looked at, and nothing checks that they belong to the kernel that is given with them.

use crate::{
    error::{Error, Result},
    files,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::{Path, PathBuf},
};

/// A kernel's modules in a folder.
pub struct Tree {
    root: PathBuf,
    paths: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// One module as the device gets it.
pub struct Module {
    /// File name, `virtio_net.ko`.
    pub file: String,
    /// The uncompressed module.
    pub content: Vec<u8>,
}

impl Tree {
    /// Looks through `root`: a `/lib/modules/<version>`, or any folder above exactly one.
    pub fn open(root: &Path) -> Result<Self> {
        let mut tree = Self { root: root.to_owned(), paths: BTreeMap::new(), builtin: BTreeSet::new() };
        for path in files::walk(root)? {
            let Some(file) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if file == "modules.builtin" {
                let text = String::from_utf8_lossy(&files::read(&root.join(&path))?).into_owned();
                tree.builtin.extend(text.lines().filter_map(|line| module_name(line.rsplit('/').next()?)));
            } else if let Some(name) = module_name(file) {
                tree.add(name, path)?;
            }
        }
        if tree.paths.is_empty() {
            let hint = "give the folder lib/modules/<version> of the kernel's package";
            return Err(Error::input(format!("no kernel module below {}", root.display())).hint(hint));
        }
        Ok(tree)
    }

    fn add(&mut self, name: String, path: PathBuf) -> Result<()> {
        match self.paths.insert(name.clone(), path) {
            None => Ok(()),
            Some(other) => Err(Error::input(format!(
                "module {name} is twice below {}: {} and {}",
                self.root.display(),
                other.display(),
                self.paths[&name].display()
            ))
            .hint("give the modules of one kernel only")),
        }
    }

    /// Whether the kernel has it at all: built in, or as a module.
    pub fn knows(&self, name: &str) -> bool {
        let name = name.replace('-', "_");
        self.paths.contains_key(&name) || self.builtin.contains(&name)
    }

    /// These modules and everything they need, each after what it needs.
    pub fn resolve<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Module>> {
        let mut plan = Plan { tree: self, done: BTreeSet::new(), open: Vec::new(), modules: Vec::new() };
        for name in names {
            plan.visit(&name.replace('-', "_"))?;
        }
        Ok(plan.modules)
    }
}

struct Plan<'t> {
    tree: &'t Tree,
    done: BTreeSet<String>,
    open: Vec<String>,
    modules: Vec<Module>,
}

impl Plan<'_> {
    fn visit(&mut self, name: &str) -> Result<()> {
        if self.done.contains(name) || self.tree.builtin.contains(name) {
            return Ok(());
        }
        if self.open.iter().any(|n| n == name) {
            return Err(Error::input(format!(
                "modules need each other in a circle: {} -> {name}",
                self.open.join(" -> ")
            )));
        }
        let Some(path) = self.tree.paths.get(name) else {
            let needed = self.open.last().map(|by| format!(", needed by {by},")).unwrap_or_default();
            return Err(Error::input(format!("module {name}{needed} is not below {}", self.tree.root.display())));
        };
        let content = load(&self.tree.root.join(path))?;
        self.open.push(name.to_owned());
        for needed in depends(&content) {
            self.visit(&needed)?;
        }
        self.open.pop();
        self.done.insert(name.to_owned());
        self.modules.push(Module { file: format!("{name}.ko"), content });
        Ok(())
    }
}

/// `virtio-net.ko.xz` is module `virtio_net`.
fn module_name(file: &str) -> Option<String> {
    let stem = [".ko", ".ko.xz", ".ko.gz"].iter().find_map(|end| file.strip_suffix(end))?;
    Some(stem.replace('-', "_"))
}

fn load(path: &Path) -> Result<Vec<u8>> {
    let raw = files::read(path)?;
    let mut content = Vec::new();
    let unpacked = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => lzma_rust2::XzReader::new(&raw[..], true).read_to_end(&mut content),
        Some("gz") => flate2::read::MultiGzDecoder::new(&raw[..]).read_to_end(&mut content),
        _ => {
            content = raw;
            Ok(content.len())
        }
    };
    unpacked.map_err(|e| Error::input(format!("{} cannot be unpacked: {e}", path.display())))?;
    if !content.starts_with(b"\x7fELF") {
        return Err(Error::input(format!("{} is not a kernel module", path.display())));
    }
    Ok(content)
}

/// The `depends=` entry of the module's information, a NUL-terminated list of names.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"depends=";
    let starts = module.windows(KEY.len() + 1).position(|w| w[0] == 0 && &w[1..] == KEY);
    let Some(start) = starts else { return Vec::new() };
    let list = &module[start + 1 + KEY.len()..];
    let list = &list[..list.iter().position(|b| *b == 0).unwrap_or(0)];
    let names = String::from_utf8_lossy(list);
    names.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_dependencies() {
        assert_eq!(module_name("virtio-net.ko.xz").as_deref(), Some("virtio_net"));
        assert_eq!(module_name("modules.dep"), None);
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=net-failover,failover\0x"), ["net_failover", "failover"]);
        assert!(depends(b"\x7fELF\0depends=\0").is_empty());
    }

    #[test]
    fn order_circles_and_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, needs: &str| {
            std::fs::write(dir.path().join(name), format!("\x7fELF\0depends={needs}\0")).unwrap();
        };
        put("a.ko", "b,c");
        put("b.ko", "c");
        put("c.ko", "");
        put("x.ko", "y");
        put("y.ko", "x");
        put("z.ko", "gone");
        let tree = Tree::open(dir.path()).unwrap();
        let order = |n| tree.resolve([n]).map(|m| m.into_iter().map(|m| m.file).collect::<Vec<_>>());
        assert_eq!(order("a").unwrap(), ["c.ko", "b.ko", "a.ko"]);
        assert!(order("x").unwrap_err().message.contains("circle"));
        assert!(order("z").unwrap_err().message.contains("gone, needed by z"));
    }
}
