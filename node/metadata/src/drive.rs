//! The config drive: a FAT volume labelled `config-2` with the files of [`crate::files`]. The same guest and seed give the same
//! bytes: file times and the volume's number are fixed.

use crate::{GuestView, files};
use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use maru_base::{Error, Result};
use std::io::{Cursor, Write};

/// The moment that all files bear: FAT's first day.
#[derive(Debug)]
struct Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date {
            year: 1980,
            month: 1,
            day: 1,
        }
    }
    fn get_current_date_time(&self) -> DateTime {
        DateTime {
            date: self.get_current_date(),
            time: Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

static EPOCH: Epoch = Epoch;
const CLUSTER: usize = 4096;
const MIB: usize = 1 << 20;

/// The image of a guest's config drive. `seed` is the `random_seed` that it is given, 512 bytes.
///
/// # Errors
/// `Internal` when the image cannot be made; nothing a tenant gives can cause it but size.
pub fn config_drive(guest: &GuestView, seed: &[u8]) -> Result<Vec<u8>> {
    let files = files(guest, seed);
    let clusters: usize = files.iter().map(|(_, bytes)| bytes.len().div_ceil(CLUSTER) + 1).sum();
    // Room for the files, their folders and the tables.
    let size = ((clusters + 64) * CLUSTER + MIB).div_ceil(MIB) * MIB;
    let mut image = vec![0_u8; size];
    write(&mut image, &files).map_err(|e| Error::internal("The config drive could not be made.", e))?;
    Ok(image)
}

fn write(image: &mut [u8], files: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    let options = FormatVolumeOptions::new()
        .bytes_per_cluster(CLUSTER as u32)
        .volume_id(0x6d61_7275)
        .volume_label(*b"config-2   ");
    fatfs::format_volume(Cursor::new(&mut *image), options)?;
    let volume = FileSystem::new(Cursor::new(image), FsOptions::new().time_provider(&EPOCH))?;
    for (path, bytes) in files {
        let mut folder = volume.root_dir();
        let mut parts: Vec<&str> = path.split('/').collect();
        let Some(name) = parts.pop() else { continue };
        for part in parts {
            folder = folder.create_dir(part)?;
        }
        let mut file = folder.create_file(name)?;
        file.truncate()?;
        file.write_all(bytes)?;
        file.flush()?;
    }
    volume.unmount()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    #[test]
    fn the_drive_holds_every_file_and_is_the_same_each_time() {
        let mut guest = crate::content::tests::guest();
        guest.server.metadata.user_data = Some("QUFB".repeat(16_000));
        let seed = [7; 512];
        let image = config_drive(&guest, &seed).unwrap();
        assert!(
            image == config_drive(&guest, &seed).unwrap(),
            "two drives of one guest differ"
        );
        assert_eq!(image.len() % 512, 0);
        let volume = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
        assert_eq!(
            volume.read_volume_label_from_root_dir().unwrap().as_deref(),
            Some("config-2")
        );
        for (path, bytes) in files(&guest, &seed) {
            let mut read = Vec::new();
            volume
                .root_dir()
                .open_file(&path)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == bytes, "{path}");
        }
    }
}
