//! The kernel modules in the initramfs: which one drives a device, and in which order to load it.
//!
//! Reads two text files beside the modules. `modules.dep` holds `name: dep dep` with the dependencies in
//! load order; `modules.alias` holds `alias PATTERN NAME`. Names are written with `_`. Everything here is
//! pure; [`super::drivers`] does the loading.

use std::collections::{BTreeMap, BTreeSet};

use super::glob;

/// What the two index files say.
#[derive(Debug, Default, Clone)]
pub struct ModuleIndex {
    dependencies: BTreeMap<String, Vec<String>>,
    aliases: Vec<(String, String)>,
}

impl ModuleIndex {
    /// Reads the text of `modules.dep` and `modules.alias`. Lines that do not have the documented form are
    /// passed over: one damaged line must not keep a machine from booting.
    pub fn parse(dep: &str, alias: &str) -> Self {
        let dependencies = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, deps)| {
                let deps = deps.split_ascii_whitespace().map(normalized).collect();
                (normalized(name.trim()), deps)
            })
            .collect();
        let aliases = alias
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let (keyword, pattern, name) = (words.next()?, words.next()?, words.next()?);
                (keyword == "alias").then(|| (pattern.to_owned(), normalized(name)))
            })
            .collect();
        Self { dependencies, aliases }
    }

    /// The modules that say they drive a device with this modalias, in file order, each once.
    pub fn drivers_for(&self, modalias: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (pattern, name) in &self.aliases {
            if !names.contains(&name.as_str()) && glob::matches(pattern, modalias) {
                names.push(name);
            }
        }
        names
    }

    /// Everything that must be loaded for `name`, dependencies first and `name` last, without what is in
    /// `loaded`. A dependency cycle, which no linker can produce, is cut where it closes.
    pub fn load_order(&self, name: &str, loaded: &BTreeSet<String>) -> Vec<String> {
        let mut order = Vec::new();
        let mut seen = loaded.clone();
        self.visit(&normalized(name), &mut seen, &mut order);
        order
    }

    /// Appends `name` behind its dependencies; `seen` bounds the recursion to the number of modules.
    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        for dependency in self.dependencies.get(name).into_iter().flatten() {
            self.visit(dependency, seen, order);
        }
        order.push(name.to_owned());
    }
}

/// The kernel treats `-` and `_` in module names as the same character.
fn normalized(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "scsi_common:\nscsi_mod: scsi_common\nsd-mod: scsi_common scsi_mod t10_pi\nt10_pi: crc64\n\
                       crc64:\nbroken line\nvmw_pvscsi: scsi_mod\nchicken: egg\negg: chicken\n";
    const ALIAS: &str = "# comment\nalias scsi:t-0x00* sd_mod\nalias pci:v000015ADd000007C0sv*sd*bc*sc*i* vmw-pvscsi\n\
                         alias scsi:t-0x* sg\nalias short\nalias scsi:t-* sd_mod\n";

    fn index() -> ModuleIndex {
        ModuleIndex::parse(DEP, ALIAS)
    }

    #[track_caller]
    fn check_order(name: &str, loaded: &[&str], expected: &[&str]) {
        let loaded = loaded.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(index().load_order(name, &loaded), expected);
    }

    #[test]
    fn dependencies_come_before_their_dependents() {
        check_order("vmw_pvscsi", &[], &["scsi_common", "scsi_mod", "vmw_pvscsi"]);
        check_order("sd_mod", &[], &["scsi_common", "scsi_mod", "crc64", "t10_pi", "sd_mod"]);
        check_order("sd-mod", &["scsi_common", "scsi_mod"], &["crc64", "t10_pi", "sd_mod"]);
    }

    #[test]
    fn a_loaded_module_is_not_loaded_again() {
        check_order("sd_mod", &["sd_mod"], &[]);
    }

    #[test]
    fn a_cycle_ends() {
        check_order("chicken", &[], &["egg", "chicken"]);
    }

    #[test]
    fn a_module_without_an_entry_stands_alone() {
        check_order("unknown", &[], &["unknown"]);
    }

    #[test]
    fn a_device_finds_each_of_its_drivers_once() {
        let index = index();
        assert_eq!(index.drivers_for("scsi:t-0x00"), ["sd_mod", "sg"]);
        assert_eq!(
            index.drivers_for("pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00"),
            ["vmw_pvscsi"]
        );
        assert!(index.drivers_for("usb:v1234").is_empty());
    }
}
