//! Archives, JSON and the files of `.pvr`, damaged in many ways: refused or taken, but never a panic, never a file
//! outside, and never half of something.
//!
//! Deterministic: a fixed generator mutates a corpus, so a failure is repeated by running the test again. The corpus is
//! what the original and we write, and what an attacker would.

use pvr::{
    archive,
    canonical::{self, CANONICAL},
    parts::Parts,
    repo::{self, Repo, State},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

const ROUNDS: usize = 4000;

/// xorshift64*: enough to damage things in many ways, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        (high as usize) % limit.max(1)
    }

    /// A piece of the corpus with a few changes.
    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const WORDS: [&[u8]; 12] =
            [b"..", b"/", b"null", b"\"", b"{", b"]", b"1e999", b"\\ud800", b"objects/", b"json", b"\0", b".pvr/"];
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                3 => drop(bytes.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
                4 => {
                    let end = (at + self.below(600)).min(bytes.len());
                    bytes.drain(at..end);
                }
                5 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len() + 1);
                    let part = other[from..(from + self.below(1200)).min(other.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let word = WORDS[self.below(WORDS.len())];
                    let end = (at + word.len()).min(bytes.len());
                    bytes.splice(at..end, word.iter().copied());
                }
            }
        }
        bytes
    }
}

fn vector(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)).unwrap()
}

/// Corrects the checksums of headers, so that what is wrong behind them is reached.
fn correct_checksums(archive: &mut [u8]) {
    for header in archive.chunks_exact_mut(512).filter(|header| header[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// An archive with these members, well-formed as far as tar goes.
fn tar_of(members: &[(tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn archives() {
    use tar::EntryType as E;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in/side/r");
    fs::create_dir_all(&root).unwrap();
    let pool = dir.path().join("in/side/pool");
    let repo = Repo::create(&root, &pool, &State::new()).unwrap();
    let mut original = Vec::new();
    flate2::read::GzDecoder::new(&vector("export/app.tgz")[..]).read_to_end(&mut original).unwrap();
    let one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    let state = format!(r##"{{"#spec":"x","a":"{one}","b.json":{{"c":[1]}}}}"##);
    let object = format!("objects/{one}");
    let small = tar_of(&[(E::Regular, "json", state.as_bytes()), (E::Regular, &object, b"one")]);
    let corpus = [
        original,
        small.clone(),
        tar_of(&[(E::Regular, &object, b"one"), (E::Regular, "json", state.as_bytes())]),
        tar_of(&[(E::Regular, "json", state.as_bytes()), (E::Symlink, &object, b"")]),
        tar_of(&[(E::XHeader, "pax", b"30 mtime=1350244992.023960108\n"), (E::Regular, "json", b"{}")]),
        tar_of(&[(E::GNULongName, "././@LongLink", b"../../evil\0"), (E::Regular, "json", b"{}")]),
    ];
    let kept = || -> BTreeSet<_> { fs::read_dir(&pool).unwrap().map(|e| e.unwrap().file_name()).collect() };
    let (mut random, mut taken, file) = (Random(1), 0, dir.path().join("in/a"));
    for round in 0..ROUNDS {
        let mut bytes = random.mutate(&corpus);
        if random.below(4) > 0 {
            correct_checksums(&mut bytes);
        }
        if random.below(3) == 0 {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&bytes).unwrap();
            bytes = gzip.finish().unwrap();
            if random.below(2) == 0 {
                let at = random.below(bytes.len());
                bytes.truncate(at);
            }
        }
        fs::write(&file, &bytes).unwrap();
        let read = catch_unwind(AssertUnwindSafe(|| archive::read(&repo, &file, &Parts::default())));
        match read.unwrap_or_else(|_| panic!("round {round} panicked")) {
            Ok(state) => {
                taken += 1;
                for sha in repo::objects(&state).unwrap() {
                    assert!(repo.pool().is_whole(&sha), "round {round}: {sha}");
                }
                for entry in fs::read_dir(&pool).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
            }
            Err(_) => assert!(kept().is_empty(), "round {round} left {:?}", kept()),
        }
    }
    assert!(taken > ROUNDS / 50 && taken < ROUNDS / 2, "{taken} of {ROUNDS} were taken");
    let outside: Vec<_> =
        fs::read_dir(dir.path()).unwrap().chain(fs::read_dir(dir.path().join("in")).unwrap()).collect();
    assert_eq!(outside.len(), 3, "nothing outside: {outside:?}");
}

#[test]
fn json_documents() {
    let corpus = [
        vector("canonical-json/numbers.in.json"),
        vector("canonical-json/strings.in.json"),
        br#"{"a":[1.0,-0,1e21,0.10],"b":{"c":null,"c":true},"d":"\ud83d\ude00\u001f"}"#.to_vec(),
        "[".repeat(200).into_bytes(),
    ];
    let (mut random, mut taken) = (Random(2), 0);
    for round in 0..ROUNDS * 5 {
        let bytes = random.mutate(&corpus);
        let text = catch_unwind(|| {
            let value: Value = serde_json::from_slice(&bytes).ok()?;
            canonical::write(&value, CANONICAL).ok()
        });
        let Some(text) = text.unwrap_or_else(|_| panic!("round {round} panicked")) else { continue };
        taken += 1;
        let again = canonical::write(&serde_json::from_str(&text).unwrap(), CANONICAL).unwrap();
        assert_eq!(again, text, "round {round}: canonical text is its own canonical form");
    }
    assert!(taken > 100, "{taken} were taken");
}

#[test]
fn files_of_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir_all(root.join("web")).unwrap();
    let state = |value: Value| value.as_object().unwrap().clone();
    let repo = Repo::create(&root, &root.join(".pvr/objects"), &state(json!({"#spec": "s"}))).unwrap();
    fs::write(root.join("web/a"), "one").unwrap();
    let sha = repo.store(&root.join("web/a")).unwrap();
    fs::write(root.join("run.json"), r#"{"a": [1, null]}"#).unwrap();
    let committed = state(json!({"#spec": "s", "web/a": sha, "run.json": {"a": [1, null]}}));
    repo.advance(&committed, "commit", "x").unwrap();
    repo.history().set_files(Some(&committed), &committed).unwrap();
    let added = repo::Added { force_object: true, sha: sha.clone() };
    repo.write_index(&[("b.json".to_owned(), added)].into()).unwrap();
    repo.hash(&["web/a"]).unwrap();
    let names = ["json", "new", "config", "switchback/log", "switchback/checkout", "switchback/hashes"];
    let whole: Vec<_> = names.iter().map(|name| fs::read(root.join(".pvr").join(name)).unwrap_or_default()).collect();
    let mut random = Random(3);
    let mut understood = 0;
    for round in 0..ROUNDS {
        let which = random.below(names.len());
        let path = root.join(".pvr").join(names[which]);
        fs::write(&path, random.mutate(&whole)).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| -> pvr::error::Result<()> {
            let repo = Repo::at(&root)?;
            let (index, pristine) = repo.load()?;
            repo.working(&pristine, &index)?;
            repo.history().entries(&pvr::history::id(&pristine)?)?;
            let plan = repo.plan_checkout(repo::Checkout::Plain)?;
            // Only what is tracked by a state that we understood may be in a plan to go.
            assert!(plan.removed.iter().all(|key| root.join(key).starts_with(&root) && !key.contains("..")));
            Ok(())
        }));
        understood += usize::from(result.unwrap_or_else(|_| panic!("round {round}: {}", names[which])).is_ok());
        fs::write(&path, &whole[which]).unwrap();
    }
    assert!(understood > ROUNDS / 10, "{understood} of {ROUNDS} were understood");
    assert_eq!(fs::read(root.join("web/a")).unwrap(), b"one");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing outside");
}
