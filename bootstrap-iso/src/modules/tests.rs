//! The choice of modules and its tables, over small ELF files made here.

use super::*;

/// A kernel's modules directory in the making.
struct Dir {
    dir: tempfile::TempDir,
}

impl Dir {
    /// Has everything that is required built in, so that a test names only what it is about.
    fn new() -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap() };
        let builtin: String = REQUIRED.iter().map(|it| format!("kernel/{it}.ko\n")).collect();
        fs::write(this.dir.path().join("modules.builtin"), builtin).unwrap();
        this
    }

    fn module(&self, file: &str, modinfo: &str) -> &Self {
        let path = self.dir.path().join("kernel").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, elf(modinfo.as_bytes())).unwrap();
        self
    }

    fn choose(&self) -> Result<Modules, ModulesError> {
        Modules::choose(self.dir.path(), Signatures::Keep)
    }
}

/// An ELF64 file with no more than a `.modinfo` and the section names.
fn elf(modinfo: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
    let names_at = 64 + modinfo.len() as u64;
    let sections_at = names_at + NAMES.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0".to_vec();
    bytes.extend([0; 16]);
    bytes.extend(sections_at.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    bytes.extend_from_slice(modinfo);
    bytes.extend_from_slice(NAMES);
    bytes.extend([0; 64]);
    for (name, kind, at, size) in
        [(1u32, 1u32, 64, modinfo.len() as u64), (10, 3, names_at, NAMES.len() as u64)]
    {
        bytes.extend(name.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(at.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend([0; 24]);
    }
    bytes
}

#[test]
fn dependencies_are_complete_and_in_load_order() {
    let dir = Dir::new();
    dir.module("net/e1000.ko", "depends=b-mod,c\0")
        .module("b-mod.ko", "depends=c\0")
        .module("c.ko", "depends=\0")
        .module("unasked.ko", "depends=\0");
    let modules = dir.choose().unwrap();
    assert_eq!(modules.dep_table(), "c:\nb_mod: c\ne1000: c b_mod\n");
}

#[test]
fn what_is_built_in_is_left_out_without_a_word() {
    let dir = Dir::new();
    dir.module("e1000.ko", "depends=overlay\0");
    assert_eq!(dir.choose().unwrap().dep_table(), "e1000:\n");
}

#[test]
fn a_soft_dependency_comes_first_where_it_exists() {
    let dir = Dir::new();
    dir.module("e1000.ko", "softdep=pre: d nowhere\0depends=\0").module("d.ko", "depends=\0");
    assert_eq!(dir.choose().unwrap().dep_table(), "d:\ne1000: d\n");
}

#[test]
fn aliases_name_their_module_in_its_canonical_form() {
    let dir = Dir::new();
    dir.module("e1000.ko", "alias=pci:v00008086d*\0alias=a\0depends=\0");
    assert_eq!(dir.choose().unwrap().alias_table(), "alias a e1000\nalias pci:v00008086d* e1000\n");
}

#[test]
fn a_required_module_that_is_nowhere_is_an_error_that_says_who_wanted_it() {
    let dir = Dir::new();
    dir.module("e1000.ko", "depends=lost\0");
    let text = dir.choose().unwrap_err().to_string();
    assert!(text.contains("no module lost (needed by e1000)"), "{text}");
    fs::write(dir.dir.path().join("modules.builtin"), "").unwrap();
    let text = dir.choose().unwrap_err().to_string();
    assert!(text.contains("needed by every containerVM"), "{text}");
}

#[test]
fn modules_that_depend_on_each_other_in_a_circle_are_an_error() {
    let dir = Dir::new();
    dir.module("e1000.ko", "depends=ahci\0").module("ahci.ko", "depends=e1000\0");
    assert!(matches!(dir.choose(), Err(ModulesError::Endless { .. })));
}

#[test]
fn a_compressed_module_is_decompressed() {
    let dir = Dir::new();
    dir.module("e1000.ko", "alias=x\0depends=\0");
    let path = dir.dir.path().join("kernel/e1000.ko");
    assert!(Command::new("gzip").arg(&path).status().unwrap().success());
    assert_eq!(dir.choose().unwrap().alias_table(), "alias x e1000\n");
}

#[test]
fn a_file_that_is_no_module_is_named() {
    let dir = Dir::new();
    fs::create_dir(dir.dir.path().join("kernel")).unwrap();
    fs::write(dir.dir.path().join("kernel/ahci.ko"), "not ELF").unwrap();
    let text = dir.choose().unwrap_err().to_string();
    assert!(text.contains("ahci.ko: not a kernel module"), "{text}");
}

#[test]
fn what_few_vms_load_is_packed_and_what_it_shares_with_others_is_not() {
    let dir = Dir::new();
    dir.module("fs/nfsv4.ko", "depends=nfs,crc\0")
        .module("fs/nfs.ko", "depends=\0")
        .module("crc.ko", "depends=\0")
        .module("e1000.ko", "depends=crc\0");
    let modules = dir.choose().unwrap();
    assert_eq!(modules.dep_table(), "crc:\ne1000: crc\nnfs:\nnfsv4: nfs crc\n");
    let mut archive = Archive::with_console();
    modules.add_to(&mut archive);
    let bytes = archive.to_bytes();
    let has = |name: &str| bytes.windows(name.len()).any(|it| it == name.as_bytes());
    for name in ["crc.ko\0", "e1000.ko\0", "nfs.ko.zst\0", "nfsv4.ko.zst\0"] {
        assert!(has(name), "{name}");
    }
    let packed = zstd::bulk::compress(&modules.loaded[2].content, PACKING).unwrap();
    assert!(bytes.windows(packed.len()).any(|it| it == packed), "packed by zstd");
}
