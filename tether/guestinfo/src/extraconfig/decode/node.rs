//! One place of the key tree as a serde deserializer, which looks up what it is asked for.

use std::collections::HashMap;
use std::str::FromStr;

use base64::Engine as _;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};

use super::super::{format, scalar::unescape_nil};
use super::access::{Entries, Fields, Items};
use super::{Fault, Key, Pass};

/// The most entries that a map may have. An entry costs far more memory than its name does in the
/// index.
const MAX_NAMES: usize = 10_000;

/// A key, and for an item of a joined list or the name of a map's entry also its text.
pub(super) struct Node<'a> {
    pub(super) pass: &'a Pass<'a>,
    pub(super) key: Key,
    pub(super) text: Option<String>,
}

impl<'a> Node<'a> {
    pub(super) fn at(pass: &'a Pass<'a>, key: Key) -> Self {
        Self { pass, key, text: None }
    }

    /// The value as it was meant, empty for `<nil>`.
    fn text(&mut self) -> Option<String> {
        self.text.take().or_else(|| {
            let value = self.pass.value(&self.key.to_string())?;
            Some(unescape_nil(&value).to_owned())
        })
    }

    /// The value as a `T`; the default if it is absent or empty (as VIC has it) or, told, if it is
    /// no `T`.
    fn number<T: FromStr + Default>(mut self, expected: &str) -> T {
        let Some(text) = self.text().filter(|text| !text.is_empty()) else { return T::default() };
        text.parse().unwrap_or_else(|_| {
            self.pass.report(&self.key, Some(&text), expected);
            T::default()
        })
    }

    fn boolean(mut self) -> bool {
        let Some(text) = self.text() else { return false };
        match text.as_str() {
            "true" | "TRUE" | "True" | "t" | "T" | "1" => true,
            "false" | "FALSE" | "False" | "f" | "F" | "0" | "" => false,
            _ => {
                self.pass.report(&self.key, Some(&text), "true or false");
                false
            }
        }
    }

    fn bytes(mut self) -> Vec<u8> {
        let Some(text) = self.text() else { return Vec::new() };
        base64::engine::general_purpose::STANDARD.decode(&text).unwrap_or_else(|_| {
            // Not shown: what stands in base64 is key material more often than not.
            let found = format!("({} bytes)", text.len());
            let (key, expected) = (self.key.to_string(), "base64".to_owned());
            self.pass.push(super::DecodeError { key, found, expected });
            Vec::new()
        })
    }

    /// The text of a value of the format `name`, which is certain to be one.
    fn formatted(&mut self, name: &'static str) -> String {
        let text = self.text().unwrap_or_default();
        let Some((stand_in, expected)) = format::fault(name, &text) else { return text };
        if !text.is_empty() {
            self.pass.report(&self.key, Some(&text), expected);
        }
        stand_in.to_owned()
    }

    /// How many items the list has by its index: one more than the number that stands there.
    fn length(&self) -> usize {
        let value = self.pass.value(&self.key.to_string());
        let Some(value) = value.as_deref().map(unescape_nil) else {
            if let Some(items) = self.pass.value(&self.key.list().to_string()) {
                let expected = "with it the number of its items less one at the key without the ~";
                self.pass.report(&self.key.list(), Some(&items), expected);
            }
            return 0;
        };
        match value.parse::<i64>().ok().and_then(|last| usize::try_from(last.checked_add(1)?).ok())
        {
            Some(length) => length,
            None if value.is_empty() => 0,
            None => {
                let expected = "the number of the list's items less one";
                self.pass.report(&self.key, Some(value), expected);
                0
            }
        }
    }

    /// The items of a list of scalars.
    fn parts(&self, length: usize) -> Vec<String> {
        let list = self.key.list();
        let Some(joined) = self.pass.value(&list.to_string()) else { return Vec::new() };
        let joined = unescape_nil(&joined);
        let n_parts = joined.split('|').count();
        if n_parts < length {
            self.pass.report(
                &list,
                Some(joined),
                format!("{length} items joined by |, as {} says", self.key),
            );
        }
        if n_parts > length
            && let Some(whole) = self.whole_parts(joined, length)
        {
            return whole;
        }
        joined.split('|').take(length).map(str::to_owned).collect()
    }

    /// The items by the extra keys that keep those with a `|` in them; `None` if those do not fit.
    fn whole_parts(&self, joined: &str, length: usize) -> Option<Vec<String>> {
        let mut rest = Some(joined);
        let mut parts = Vec::new();
        while parts.len() < length {
            let here = rest?;
            let extra = self.pass.value(&self.key.item(parts.len()).to_string());
            let (part, after) = match extra.filter(|extra| extra.contains('|')) {
                Some(whole) => {
                    let after = here.strip_prefix(whole.as_ref())?;
                    (
                        whole.into_owned(),
                        if after.is_empty() { None } else { Some(after.strip_prefix('|')?) },
                    )
                }
                None => match here.split_once('|') {
                    Some((part, after)) => (part.to_owned(), Some(after)),
                    None => (here.to_owned(), None),
                },
            };
            parts.push(part);
            rest = after;
        }
        rest.is_none().then_some(parts)
    }

    /// The names in the index of a map, without those that cannot have keys of their own.
    fn names(&self) -> Vec<String> {
        let value = self.pass.value(&self.key.to_string());
        let Some(index) = value.as_deref().map(unescape_nil).filter(|index| !index.is_empty())
        else {
            return Vec::new();
        };
        let mut seen = HashMap::new();
        let mut names = Vec::new();
        for name in index.split('|') {
            if names.len() == MAX_NAMES {
                self.pass.report(&self.key, Some(index), format!("at most {MAX_NAMES} names"));
                break;
            }
            if name.is_empty() {
                self.pass.report(&self.key, Some(index), "names joined by |, none of them empty");
            } else if let Some(first) = seen.insert(self.key.item(name).canonical(), name) {
                let expected = format!(
                    "names with keys of their own, but {first:?} and {name:?} share theirs"
                );
                self.pass.report(&self.key, Some(index), expected);
            } else {
                names.push(name.to_owned());
            }
        }
        names
    }
}

macro_rules! numbers {
    ($($method:ident => $visit:ident, $expected:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.number($expected))
        })*
    };
}

macro_rules! strings {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
            visitor.visit_string(self.text().unwrap_or_default())
        })*
    };
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Fault;

    numbers! {
        deserialize_i8 => visit_i8, "a whole number from -128 to 127";
        deserialize_i16 => visit_i16, "a whole number of 16 bits";
        deserialize_i32 => visit_i32, "a whole number of 32 bits";
        deserialize_i64 => visit_i64, "a whole number of 64 bits";
        deserialize_u8 => visit_u8, "a whole number from 0 to 255";
        deserialize_u16 => visit_u16, "a whole number from 0 to 65535";
        deserialize_u32 => visit_u32, "a whole number of 32 bits, not below 0";
        deserialize_u64 => visit_u64, "a whole number of 64 bits, not below 0";
        deserialize_f32 => visit_f32, "a number";
        deserialize_f64 => visit_f64, "a number";
        deserialize_char => visit_char, "one character";
    }

    strings! { deserialize_any deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.boolean())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_byte_buf(self.bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_byte_buf(self.bytes())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.text.is_some() || self.pass.lookup.holds(&self.key) != Some(false) {
            visitor.visit_some(self)
        } else {
            visitor.visit_none()
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if format::is_known(name) {
            let text = self.formatted(name);
            let text: StringDeserializer<Fault> = text.into_deserializer();
            return visitor.visit_newtype_struct(text);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let length = self.length();
        let parts = self.parts(length);
        visitor.visit_seq(Items::new(self, parts, length))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let names = self.names();
        visitor.visit_map(Entries::new(self, names))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(Fields::new(self, fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let text = self.text().unwrap_or_default();
        let default = variants.first().copied().unwrap_or_default();
        let known = variants.iter().find(|variant| **variant == text);
        if known.is_none() && !text.is_empty() {
            self.pass.report(&self.key, Some(&text), format!("one of {}", variants.join(", ")));
        }
        let name: StrDeserializer<'_, Fault> = known.unwrap_or(&default).into_deserializer();
        visitor.visit_enum(name)
    }
}
