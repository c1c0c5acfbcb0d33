//! Encoding: a value that serde can describe, as extraconfig pairs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::ser::{
    self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer,
};

use super::key::{Header, Key};
use super::scalar::{Text, TextError};

/// Why a value cannot be written as pairs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A map entry whose name would break the map's index.
    #[error(
        "the entry name {name:?} of {key} is empty or holds a '|', which separates names; use another name"
    )]
    EntryName {
        /// The map.
        key: String,
        /// The name at fault.
        name: String,
    },
    /// Two entries of a map that would share their keys.
    #[error(
        "the entries {first:?} and {second:?} of {key} would share their keys, \
         in which case and the difference between '.' and '/' are lost; rename one"
    )]
    EntryTwins {
        /// The map.
        key: String,
        /// The entry that was there.
        first: String,
        /// The entry that collides with it.
        second: String,
    },
    /// A shape that the encoding has no form for.
    #[error("{key} cannot be written: {found}; expected {expected}")]
    Shape {
        /// The key where it would stand.
        key: String,
        /// What was to be written.
        found: &'static str,
        /// What can be written there.
        expected: &'static str,
    },
    /// A type's own `Serialize` failed.
    #[error("cannot be written: {0}")]
    Custom(String),
}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

/// Writes `value`, usually a struct, as pairs below `header`, in the order of its fields.
///
/// # Errors
/// The first thing in it that the encoding cannot hold.
pub fn to_pairs<T: Serialize + ?Sized>(
    value: &T,
    header: Header,
) -> Result<Vec<(String, String)>, EncodeError> {
    let mut written = Written::default();
    value.serialize(Node { written: &mut written, key: Key::root(header) })?;
    Ok(written.pairs)
}

/// What was written of a value.
#[derive(Default)]
struct Written {
    pairs: Vec<(String, String)>,
    /// The canonical keys of all its fields, of those, too, that have no pair: a reader looks there.
    fields: BTreeSet<String>,
}

/// A place to write one value to.
struct Node<'a> {
    written: &'a mut Written,
    key: Key,
}

type None_ = Impossible<(), EncodeError>;

impl<'a> Node<'a> {
    fn put<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        match value.serialize(Text { in_list: false }) {
            Ok(text) => {
                self.written.pairs.push((self.key.to_string(), text));
                Ok(())
            }
            Err(TextError::Compound) => Err(self.shape("a compound value")),
            Err(TextError::Custom(message)) => Err(EncodeError::Custom(message)),
        }
    }

    fn shape(&self, found: &'static str) -> EncodeError {
        let expected = "a scalar, a list, a map, a struct or a unit variant";
        EncodeError::Shape { key: self.key.to_string(), found, expected }
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, value: $type) -> Result<(), EncodeError> {
            self.put(&value)
        })*
    };
}

impl<'a> Serializer for Node<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = List<'a>;
    type SerializeTupleVariant = None_;
    type SerializeMap = Map<'a>;
    type SerializeStruct = Node<'a>;
    type SerializeStructVariant = None_;

    scalars! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char, serialize_str: &str,
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        if value.is_empty() {
            return Ok(());
        }
        self.put(&Bytes(value))
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.put(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), EncodeError> {
        Err(self.shape("an enum variant with content"))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, EncodeError> {
        let index = self.written.pairs.len();
        Ok(List { node: self, texts: Vec::new(), items: 0, index })
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'a>, EncodeError> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'a>, EncodeError> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<None_, EncodeError> {
        Err(self.shape("an enum variant with content"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Map<'a>, EncodeError> {
        Ok(Map { node: self, entries: BTreeMap::new(), name: String::new() })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Node<'a>, EncodeError> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<None_, EncodeError> {
        Err(self.shape("an enum variant with content"))
    }
}

/// Bytes, as serde wants them to be told from a list of numbers.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl SerializeStruct for Node<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        match self.key.field(name) {
            Some(key) => {
                self.written.fields.insert(key.canonical());
                value.serialize(Node { written: self.written, key })
            }
            None => Ok(()),
        }
    }

    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// A list being written: scalars are collected for `K~`, other items are written as they come.
struct List<'a> {
    node: Node<'a>,
    texts: Vec<String>,
    items: usize,
    /// Where its index belongs among the pairs.
    index: usize,
}

impl SerializeSeq for List<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        match value.serialize(Text { in_list: true }) {
            Ok(text) if self.items == 0 => self.texts.push(text),
            Err(TextError::Compound) if self.texts.is_empty() => {
                let key = self.node.key.item(self.items);
                self.items += 1;
                value.serialize(Node { written: self.node.written, key })?;
            }
            Err(TextError::Custom(message)) => return Err(EncodeError::Custom(message)),
            Ok(_) | Err(TextError::Compound) => {
                return Err(self.node.shape("a list of scalars and other things mixed"));
            }
        }
        Ok(())
    }

    fn end(self) -> Result<(), EncodeError> {
        let Self { node: Node { written, key }, texts, items, index } = self;
        let pairs = &mut written.pairs;
        let Some(last) = (texts.len() + items).checked_sub(1) else {
            return Ok(());
        };
        // The index goes before its items.
        pairs.insert(index.min(pairs.len()), (key.to_string(), last.to_string()));
        if !texts.is_empty() {
            pairs.push((key.list().to_string(), texts.join("|")));
        }
        let whole = texts.into_iter().enumerate().filter(|(_, text)| text.contains('|'));
        pairs.extend(whole.map(|(at, text)| (key.item(at).to_string(), text)));
        Ok(())
    }
}

impl ser::SerializeTuple for List<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), EncodeError> {
        SerializeSeq::end(self)
    }
}

impl ser::SerializeTupleStruct for List<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), EncodeError> {
        SerializeSeq::end(self)
    }
}

/// A map being written; entries wait so that they follow their index, in its order.
struct Map<'a> {
    node: Node<'a>,
    entries: BTreeMap<String, Written>,
    /// The entry whose value comes next.
    name: String,
}

impl SerializeMap for Map<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.name = key.serialize(Text { in_list: false }).map_err(|error| match error {
            TextError::Compound => self.node.shape("a map with compound keys"),
            TextError::Custom(message) => EncodeError::Custom(message),
        })?;
        if self.name.is_empty() || self.name.contains('|') {
            return Err(EncodeError::EntryName {
                key: self.node.key.to_string(),
                name: self.name.clone(),
            });
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let key = self.node.key.item(&self.name);
        let written = self.entries.entry(std::mem::take(&mut self.name)).or_default();
        value.serialize(Node { written, key })
    }

    fn end(self) -> Result<(), EncodeError> {
        let Node { written, key } = self.node;
        if self.entries.is_empty() {
            return Ok(());
        }
        let twins = |first: &String, second: &String| {
            let (key, first, second) = (key.to_string(), first.clone(), second.clone());
            EncodeError::EntryTwins { key, first, second }
        };
        let mut seen = HashMap::new();
        for name in self.entries.keys() {
            if let Some(first) = seen.insert(key.item(name).canonical(), name) {
                return Err(twins(first, name));
            }
        }
        // A name can look like a path into another entry; that must not be to one of its fields.
        let fields = self
            .entries
            .iter()
            .flat_map(|(name, entry)| entry.fields.iter().map(move |field| (field.as_str(), name)));
        let owners: HashMap<&str, &String> = fields.collect();
        for (path, name) in &seen {
            let above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
            let mut above = above.chain([path.as_str()]).filter_map(|part| owners.get(part));
            if let Some(owner) = above.next() {
                return Err(twins(owner, name));
            }
        }
        let names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        written.pairs.push((key.to_string(), names.join("|")));
        for entry in self.entries.into_values() {
            written.pairs.extend(entry.pairs);
            written.fields.extend(entry.fields);
        }
        Ok(())
    }
}
