//! Images and definitions that tests create VMs from.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk image with known contents.
#[derive(Clone, Debug)]
pub struct Image {
    /// The raw file.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
}

/// Makes a raw image of 64 MiB: 8 MiB that do not compress, here and there, and holes between. The same number
/// gives the same image.
pub fn image(folder: &Path, number: u64) -> Image {
    const PIECE: usize = 1 << 20;
    let path = folder.join(format!("image-{number}.raw"));
    let mut file = fs::File::create(&path).expect("an image can be written");
    file.set_len(64 << 20).expect("it can be sized");
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for index in 0..8u64 {
        // Xorshift: plain, seeded, good enough not to compress.
        let piece: Vec<u8> = (0..PIECE)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        file.seek(SeekFrom::Start(index * 8 * PIECE as u64)).expect("inside");
        file.write_all(&piece).expect("written");
    }
    file.seek(SeekFrom::Start(510)).expect("inside");
    file.write_all(&[0x55, 0xaa]).expect("a boot signature");
    file.sync_all().expect("on disk");
    let sha256 = digest(&path);
    Image { path, sha256 }
}

fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("coreutils");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().next().expect("a digest").to_string()
}

/// Writes a machine's definition with one install script beside it.
pub fn definition_file(folder: &Path, name: &str, seed: &str, domain: &str, script: &str) -> PathBuf {
    fs::write(folder.join("install.sh"), script).expect("written");
    let path = folder.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\nseed = \"{seed}\"\ncpu_count = 1\nram_size = \"256M\"\ndisk_size = \"512M\"\n\
         domains = [\"{domain}\"]\ninstall = [\"install.sh\"]\n\n[env]\nGREETING = \"hello\"\n"
    );
    fs::write(&path, text).expect("written");
    path
}
