//! The EFI system partition that UEFI firmware boots from a CD: one loader in a FAT file system.

use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Where firmware looks on removable media (UEFI 2.10, 3.5.1.1).
const LOADER: [&str; 3] = ["EFI", "BOOT", "BOOTX64.EFI"];

/// Room for the file system's own tables beside the loader.
const OVERHEAD: u64 = 128 * 1024;

/// Size granularity: no multiple of a CD sector may be cut.
const STEP: u64 = 64 * 1024;

/// A volume ID that says nothing about when it was made; FAT wants some number.
const VOLUME_ID: u32 = 0x7e74_e720;

/// A FAT image holding `loader` as `EFI/BOOT/BOOTX64.EFI`; the same bytes for the same loader.
///
/// # Errors
/// None in practice: all of it happens in memory.
pub(crate) fn image(loader: &[u8]) -> io::Result<Vec<u8>> {
    let size = (loader.len() as u64 + OVERHEAD).next_multiple_of(STEP);
    let size = usize::try_from(size).map_err(io::Error::other)?;
    let mut disk = Cursor::new(vec![0; size]);
    let options = FormatVolumeOptions::new().volume_id(VOLUME_ID).volume_label(*b"BOOTSTRAP  ");
    fatfs::format_volume(&mut disk, options)?;
    {
        // Without its `chrono` feature the crate dates every entry the same.
        let volume = FileSystem::new(&mut disk, FsOptions::new())?;
        let [efi, boot, name] = LOADER;
        let directory = volume.root_dir().create_dir(efi)?.create_dir(boot)?;
        let mut file = directory.create_file(name)?;
        file.truncate()?;
        file.write_all(loader)?;
        file.flush()?;
    }
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_loader_comes_back_out_of_the_file_system() {
        let loader: Vec<u8> = (0..3_800_000u32).map(|it| it.to_le_bytes()[0]).collect();
        let volume =
            FileSystem::new(Cursor::new(image(&loader).unwrap()), FsOptions::new()).unwrap();
        let mut read = Vec::new();
        volume
            .root_dir()
            .open_file("EFI/BOOT/BOOTX64.EFI")
            .unwrap()
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == loader, "the loader read back differs");
    }

    #[test]
    fn two_images_of_one_loader_are_the_same_bytes() {
        assert!(image(b"loader").unwrap() == image(b"loader").unwrap());
    }
}
