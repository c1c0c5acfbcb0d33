//! What serde walks along while it reads a list, a map or a struct.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess};

use super::node::Node;
use super::{Fault, Key};

/// The items of a list, one by one.
pub(super) struct Items<'a> {
    list: Node<'a>,
    parts: std::vec::IntoIter<String>,
    at: usize,
    length: usize,
    /// How many values had been found when the item before the last was begun.
    n_found: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        while self.at < self.length {
            let (pass, key) = (self.list.pass, self.list.key.item(self.at));
            let text = self.parts.next();
            if text.is_none() && !self.reaches(&key) {
                break;
            }
            self.at += 1;
            if pass.skips(&key) {
                continue;
            }
            let node = Node { pass, key: key.clone(), text };
            return seed.deserialize(node).map(Some).map_err(|fault| fault.at(&key));
        }
        Ok(None)
    }
}

impl<'a> Items<'a> {
    /// The `length` items of `list`; `parts` are the texts of those that have one.
    pub(super) fn new(list: Node<'a>, parts: Vec<String>, length: usize) -> Self {
        Self { list, parts: parts.into_iter(), at: 0, length, n_found: 0 }
    }

    /// Whether there is an item at `key`. The first missing one ends the list, however long it says
    /// it is: what reading costs is bounded by what is there.
    fn reaches(&mut self, key: &Key) -> bool {
        let pass = self.list.pass;
        let found_before = std::mem::replace(&mut self.n_found, pass.n_found.get());
        let there = match pass.lookup.holds(key) {
            Some(there) => there,
            // Nobody knows, but if the item before this one had no value at all it was not there.
            None => self.at == 0 || self.n_found > found_before,
        };
        if !there && pass.lookup.holds(&self.list.key.list()) == Some(false) {
            let (at, length, index) = (self.at + 1, self.length, &self.list.key);
            pass.report(key, None, format!("item {at} of the {length} that {index} announces"));
        }
        there
    }
}

/// The entries of a map, one by one.
pub(super) struct Entries<'a> {
    map: Node<'a>,
    names: std::vec::IntoIter<String>,
    name: String,
}

impl<'a> Entries<'a> {
    pub(super) fn new(map: Node<'a>, names: Vec<String>) -> Self {
        Self { map, names: names.into_iter(), name: String::new() }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let skips = |name: &String| self.map.pass.skips(&self.map.key.item(name));
        let Some(name) = self.names.find(|name| !skips(name)) else { return Ok(None) };
        self.name.clone_from(&name);
        let (pass, key) = (self.map.pass, self.map.key.clone());
        seed.deserialize(Node { pass, key, text: Some(name) }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let key = self.map.key.item(&self.name);
        seed.deserialize(Node::at(self.map.pass, key.clone())).map_err(|fault| fault.at(&key))
    }
}

/// The fields of a struct that are there, one by one.
pub(super) struct Fields<'a> {
    node: Node<'a>,
    names: std::slice::Iter<'static, &'static str>,
    /// The field whose value comes next.
    key: Option<Key>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(node: Node<'a>, names: &'static [&'static str]) -> Self {
        Self { node, names: names.iter(), key: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let pass = self.node.pass;
        for name in self.names.by_ref() {
            let Some(key) = self.node.key.field(name) else { continue };
            if pass.skips(&key) || pass.lookup.holds(&key) == Some(false) {
                continue;
            }
            self.key = Some(key);
            let name: StrDeserializer<'_, Fault> = (*name).into_deserializer();
            return seed.deserialize(name).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let key = self.key.take().unwrap_or_else(|| self.node.key.clone());
        seed.deserialize(Node::at(self.node.pass, key.clone())).map_err(|fault| fault.at(&key))
    }
}
