//! What a kernel module says about itself: the `.modinfo` section of its ELF file.
//!
//! The section is a run of `key=value` strings, each ended by a zero byte (MODULE_INFO in
//! include/linux/moduleparam.h). Taking it from the files themselves makes depmod unnecessary.

use object::{Object, ObjectSection};

/// The lines of `.modinfo` that loading needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modinfo {
    /// Globs over modalias strings of the devices it drives.
    pub aliases: Vec<String>,
    /// Modules that must be loaded before it.
    pub depends: Vec<String>,
    /// Modules it prefers to be loaded before it, where they exist.
    pub soft_depends: Vec<String>,
}

/// A file that is not a kernel module.
#[derive(Debug, thiserror::Error)]
#[error("not a kernel module: {0}; expected an ELF file with a .modinfo section")]
pub struct ModinfoError(String);

impl Modinfo {
    /// Reads the `.modinfo` section of the uncompressed module `elf`.
    ///
    /// # Errors
    /// Bytes that are no ELF file, or one without the section.
    pub fn parse(elf: &[u8]) -> Result<Self, ModinfoError> {
        let file = object::File::parse(elf).map_err(|it| ModinfoError(it.to_string()))?;
        let section = file.section_by_name(".modinfo");
        let section = section.ok_or_else(|| ModinfoError("it has no .modinfo".into()))?;
        let data = section.data().map_err(|it| ModinfoError(it.to_string()))?;
        Ok(Self::from_lines(&String::from_utf8_lossy(data)))
    }

    fn from_lines(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.split('\0').filter_map(|line| line.split_once('=')) {
            match key {
                "alias" => info.aliases.push(value.to_owned()),
                "depends" => info.depends.extend(names(value, ',')),
                "softdep" => info.soft_depends.extend(pre(value)),
                _ => {}
            }
        }
        info
    }
}

/// A module's name as the kernel compares it: file names may have `-` where it has `_`.
#[must_use]
pub(crate) fn canonical(name: &str) -> String {
    name.trim().replace('-', "_")
}

/// The module without the signature appended to it, or as it is when there is none.
///
/// The kernel ends a signed module with this magic, before it a `struct module_signature` of 12
/// bytes whose last four are the signature's length, big endian (include/linux/module_signature.h).
#[must_use]
pub(crate) fn without_signature(module: &[u8]) -> &[u8] {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    const DESCRIPTOR: usize = 12;
    let Some(signed) = module.strip_suffix(MAGIC) else { return module };
    let Some((_, length)) = signed.split_last_chunk::<4>() else { return module };
    let Ok(length) = usize::try_from(u32::from_be_bytes(*length)) else { return module };
    let end = signed.len().checked_sub(DESCRIPTOR).and_then(|end| end.checked_sub(length));
    end.map_or(module, |end| &signed[..end])
}

fn names(list: &str, separator: char) -> impl Iterator<Item = String> {
    list.split(separator).map(canonical).filter(|name| !name.is_empty())
}

/// The modules after `pre:` in `pre: a b post: c`. Those after `post:` are only
/// wanted later and by the module's user space, not for loading it.
fn pre(value: &str) -> Vec<String> {
    let mut is_pre = false;
    let mut found = Vec::new();
    for word in value.split_whitespace() {
        match word {
            "pre:" => is_pre = true,
            "post:" => is_pre = false,
            name if is_pre => found.push(canonical(name)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_dependencies_are_read_with_their_names_normalized() {
        let text = "license=GPL\0alias=virtio:d00000001v*\0depends=virtio-ring,virtio\0\
                    softdep=pre: crc32-c  b post: c\0depends=\0";
        let info = Modinfo::from_lines(text);
        assert_eq!(info.aliases, ["virtio:d00000001v*"]);
        assert_eq!(info.depends, ["virtio_ring", "virtio"]);
        assert_eq!(info.soft_depends, ["crc32_c", "b"]);
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(Modinfo::parse(b"#!/bin/sh").is_err());
        assert!(Modinfo::parse(&[]).is_err());
    }

    #[test]
    fn a_signature_is_cut_off_and_only_a_signature() {
        let mut signed = b"ELF module".to_vec();
        signed.extend_from_slice(b"SIGNATURE\0\0\0\0\0\0\0\0");
        signed.extend_from_slice(&9u32.to_be_bytes());
        signed.extend_from_slice(b"~Module signature appended~\n");
        assert_eq!(without_signature(&signed), b"ELF module");
        assert_eq!(without_signature(b"ELF module"), b"ELF module");
        let lying = b"\xff\xff\xff\xff~Module signature appended~\n";
        assert_eq!(without_signature(lying), lying);
    }
}
