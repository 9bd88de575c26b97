//! The NoCloud volume: a FAT file system labelled `cidata` with three small files.

use std::io::{self, Cursor, Write};

use provisioner_domain::nocloud::NoCloudDocuments;

/// Room for the documents many times over; the smallest volume that every FAT driver likes.
const VOLUME_BYTES: usize = 1 << 20;
/// cloud-init finds the volume by this label, in either case. Padded to FAT's eleven bytes.
const LABEL: [u8; 11] = *b"cidata     ";

/// The volume's bytes.
pub(super) fn volume(documents: &NoCloudDocuments) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; VOLUME_BYTES]);
    fatfs::format_volume(&mut disk, fatfs::FormatVolumeOptions::new().volume_label(LABEL))?;
    {
        let volume = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new())?;
        let root = volume.root_dir();
        for (name, text) in [
            ("user-data", &documents.user_data),
            ("meta-data", &documents.meta_data),
            ("network-config", &documents.network_config),
        ] {
            root.create_file(name)?.write_all(text.as_bytes())?;
        }
    }
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_volume_holds_its_documents_under_the_label_that_cloud_init_looks_for() {
        let documents = NoCloudDocuments {
            user_data: "#cloud-config\n".repeat(500),
            meta_data: "instance-id: x\n".into(),
            network_config: "version: 2\n".into(),
        };
        let bytes = volume(&documents).expect("a volume");
        let read =
            fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).expect("it can be read");
        assert_eq!(read.volume_label(), "cidata");
        let mut text = String::new();
        let mut file = read.root_dir().open_file("user-data").expect("it is there");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, documents.user_data);
    }
}
