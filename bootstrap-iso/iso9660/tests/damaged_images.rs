//! Images with any bytes changed: every call returns, and nothing outside the image is read.

use std::io::Cursor;

use iso9660::{Image, Iso9660Error};
use proptest::prelude::*;

const SECTOR: usize = 2048;

/// An image of 20 sectors: descriptors at 16 and 17, the root at 18 with `FILE.;1` and the
/// directory `D` (which is the root again), the file's content at 19.
fn image() -> Vec<u8> {
    let mut image = vec![0; 20 * SECTOR];
    for (sector, kind) in [(16, 1), (17, 255)] {
        image[sector * SECTOR] = kind;
        image[sector * SECTOR + 1..sector * SECTOR + 6].copy_from_slice(b"CD001");
    }
    image[16 * SECTOR + 128..16 * SECTOR + 130].copy_from_slice(&[0, 8]);
    let root = record(&[0], 2, 18, 2048);
    image[16 * SECTOR + 156..16 * SECTOR + 156 + root.len()].copy_from_slice(&root);
    let mut directory = root;
    directory.extend(record(&[1], 2, 18, 2048));
    directory.extend(record(b"FILE.;1", 0, 19, 5));
    image[18 * SECTOR..18 * SECTOR + directory.len()].copy_from_slice(&directory);
    image[19 * SECTOR..19 * SECTOR + 5].copy_from_slice(b"hello");
    image
}

fn record(identifier: &[u8], flags: u8, sector: u32, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; 33];
    bytes[2..6].copy_from_slice(&sector.to_le_bytes());
    bytes[10..14].copy_from_slice(&size.to_le_bytes());
    bytes[25] = flags;
    bytes[32] = u8::try_from(identifier.len()).expect("under 256");
    bytes.extend_from_slice(identifier);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes[0] = u8::try_from(bytes.len()).expect("under 256");
    bytes
}

#[test]
fn a_file_is_found_listed_and_read() {
    let mut image = Image::open(Cursor::new(image())).unwrap();
    assert_eq!(image.read("/file", 100).unwrap(), b"hello");
    assert_eq!(image.list("/").unwrap().len(), 1);
    assert_eq!(image.walk().unwrap()[0].0, "/file");
    assert!(matches!(image.read("/file", 4), Err(Iso9660Error::TooLarge { size: 5, .. })));
    assert!(matches!(image.read("/file/x", 4), Err(Iso9660Error::NotFound { .. })));
    assert!(matches!(image.read("/", 4), Err(Iso9660Error::WrongKind { .. })));
}

#[test]
fn a_directory_that_contains_itself_ends_the_walk() {
    let mut bytes = image();
    let again = record(b"D", 2, 18, 2048);
    let free = 18 * SECTOR + 34 + 34 + 40;
    bytes[free..free + again.len()].copy_from_slice(&again);
    let result = Image::open(Cursor::new(bytes)).unwrap().walk();
    assert!(matches!(result, Err(Iso9660Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_large_directory_that_is_listed_again_and_again_is_not_read_so_often() {
    let mut bytes = image();
    // The root, in which one directory of half a megabyte without names stands two thousand times.
    let again = record(b"D", 2, 60, 1 << 19);
    let root = again.repeat(40);
    let n_sectors = 50;
    bytes.resize((60 + 256) * SECTOR, 0);
    for sector in 20..20 + n_sectors {
        bytes[sector * SECTOR..sector * SECTOR + root.len()].copy_from_slice(&root);
    }
    let long = record(&[0], 2, 20, (n_sectors * SECTOR) as u32);
    bytes[16 * SECTOR + 156..16 * SECTOR + 156 + long.len()].copy_from_slice(&long);
    let result = Image::open(Cursor::new(bytes)).unwrap().walk();
    assert!(matches!(result, Err(Iso9660Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn an_extent_beyond_the_end_is_an_error_and_costs_no_memory() {
    let mut bytes = image();
    let size = 18 * SECTOR + 34 + 34 + 10;
    bytes[size..size + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let result = Image::open(Cursor::new(bytes)).unwrap().read("/file", u64::MAX);
    assert!(matches!(result, Err(Iso9660Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn something_else_is_not_an_image() {
    for bytes in [vec![], vec![0; 40_000], b"#!/bin/sh\n".repeat(5000)] {
        assert!(matches!(Image::open(Cursor::new(bytes)), Err(Iso9660Error::NotAnImage)));
    }
}

proptest! {
    #[test]
    fn no_change_of_bytes_makes_a_call_panic(
        changes in proptest::collection::vec((16 * SECTOR..19 * SECTOR, any::<u8>()), 0..40),
        near in proptest::collection::vec((0..200usize, any::<u8>()), 0..10),
        cut in 0..=20 * SECTOR,
    ) {
        let mut bytes = image();
        for (at, value) in changes {
            bytes[at] = value;
        }
        for (at, value) in near {
            bytes[18 * SECTOR + at] = value;
        }
        bytes.truncate(cut.max(17 * SECTOR));
        if let Ok(mut image) = Image::open(Cursor::new(bytes)) {
            // The results are whatever the bytes say; that the calls return is the test.
            drop(image.walk());
            drop(image.read("/file", 1 << 20));
            drop(image.list("/d"));
        }
    }
}
