//! U-Boot's older image format, as far as a boot script needs it: what `source` runs.
//!
//! A header of 64 bytes with two checksums, then the length of the script, a zero that ends the list of lengths, and the script.
//! Equal input gives equal bytes: no time is written. Nothing is read here, and nothing signed.

const MAGIC: u32 = 0x2705_1956;
const LINUX: u8 = 5;
const SCRIPT: u8 = 6;
/// The script's processor is not looked at; that of 32-bit Arm is what tools write that do not know.
const ARM: u8 = 2;
const HEADER: usize = 64;

/// A script as an image named `name`, which is cut to 31 bytes.
pub fn script(name: &str, text: &str) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend((text.len() as u32).to_be_bytes());
    data.extend(0_u32.to_be_bytes());
    data.extend(text.as_bytes());
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC.to_be_bytes());
    // 4: checksum of the header, computed as zero; 8: time; 16, 20: addresses, of which a script has none.
    header[12..16].copy_from_slice(&(data.len() as u32).to_be_bytes());
    header[24..28].copy_from_slice(&crc32(&data).to_be_bytes());
    header[28..32].copy_from_slice(&[LINUX, ARM, SCRIPT, 0]);
    let name = &name.as_bytes()[..name.len().min(31)];
    header[32..32 + name.len()].copy_from_slice(name);
    let sum = crc32(&header);
    header[4..8].copy_from_slice(&sum.to_be_bytes());
    [&header[..], &data].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_checksums_cover_what_they_must() {
        let image = script("a name", "echo hello\n");
        assert_eq!(image.len(), HEADER + 8 + 11);
        assert_eq!(image[..4], [0x27, 0x05, 0x19, 0x56]);
        assert_eq!(image[24..28], crc32(&image[HEADER..]).to_be_bytes());
        let mut header = image[..HEADER].to_vec();
        header[4..8].fill(0);
        assert_eq!(image[4..8], crc32(&header).to_be_bytes());
        assert_eq!(&image[32..39], b"a name\0");
        assert_eq!(&image[HEADER..], b"\0\0\0\x0b\0\0\0\0echo hello\n");
        assert_eq!(script(&"x".repeat(99), "")[63], 0);
    }
}
