//! The FAT locator against file systems that mtools makes, and against damaged ones.

use boards::env::{
    fat::locate,
    uboot::{Copies, Scheme},
};
use runtime::{fault::Code, port::Region};
use simulator::frozen::Frozen;
use std::{fs, path::PathBuf, process::Command};
use tests::loader_disk::{FileRegion, run};

const FILES: Copies<&str> = Copies::Redundant(["uboot.env", "uboot-redund.env"], Scheme::Incremental);
const SIZE: u32 = 0x4000;

/// A FAT in a file.
struct Fat {
    folder: PathBuf,
}

impl Fat {
    fn new(name: &str, bytes: u64, options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("switchback-fat-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let fat = Self { folder };
        fs::File::create(fat.image()).unwrap().set_len(bytes).unwrap();
        let sectors = (bytes / 512).to_string();
        fat.mtools("mformat", options.iter().copied().chain(["-T", &sectors, "-h", "64", "-s", "32", "::"]));
        fat
    }

    fn image(&self) -> PathBuf {
        self.folder.join("fat.img")
    }

    fn mtools<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a str>) {
        let mut command = Command::new(program);
        run(command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(self.image()).args(arguments));
    }

    /// Adds a file of `size` times `fill`.
    fn add(&self, name: &str, size: u32, fill: u8) {
        let path = self.folder.join("content");
        fs::write(&path, vec![fill; size as usize]).unwrap();
        self.mtools("mcopy", ["-D", "o", path.to_str().unwrap(), &format!("::{name}")]);
    }

    fn locate(&self) -> Result<Copies<u64>, Code> {
        locate(&mut FileRegion::open(&self.image(), 0), FILES, SIZE)
    }

    /// Checks that the offsets are those of the contents.
    fn check(&self, what: &str) {
        let offsets = self.locate().unwrap_or_else(|code| panic!("{what}: {code}"));
        for (offset, fill) in offsets.as_slice().iter().zip([0x11, 0x22]) {
            let mut content = vec![0; SIZE as usize];
            FileRegion::open(&self.image(), 0).read_at(*offset, &mut content).unwrap();
            assert!(content.iter().all(|byte| *byte == fill), "{what}");
        }
    }
}

impl Drop for Fat {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn both_files_are_found_in_every_kind_of_fat() {
    let kinds: [(&str, u64, &[&str]); 7] = [
        ("12", 1 << 20, &["-c", "1"]),
        ("12-wide", 8 << 20, &["-c", "4"]),
        ("12-one-cluster", 16 << 20, &["-c", "32"]),
        ("16", 8 << 20, &["-c", "1"]),
        ("16-wide", 64 << 20, &["-c", "8"]),
        ("32", 64 << 20, &["-F", "-c", "1"]),
        ("32-one-fat", 80 << 20, &["-F", "-c", "2", "-d", "1"]),
    ];
    for (name, bytes, options) in kinds {
        let fat = Fat::new(name, bytes, options);
        assert_eq!(fat.locate(), Err(Code::EnvLayout), "{name}: no files yet");
        // Something before, and more long names than one sector of the directory holds.
        for index in 0..20 {
            fat.add(&format!("some other file {index}"), 700, 0x33);
        }
        fat.add(FILES.as_slice()[1], SIZE, 0x22);
        fat.add("UBOOT.EN", SIZE, 0x44);
        fat.add("xuboot-redund.env", SIZE, 0x44);
        fat.add(FILES.as_slice()[0], SIZE, 0x11);
        fat.check(name);
    }
}

#[test]
fn names_are_found_in_any_case_and_among_deleted_ones() {
    let fat = Fat::new("names", 8 << 20, &["-c", "4"]);
    fat.add("uboot-redund.env", 100, 0x44);
    fat.mtools("mdel", ["::uboot-redund.env"]);
    fat.mtools("mmd", ["::uboot.en"]);
    fat.add("UBOOT.ENV", SIZE, 0x11);
    fat.add("UBoot-Redund.env", SIZE, 0x22);
    fat.check("case");
}

#[test]
fn a_file_that_is_not_whole_and_contiguous_is_refused() {
    let fat = Fat::new("size", 8 << 20, &["-c", "4"]);
    fat.add(FILES.as_slice()[0], SIZE, 0x11);
    fat.add(FILES.as_slice()[1], SIZE - 1, 0x22);
    assert_eq!(fat.locate(), Err(Code::EnvLayout), "too small");
    fat.add(FILES.as_slice()[1], SIZE + 1, 0x22);
    assert_eq!(fat.locate(), Err(Code::EnvLayout), "too large");
    fat.add(FILES.as_slice()[1], SIZE, 0x22);
    fat.check("right");

    // A full file system with two holes makes the next file a fragmented one.
    let fat = Fat::new("fragments", 1 << 20, &["-c", "1"]);
    fat.add(FILES.as_slice()[0], SIZE, 0x11);
    fat.add("hole1", SIZE / 2, 0x33);
    fat.add("wall", 512, 0x33);
    fat.add("hole2", SIZE / 2, 0x33);
    fat.add("rest", 900 << 10, 0x33);
    for size in [64 << 10, 16 << 10, 4 << 10, 1 << 10, 512] {
        for index in 0..4 {
            let (path, name) = (fat.folder.join("content"), format!("::fill-{size}-{index}"));
            fs::write(&path, vec![0x33; size]).unwrap();
            let mut fill = Command::new("mcopy");
            let _ = fill.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(fat.image()).arg(path).arg(name).output();
        }
    }
    fat.mtools("mdel", ["::hole1", "::hole2"]);
    fat.add(FILES.as_slice()[1], SIZE, 0x22);
    assert_eq!(fat.locate(), Err(Code::EnvLayout), "fragmented");
}

/// Any byte of the metadata, set to several values: the same offsets or a refusal, always an end.
#[test]
fn damaged_metadata_ends_in_a_refusal_or_in_whole_files() {
    for (name, bytes, options) in
        [("mutant-12", 1 << 20, &["-c", "4"][..]), ("mutant-32", 64 << 20, &["-F", "-c", "1"])]
    {
        let fat = Fat::new(name, bytes, options);
        fat.add(FILES.as_slice()[0], SIZE, 0x11);
        fat.add(FILES.as_slice()[1], SIZE, 0x22);
        let good = fat.locate().unwrap();
        let image = fs::read(fat.image()).unwrap();
        let first = good.as_slice().iter().copied().min().unwrap() as usize;
        let mut memory = Frozen(image);
        let (mut same, mut refused, mut moved) = (0, 0, 0);
        // Boot sector, first sectors of the FAT, and the directory just before the files.
        for at in
            (0..512).chain(first.saturating_sub(1024)..first).chain(fat_start(&memory.0)..fat_start(&memory.0) + 256)
        {
            let kept = memory.0[at];
            for value in [0, 1, 2, 0x0f, 0x10, 0x40, 0x7f, 0x80, 0xe5, 0xff, kept ^ 1, kept ^ 0x80] {
                memory.0[at] = value;
                match locate(&mut memory, FILES, SIZE) {
                    Ok(offsets) if offsets == good => same += 1,
                    // Such a change describes another, equally valid file system.
                    Ok(offsets) => {
                        assert!(offsets.as_slice().iter().all(|offset| offset % 512 == 0));
                        assert!(offsets.as_slice()[0].abs_diff(offsets.as_slice()[1]) >= u64::from(SIZE));
                        moved += 1;
                    }
                    Err(code) => {
                        assert_eq!(code, Code::EnvLayout);
                        refused += 1;
                    }
                }
            }
            memory.0[at] = kept;
        }
        assert!(same > 1000 && refused > 400, "{name}: {same} same, {refused} refused, {moved} moved");
    }
}

/// Where the first FAT starts.
fn fat_start(image: &[u8]) -> usize {
    512 * usize::from(u16::from_le_bytes([image[14], image[15]]))
}

/// A sector of noise with a valid signature, many times.
#[test]
fn noise_is_refused() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut memory = Frozen(vec![0; 64 << 10]);
    for _ in 0..2000 {
        for byte in &mut memory.0[..2048] {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = seed as u8;
        }
        memory.0[510..512].copy_from_slice(&[0x55, 0xaa]);
        memory.0[11..14].copy_from_slice(&[0, 2, 1]);
        memory.0[16] = 1;
        memory.0[54..62].copy_from_slice(if seed & 1 == 0 { b"FAT12   " } else { b"FAT16   " });
        assert_eq!(locate(&mut memory, FILES, SIZE), Err(Code::EnvLayout));
    }
    assert_eq!(locate(&mut Frozen(Vec::new()), FILES, SIZE), Err(Code::EnvLayout));
}
