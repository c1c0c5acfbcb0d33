//! Tests of the config disk: what tools make, and what nobody should.

use std::process::Command;

use proptest::prelude::*;

use super::*;

impl Bytes for Vec<u8> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

fn read(disk: &[u8]) -> Result<Option<Vec<u8>>, SourceError> {
    text(&disk.to_vec(), Path::new("/dev/x"))
}

#[track_caller]
fn check_fault(disk: &[u8], expected: &str) {
    let fault = read(disk).expect_err("should fail").to_string();
    assert!(fault.contains("/dev/x") && fault.contains(expected), "{fault}");
}

/// A directory record of a file, or of the directory itself.
fn record(name: &[u8], flags: u8, block: u32, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; (33 + name.len()).next_multiple_of(2)];
    bytes[0] = u8::try_from(bytes.len()).unwrap();
    bytes[2..6].copy_from_slice(&block.to_le_bytes());
    bytes[10..14].copy_from_slice(&size.to_le_bytes());
    (bytes[25], bytes[32]) = (flags, u8::try_from(name.len()).unwrap());
    bytes[33..33 + name.len()].copy_from_slice(name);
    bytes
}

/// An image with these records in its top directory, and a text in block 20.
fn iso(records: &[Vec<u8>], content: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 18 * 2048];
    image[16 * 2048..][..7].copy_from_slice(PRIMARY);
    image[16 * 2048 + 40..][..32].copy_from_slice(format!("{VOLUME:<32}").as_bytes());
    image[16 * 2048 + 128..][..2].copy_from_slice(&2048_u16.to_le_bytes());
    let root = record(b"\0", 2, 18, 2 * 2048);
    image[16 * 2048 + 156..][..root.len()].copy_from_slice(&root);
    let mut directory = records.concat();
    directory.resize(2 * 2048, 0);
    image.extend(directory);
    image.extend(content);
    image
}

fn config(size: usize) -> Vec<u8> {
    record(b"CONFIG.VMX;1", 0, 20, u32::try_from(size).unwrap())
}

#[test]
fn a_vmx_file_is_a_disk_by_its_first_line() {
    for (disk, expected) in [
        (
            &b"# containervm config\na = \"1\"\n\0\0\0garbage"[..],
            Some(&b"# containervm config\na = \"1\"\n"[..]),
        ),
        (b"# containervm config\r\n", Some(b"# containervm config\r\n")),
        (b"# containervm configuration\n", None),
        (b"# containervm config", None),
        (b"", None),
        (b"\0\0\0\0", None),
    ] {
        assert_eq!(read(disk).unwrap().as_deref(), expected, "{}", disk.escape_ascii());
    }
    let long = [FIRST_LINE, b"\n", &vec![b'#'; 300_000], b"\n\0"].concat();
    assert_eq!(read(&long).unwrap().unwrap().len(), long.len() - 1);
    let endless = [FIRST_LINE, b"\n", &vec![b'#'; MAX_CONFIG as usize]].concat();
    check_fault(&endless, "holds more than");
}

#[test]
fn the_file_is_found_among_others_in_the_top_directory() {
    let this = |sector: &[Vec<u8>]| iso(sector, b"a = \"1\"\n");
    let found = Some(b"a = \"1\"\n".to_vec());
    assert_eq!(
        read(&this(&[record(b"\0", 2, 18, 2048), record(b"\x01", 2, 18, 2048), config(8)]))
            .unwrap(),
        found
    );
    assert_eq!(read(&this(&[record(b"config.vmx", 0, 20, 8)])).unwrap(), found);
    let padding = vec![0; 2048 - record(b"A.;1", 0, 20, 8).len()];
    let next_sector = [record(b"A.;1", 0, 20, 8), padding, config(8)];
    assert_eq!(read(&this(&next_sector)).unwrap(), found, "in its second sector");
}

#[test]
fn images_of_others_are_passed_over_and_faulty_ones_told() {
    let mut other = iso(&[config(8)], b"a = \"1\"\n");
    other[16 * 2048 + 40] = b'X';
    assert_eq!(read(&other).unwrap(), None);
    let mut blocks = iso(&[config(8)], b"a = \"1\"\n");
    blocks[16 * 2048 + 128] = 1;
    check_fault(&blocks, "its blocks have a size");
    check_fault(&iso(&[], b""), "no file config.vmx");
    check_fault(&iso(&[record(b"CONFIG.VMX;1", 2, 20, 8)], b"a = \"1\"\n"), "no file config.vmx");
    check_fault(&iso(&[config(9)], b"a = \"1\"\n"), "ends within config.vmx");
    check_fault(&iso(&[record(b"CONFIG.VMX;1", 0, u32::MAX, 8)], b""), "ends within config.vmx");
    check_fault(&iso(&[record(b"CONFIG.VMX;1", 0, 20, u32::MAX)], b""), "holds more than");
}

#[test]
fn an_image_made_in_one_command_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (file, image) = (dir.path().join("config.vmx"), dir.path().join("config.iso"));
    std::fs::write(&file, "guestinfo.vice./common/id = \"x\"\n").unwrap();
    let mut made = Command::new("xorrisofs");
    made.args(["-quiet", "-V", VOLUME, "-o"]).arg(&image).arg(&file);
    match made.status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return eprintln!("skipped: no xorrisofs here; xorriso has it");
        }
        status => assert!(status.unwrap().success()),
    }
    let pairs = ConfigDisk::new(&image).read().unwrap().unwrap();
    assert_eq!(pairs, [("guestinfo.vice./common/id".to_owned(), "x".to_owned())]);
}

#[test]
fn a_device_that_is_not_there_is_no_source() {
    assert_eq!(ConfigDisk::new("/dev/nonexistent").read().unwrap(), None);
}

proptest! {
    #[test]
    fn any_damage_to_an_image_is_read_to_an_end(
        damage in prop::collection::vec((0..6000_usize, any::<u8>()), 1..40),
    ) {
        let mut image = iso(&[config(8)], b"a = \"1\"\n");
        for (at, byte) in damage {
            // Descriptor, directory and file.
            image[16 * 2048 + at % 8200] = byte;
        }
        if let Ok(Some(text)) = read(&image) {
            prop_assert!(text.len() <= image.len());
        }
    }
}
