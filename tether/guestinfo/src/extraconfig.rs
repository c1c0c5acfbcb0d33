//! VIC's key/value encoding of a config ("extraconfig") as a serde data format, both ways.
//!
//! A struct becomes one key per leaf, under a header:
//!
//! ```text
//! guestinfo.vice. /sessions|ID/cmd/Path          = /bin/sh       host writes, guest reads     (read-only)
//! guestinfo.vice. .sessions|ID.status            = 0             the guest may write it       (read-write)
//! sessions|ID/common/notes                       = …             the guest does not see it    (hidden)
//! guestinfo.vice. /execs|E1/tty @non-persistent  = true          suffixes: @secret, then @non-persistent
//! ```
//!
//! # How a struct states the scope of a field
//! In its serde name, which starts with the mark that the key will show:
//!
//! | `#[serde(rename = …)]` | the field is |
//! |---|---|
//! | `"/id"`, `"/common/id"` | read-only |
//! | `".status"`, `".detail/starttime"` | read-write |
//! | `"-notes"` | hidden |
//! | `"Scheme"` | whatever its parent is (VIC's rule for an untagged field) |
//!
//! followed by `@secret` or `@non-persistent` where they apply. `@secret` without a mark is
//! read-only; `@non-persistent` is inherited by everything below; a hidden non-persistent field is
//! left out, as in VIC. [`Key`] has the rules for joining.
//!
//! # How values are written
//! | Rust | keys |
//! |---|---|
//! | string, integer, bool, float | text, base 10, `true`/`false`, `3.14E+00` |
//! | bytes ([`Blob`](crate::Blob)) | base64; no bytes: no key |
//! | unit variant of an enum | its serde name; when read, an empty value is the first variant |
//! | list of those | `K` = number of items − 1, `K~` = the items joined by `\|` |
//! | list of structs, lists, IP addresses, times | `K` = number of items − 1, items at `K\|0`, `K\|1`, … |
//! | map | `K` = the names, sorted, joined by `\|`; entries at `K\|name` |
//! | struct | its fields |
//! | `None`, empty list, empty map | no key |
//! | [`Timestamp`](crate::Timestamp), [`Ip`](crate::Ip), [`IpNet`](crate::IpNet), [`Url`](crate::Url) | see there |
//!
//! VIC has no form for a lone unsigned integer; we write base 10, which it skips.
//!
//! # Items with a `|` in them
//! VIC joins items with `|` and never escapes, so `["echo a|b"]` comes back as `["echo a"]`. We
//! write `K` and `K~` exactly as VIC does, and **for each item that holds a `|` one more key,
//! `K|i`, with that item alone**. A reader that does not know of it never asks for `K|i` of a list
//! of strings, and sees what it always saw. Ours uses the extra keys when `K~` has more parts than
//! `K` says there are items: it walks along `K~`, and where `K|i` exists the text there must be
//! exactly that. If it is not, or the walk does not end with both `K~` and the items, the extra
//! keys are left-overs of an older list (VIC never deletes a key), and the list is read as VIC
//! reads it: the first parts of `K~`, as many as there are items.
//!
//! # The empty string
//! vSphere drops a key with an empty value, so an empty string travels as [`NIL`]. [`to_pairs`]
//! writes empty strings; [`escape_nil`] is for whoever hands the pairs to vSphere. [`from_pairs`]
//! reads both.
//!
//! # Reading
//! Letter case of keys does not matter, as it does not to the hypervisor: VIC writes `User` and
//! asks for `user`. What is absent is skipped, so a `#[serde(default)]` struct keeps its defaults.
//! Every fault is reported with its key, and none hides another: the faulty leaf gets a stand-in
//! and reading goes on. Reading takes time and memory in proportion to the pairs.

mod decode;
mod encode;
mod key;
mod pairs;
mod scalar;

pub use decode::{DecodeError, DecodeErrors, Decoded, from_lookup, from_pairs};
pub use encode::{EncodeError, to_pairs};
pub use key::{Access, Header, Key};
pub use pairs::{Lookup, Pairs};
pub use scalar::{NIL, escape_nil, unescape_nil};

/// serde newtype names by which the codec knows the leaf types that have a text form of their own.
pub(crate) mod format {
    use crate::{Timestamp, ip};

    pub(crate) const IP: &str = "net.IP";
    pub(crate) const MASK: &str = "net.IPMask";
    pub(crate) const TIME: &str = "time.Time";

    /// Whether `name` is one of ours. In lists these stand at `K|i`, not in `K~`, as in VIC.
    pub(crate) fn is_known(name: &str) -> bool {
        [IP, MASK, TIME].contains(&name)
    }

    /// If `text` is not of the format `name`: a text that is, to go on with, and what was expected.
    pub(crate) fn fault(name: &str, text: &str) -> Option<(&'static str, &'static str)> {
        let (fits, stand_in, expected) = match name {
            IP => (
                ip::address(text).is_some(),
                "AAAAAA==",
                "4 or 16 bytes of an IP address in base64",
            ),
            MASK => (
                ip::mask_len(text).is_some(),
                "/////w==",
                "4 or 16 bytes of a network mask in base64, ones first",
            ),
            TIME => (
                Timestamp::parse(text).is_some(),
                "1970-01-01 00:00:00 +0000 UTC",
                "a time like 2009-11-10 23:00:00 +0000 UTC",
            ),
            _ => return None,
        };
        (!fits).then_some((stand_in, expected))
    }
}

#[cfg(test)]
mod tests;
