//! The text of one scalar value, and what cannot be written as one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Impossible, Serialize, Serializer};

use super::format;

/// What stands for an empty string where empty values are not kept (vSphere, `info-set`).
pub const NIL: &str = "<nil>";

/// The value as vSphere must be given it: [`NIL`] instead of an empty one.
pub fn escape_nil(value: &str) -> &str {
    if value.is_empty() { NIL } else { value }
}

/// The value that vSphere meant: empty instead of [`NIL`].
pub fn unescape_nil(value: &str) -> &str {
    if value == NIL { "" } else { value }
}

/// Go's `%E` with as few digits as give the number back: `3.14E+00`.
fn exponent_form(number: impl fmt::UpperExp) -> String {
    let text = format!("{number:E}");
    let Some((digits, exponent)) = text.split_once('E') else { return text };
    let (sign, size) = match exponent.strip_prefix('-') {
        Some(size) => ('-', size),
        None => ('+', exponent),
    };
    format!("{digits}E{sign}{size:0>2}")
}

/// Why a value has no text of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TextError {
    /// It is a list, a map, a struct, or nothing.
    #[error("not a scalar")]
    Compound,
    /// Its own `Serialize` failed.
    #[error("{0}")]
    Custom(String),
}

impl serde::ser::Error for TextError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

/// Turns a scalar into its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    /// Whether it is to stand among others in a `K~`, where IP addresses and times never do.
    pub(super) in_list: bool,
}

type None_ = Impossible<String, TextError>;

macro_rules! displayed {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, value: $type) -> Result<String, TextError> {
            Ok(value.to_string())
        })*
    };
}

macro_rules! compound {
    ($($method:ident($($argument:ty),*) -> $ok:ty),* $(,)?) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$ok, TextError> {
            Err(TextError::Compound)
        })*
    };
}

impl Serializer for Text {
    type Ok = String;
    type Error = TextError;
    type SerializeSeq = None_;
    type SerializeTuple = None_;
    type SerializeTupleStruct = None_;
    type SerializeTupleVariant = None_;
    type SerializeMap = None_;
    type SerializeStruct = None_;
    type SerializeStructVariant = None_;

    displayed! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_char: char,
        serialize_str: &str,
    }

    fn serialize_f32(self, value: f32) -> Result<String, TextError> {
        Ok(exponent_form(value))
    }

    fn serialize_f64(self, value: f64) -> Result<String, TextError> {
        Ok(exponent_form(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<String, TextError> {
        Ok(STANDARD.encode(value))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, TextError> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<String, TextError> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<String, TextError> {
        if self.in_list && format::is_known(name) {
            return Err(TextError::Compound);
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, TextError> {
        Err(TextError::Compound)
    }

    compound! {
        serialize_none() -> String,
        serialize_unit() -> String,
        serialize_unit_struct(&'static str) -> String,
        serialize_seq(Option<usize>) -> None_,
        serialize_tuple(usize) -> None_,
        serialize_tuple_struct(&'static str, usize) -> None_,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> None_,
        serialize_map(Option<usize>) -> None_,
        serialize_struct(&'static str, usize) -> None_,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> None_,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (number, text) in [
            (2.5, "2.5E+00"),
            (0.0, "0E+00"),
            (-1.5e-7, "-1.5E-07"),
            (1e300, "1E+300"),
            (12.0, "1.2E+01"),
        ] {
            assert_eq!(exponent_form(number), text);
            assert_eq!(text.parse(), Ok(number));
        }
    }
}
