//! A key of the extraconfig encoding: where a value lives, and by its spelling who may write it.

use std::fmt;

/// What every key that the guest can see starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Header {
    /// `guestinfo.vice.`, VIC 0.6 and later.
    #[default]
    Vice,
    /// `guestinfo.`, VIC 0.5 and earlier.
    Bare,
}

impl Header {
    /// The header's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vice => "guestinfo.vice.",
            Self::Bare => "guestinfo.",
        }
    }
}

/// Who sees and who writes a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// The guest does not see it.
    Hidden,
    /// The host writes, the guest reads.
    ReadOnly,
    /// The guest may write it too.
    ReadWrite,
}

/// A key, built from the root downwards.
///
/// The separator after the header is the mark of access, and it rules the whole path: a read-write
/// field below a read-only parent turns every `/` of the path into `.`, a read-only one does the
/// reverse, and a hidden one drops header and mark. A map entry's name is part of the path and is
/// turned as well, so children of `vol.1` are found under `vol/1`; two names that differ only so
/// cannot be told apart (nor can VIC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    header: Header,
    visible: bool,
    /// What follows the header, mark included; the whole path when hidden. Without suffixes.
    path: String,
    secret: bool,
    non_persistent: bool,
}

const SECRET: &str = "@secret";
const NON_PERSISTENT: &str = "@non-persistent";

impl Key {
    /// The key above all others, which itself is never written.
    pub const fn root(header: Header) -> Self {
        Self { header, visible: true, path: String::new(), secret: false, non_persistent: false }
    }

    /// The key of the field that calls itself `name` below this one (see the module for the marks);
    /// `None` for a field that is left out, being hidden and non-persistent.
    pub fn field(&self, name: &str) -> Option<Self> {
        let (name, non_persistent) = without(name, NON_PERSISTENT);
        let (name, secret) = without(name, SECRET);
        let mut rest = name.chars();
        let (mark, name) = match rest.next() {
            Some('/') => (Some(Access::ReadOnly), rest.as_str()),
            Some('.') => (Some(Access::ReadWrite), rest.as_str()),
            Some('-') => (Some(Access::Hidden), rest.as_str()),
            _ if secret => (Some(Access::ReadOnly), name),
            _ => (None, name),
        };
        if mark == Some(Access::Hidden) && non_persistent {
            return None;
        }
        let access = mark.unwrap_or_else(|| self.inferred());
        Some(Self {
            header: self.header,
            visible: access != Access::Hidden,
            path: self.join(access, name),
            secret: secret || (mark.is_none() && self.secret),
            non_persistent: non_persistent || self.non_persistent,
        })
    }

    /// The key of one entry of the map, or one item of the list, that this key is the index of.
    pub fn item(&self, name: impl fmt::Display) -> Self {
        self.with_path(format!("{}|{name}", self.path))
    }

    /// The key of the joined items of the list whose length this key holds.
    pub fn list(&self) -> Self {
        self.with_path(format!("{}~", self.path))
    }

    /// Who may see and write this key.
    pub fn access(&self) -> Access {
        match (self.visible, self.path.as_bytes().first()) {
            (false, _) => Access::Hidden,
            (true, Some(b'.')) => Access::ReadWrite,
            (true, _) => Access::ReadOnly,
        }
    }

    /// Whether the value is meant to be encrypted.
    pub const fn is_secret(&self) -> bool {
        self.secret
    }

    /// Whether the value is gone once the VM is powered off.
    pub const fn is_non_persistent(&self) -> bool {
        self.non_persistent
    }

    /// The key without header, mark and suffixes, in lower case and with `/` throughout: equal for
    /// all the spellings that the children and the index of one value have.
    pub(super) fn canonical(&self) -> String {
        canonical_path(&self.path)
    }

    /// An untagged field follows its parent, judged as VIC judges it: by a `/` anywhere in its key.
    fn inferred(&self) -> Access {
        match (self.visible, self.path.contains('/')) {
            (false, _) => Access::Hidden,
            (true, true) => Access::ReadOnly,
            (true, false) => Access::ReadWrite,
        }
    }

    fn join(&self, access: Access, name: &str) -> String {
        let parent = if self.visible { self.path.get(1..).unwrap_or("") } else { &self.path };
        let gap = if parent.is_empty() { "" } else { "/" };
        match access {
            Access::Hidden => format!("{parent}{gap}{name}"),
            Access::ReadOnly => format!("/{parent}{gap}{name}").replace('.', "/"),
            Access::ReadWrite => format!("/{parent}{gap}{name}").replace('/', "."),
        }
    }

    fn with_path(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.visible {
            f.write_str(self.header.as_str())?;
        }
        f.write_str(&self.path)?;
        if self.secret {
            f.write_str(SECRET)?;
        }
        if self.non_persistent {
            f.write_str(NON_PERSISTENT)?;
        }
        Ok(())
    }
}

/// [`Key::canonical`] of a key that somebody else spelled.
pub(super) fn canonical(header: Header, key: &str) -> String {
    let (key, _) = without(key, NON_PERSISTENT);
    let (key, _) = without(key, SECRET);
    match key.split_at_checked(header.as_str().len()) {
        Some((start, path)) if start.eq_ignore_ascii_case(header.as_str()) => canonical_path(path),
        _ => canonical_path(key),
    }
}

fn canonical_path(path: &str) -> String {
    let path = path.strip_prefix(['/', '.']).unwrap_or(path);
    path.replace('.', "/").to_ascii_lowercase()
}

fn without<'a>(key: &'a str, suffix: &str) -> (&'a str, bool) {
    key.strip_suffix(suffix).map_or((key, false), |rest| (rest, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[&str], expected: &str) {
        let key = fields.iter().fold(Key::root(Header::Vice), |key, field| {
            match field.strip_prefix('|') {
                Some(item) => key.item(item),
                None if *field == "~" => key.list(),
                None => key.field(field).expect(field),
            }
        });
        assert_eq!(key.to_string(), expected);
    }

    #[test]
    fn the_mark_of_a_field_rules_the_whole_path() {
        check(&["/hostname"], "guestinfo.vice./hostname");
        check(&[".createtime"], "guestinfo.vice..createtime");
        check(&["/sessions", "|ID", ".status"], "guestinfo.vice..sessions|ID.status");
        check(&[".a", "/b/c"], "guestinfo.vice./a/b/c");
        check(&[".a", ".b/c"], "guestinfo.vice..a.b.c");
        check(
            &["/sessions", "|ID", ".diagnostics", "/debug"],
            "guestinfo.vice./sessions|ID/diagnostics/debug",
        );
        check(
            &["/sessions", "|ID", ".diagnostics", "exitlogs", "|0", "ExitStatus"],
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.ExitStatus",
        );
    }

    #[test]
    fn hiding_applies_to_one_key_and_its_untagged_children() {
        check(&["-common/name"], "common/name");
        check(
            &["/networks", "|bridge", "/network", "-aliases", "~"],
            "networks|bridge/network/aliases~",
        );
        check(&[".a", ".b", "-c"], "a.b/c");
        check(&["-a/b", "c"], "a/b/c");
        check(&["-a/b", "/c"], "guestinfo.vice./a/b/c");
        check(&["-a/b", ".c"], "guestinfo.vice..a.b.c");
    }

    #[test]
    fn suffixes_come_last_and_in_one_order() {
        check(
            &["/execs@non-persistent", "|E1", "/cmd", "/Args", "~"],
            "guestinfo.vice./execs|E1/cmd/Args~@non-persistent",
        );
        check(
            &["/execs@non-persistent", "|E1", ".started"],
            "guestinfo.vice..execs|E1.started@non-persistent",
        );
        check(&[".a", ".b/c@secret"], "guestinfo.vice..a.b.c@secret");
        check(&["k@secret@non-persistent"], "guestinfo.vice./k@secret@non-persistent");
        check(&["/k@secret", "x"], "guestinfo.vice./k/x@secret");
        check(&["/k@secret", "/x"], "guestinfo.vice./k/x");
        assert_eq!(Key::root(Header::Vice).field("-a@non-persistent"), None);
    }

    #[test]
    fn a_name_with_a_dot_is_turned_in_its_children_only() {
        check(&["/mounts", "|vol.1"], "guestinfo.vice./mounts|vol.1");
        check(&["/mounts", "|vol.1", "/dest"], "guestinfo.vice./mounts|vol/1/dest");
        check(&[".m", "|a/b", ".x"], "guestinfo.vice..m|a.b.x");
    }

    #[test]
    fn every_spelling_has_one_canonical_form() {
        let key = Key::root(Header::Vice).field("/Sessions").expect("visible").item("Id.1");
        for spelled in [
            "guestinfo.vice./sessions|id/1",
            "GuestInfo.Vice..Sessions|ID.1@non-persistent",
            "sessions|id.1@secret",
        ] {
            assert_eq!(canonical(Header::Vice, spelled), key.canonical());
        }
        assert_ne!(canonical(Header::Bare, "guestinfo.vice./sessions|id.1"), key.canonical());
    }
}
