//! An image's passwd and group files, and who is to be run: ids that the kernel takes, or Docker's errors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tether::user::{add_groups, resolve};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(4, '\u{1}');
    let (spec, wanted) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (passwd, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let Ok(mut user) = resolve(spec, passwd, group) else { return };
    let wanted: Vec<_> = wanted.split(',').map(str::to_owned).collect();
    let before = user.clone();
    if add_groups(&mut user, &wanted, group).is_ok() {
        assert!(user.groups.starts_with(&before.groups));
        assert!(user.groups.len() <= before.groups.len() + wanted.len());
    }
    // -1 tells the kernel to leave an id as it is, and that is root's.
    let ids = [user.uid, user.gid].into_iter().chain(user.groups);
    assert!(ids.into_iter().all(|id| id < u32::MAX), "{before:?}");
});
