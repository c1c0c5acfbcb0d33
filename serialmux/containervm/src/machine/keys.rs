//! Typed access to the entries of a VMX file, with errors that name file and line.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use guestinfo::Vmx;

use super::MachineError;

/// The entries of one file.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    vmx: &'a Vmx,
    file: &'a Path,
}

impl<'a> Keys<'a> {
    pub(super) fn new(vmx: &'a Vmx, file: &'a Path) -> Self {
        Self { vmx, file }
    }

    /// A value; an empty one counts as none, as VMware has it.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.vmx.get(key).filter(|value| !value.is_empty())
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, MachineError> {
        let words = [
            ("true", true),
            ("false", false),
            ("yes", true),
            ("no", false),
            ("1", true),
            ("0", false),
        ];
        match self.text(key) {
            None => Ok(default),
            Some(text) => words
                .iter()
                .find(|(word, _)| text.eq_ignore_ascii_case(word))
                .map(|(_, value)| *value)
                .ok_or_else(|| self.fault(key, "\"TRUE\" or \"FALSE\"")),
        }
    }

    pub(super) fn number(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, MachineError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match text.trim().parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                Err(self
                    .fault(key, &format!("a number between {} and {}", range.start(), range.end())))
            }
        }
    }

    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, MachineError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.fault(key, &words.join(" or "))
        })
    }

    /// Whether a device is there and plugged in when the VM starts.
    pub(super) fn present(&self, device: &str) -> Result<bool, MachineError> {
        self.flag(&format!("{device}.present"), false)
    }

    /// The file a key names, from the VMX file's directory.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(text)
    }

    /// The file that a device cannot do without; it must be there.
    pub(super) fn existing_file(&self, device: &str, what: &str) -> Result<PathBuf, MachineError> {
        let key = format!("{device}.fileName");
        let text = self
            .text(&key)
            .ok_or_else(|| self.missing(&format!("{device}.present"), &key, what))?;
        let path = self.path(text);
        if !path.is_file() {
            return Err(self.fault(&key, &format!("{what}; there is no file {}", path.display())));
        }
        Ok(path)
    }

    pub(super) fn fault(&self, key: &str, expected: &str) -> MachineError {
        MachineError::Value {
            file: self.file.display().to_string(),
            line: self.vmx.line_of(key).unwrap_or(1),
            key: key.to_owned(),
            found: self.vmx.get(key).unwrap_or_default().to_owned(),
            expected: expected.to_owned(),
        }
    }

    pub(super) fn missing(&self, because: &str, key: &str, expected: &str) -> MachineError {
        MachineError::Missing {
            file: self.file.display().to_string(),
            line: self.vmx.line_of(because).unwrap_or(1),
            because: because.to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
        }
    }
}
