//! A guest's list of names against its image's: what is told of them fits both, and each path is told once.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serialmux::difference::{Comparison, ImagePaths};
use std::collections::BTreeSet;
use wire::message::inside::Listed;

/// Names that the agent makes, some of which a file may have, too, and others.
const NAMES: [&[u8]; 12] = [
    b"etc", b"hosts", b"dev", b"a", b"b", b"a-b", b"hostname", b"proc", b".tether", b"lost+found", b"", b"a/b",
];

#[derive(Debug, Arbitrary)]
struct Name {
    depth: u8,
    which: u8,
    changed: bool,
    odd: Option<Vec<u8>>,
}

#[derive(Debug, Arbitrary)]
struct Case {
    /// As a file may have them.
    image: Vec<u8>,
    on_image: Vec<Vec<u8>>,
    on_disk: Vec<Name>,
}

fuzz_target!(|case: Case| {
    drop(ImagePaths::parse(&case.image));
    let mut in_image = BTreeSet::new();
    let mut list = Vec::new();
    for parts in &case.on_image {
        let mut path = Vec::new();
        for part in parts.iter().take(4) {
            path.push(b'/');
            path.extend(NAMES[usize::from(part % 10)]);
            if in_image.insert(path.clone()) {
                list.extend([b"5.7 ", &path[..], b"\0"].concat());
            }
        }
    }
    let image = ImagePaths::parse(&list).expect("as containervm writes it");
    let mut comparison = Comparison::new(image);
    let (mut on_disk, mut above) = (BTreeSet::new(), Vec::<Vec<u8>>::new());
    for name in &case.on_disk {
        let known = NAMES[usize::from(name.which) % NAMES.len()];
        let text = name.odd.as_deref().unwrap_or(known);
        let depth = u32::from(name.depth % 6);
        let changed = if name.changed { 9 } else { 5 };
        let listed = Listed { depth, name: text.to_vec(), mode: 0, changed, changed_ns: 7 };
        if comparison.listed(&listed).is_err() {
            return;
        }
        above.truncate(depth as usize - 1);
        above.push(text.to_vec());
        let path: Vec<u8> = above.iter().flat_map(|part| [&b"/"[..], part].concat()).collect();
        on_disk.insert(path);
    }
    let changes = comparison.finish();
    assert!(changes.is_sorted_by(|a, b| a.path <= b.path));
    for change in &changes {
        let (had, has) = (in_image.contains(&change.path), on_disk.contains(&change.path));
        let end = change.path.iter().rposition(|byte| *byte == b'/').expect("absolute");
        let parent = &change.path[..end];
        match change.kind {
            0 => assert!(had && has),
            // Or it was told twice.
            1 => assert!(has),
            2 => assert!(had && !has && (parent.is_empty() || on_disk.contains(parent))),
            other => panic!("{other} is no kind"),
        }
    }
});
