//! A VMX file: the ordered, commented list of `name = "value"` lines that describes a VM to VMware.
//!
//! ```text
//! <ws> name <ws> = <ws> "quoted value" <ws> # comment      the form that is written
//! <ws> name <ws> = <ws> bare-value     <ws> # comment      read; a bare value ends at a blank
//! <ws> name <ws> =                                         read; the value is empty
//! <ws> # comment, or nothing                               kept as it is
//! ```
//!
//! **Values** are escaped: `|XX` is the byte with that hexadecimal number, and `"`, `|`, DEL and
//! every control byte but tab are written so (`|22`, `|7C`, `|0A`). A `|` that two hexadecimal
//! digits do not follow stands for itself, as it does for VMware.
//!
//! **Names** are compared without regard to ASCII case, and a name given twice is an error. VMware
//! writes names exactly as they are, so VIC's `guestinfo.vice./sessions|ID/tty` stands in a real
//! file with its bare `|`; other tools escape it. Both are read: in a name `|7C` is a `|`, and
//! nothing else is an escape, since `mounts|2023-data` must not turn into `mounts`, a blank and
//! `23-data`. A name is written bare, except that a `|` which would read as `|7C` is itself written
//! `|7C`. Bytes that the format has no room for in a name (blanks, `=`, `#`, `"`, NUL, line ends, a
//! byte order mark) are refused by [`Vmx::set`].
//!
//! Reading is one pass and linear. What is not touched is printed back byte for byte, CRLF
//! included; a byte order mark is dropped. Text is UTF-8: another `.encoding` is an error once a
//! byte needs it.

use std::collections::HashMap;
use std::fmt;

/// Why a text is not a VMX file: one line of it, and what should have stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {found}; expected {expected}")]
pub struct VmxError {
    /// The line at fault, counted from 1.
    pub line: usize,
    /// What stands there.
    pub found: String,
    /// What should stand there, or what to do about it.
    pub expected: String,
}

impl VmxError {
    /// The error as compilers print theirs, `FILE:LINE: found …; expected …`.
    pub fn at(&self, file: impl fmt::Display) -> String {
        format!("{file}:{}: {}; expected {}", self.line, self.found, self.expected)
    }
}

/// Why a name cannot stand in a VMX file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VmxNameError {
    /// There is no name.
    #[error("a VMX name is empty; give it at least one character")]
    Empty,
    /// A character that would end the name when it is read back.
    #[error(
        "the VMX name {name:?} holds {character:?}; \
         blanks, line ends, NUL, a byte order mark, '=', '#' and '\"' cannot be part of a name, leave them out"
    )]
    Character {
        /// The whole name.
        name: String,
        /// The first character in it that does not fit.
        character: char,
    },
}

/// A VMX file in memory.
#[derive(Debug, Clone, Default)]
pub struct Vmx {
    lines: Vec<Line>,
    /// Where each entry is, by its name in lower case.
    index: HashMap<String, usize>,
    /// What ends a line that we add; the others keep theirs.
    crlf: bool,
}

/// One line: the text as it was read or will be written, and what it says if it says anything.
#[derive(Debug, Clone)]
struct Line {
    text: String,
    entry: Option<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    value: String,
    /// What followed the value: blanks and a comment.
    tail: String,
}

impl Vmx {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a VMX file from its text or bytes.
    ///
    /// # Errors
    /// The first line that is neither an entry, nor a comment, nor empty; that repeats a name (both
    /// lines are named); or that is not UTF-8.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, VmxError> {
        let mut bytes = text.as_ref();
        while let Some(rest) = bytes.strip_prefix(b"\xEF\xBB\xBF") {
            bytes = rest;
        }
        let mut vmx = Self::new();
        if bytes.is_empty() {
            return Ok(vmx);
        }
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for (at, raw) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = read_line(raw).map_err(|problem| problem.on_line(at + 1))?;
            vmx.crlf |= line.text.ends_with('\r');
            vmx.push(line)?;
        }
        Ok(vmx)
    }

    /// The value of `name`, whatever the case of its letters.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|(_, entry)| entry.value.as_str())
    }

    /// The line, counted from 1, on which `name` stands now.
    pub fn line_of(&self, name: &str) -> Option<usize> {
        self.entry(name).map(|(at, _)| at + 1)
    }

    /// Every entry in the order of the file: its name as spelled there, and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines
            .iter()
            .filter_map(|line| line.entry.as_ref())
            .map(|entry| (entry.name.as_str(), entry.value.as_str()))
    }

    /// Gives `name` a value: on its line, with its spelling and comment, if it has one; else on a
    /// new last line.
    ///
    /// # Errors
    /// A name that the format cannot hold.
    pub fn set(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), VmxNameError> {
        let (name, value) = (name.into(), value.into());
        if let Some(&at) = self.index.get(&folded(&name)) {
            if let Some(line) = self.lines.get_mut(at) {
                line.change(value);
            }
            return Ok(());
        }
        check_name(&name)?;
        self.index.insert(folded(&name), self.lines.len());
        let entry = Entry { name, value, tail: String::new() };
        let mut text = entry.to_string();
        if self.crlf {
            text.push('\r');
        }
        self.lines.push(Line { text, entry: Some(entry) });
        Ok(())
    }

    /// Takes the line of `name` out and returns its value. Costs time in proportion to the file.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.index.remove(&folded(name))?;
        let line = self.lines.remove(at);
        for later in self.index.values_mut().filter(|later| **later > at) {
            *later -= 1;
        }
        line.entry.map(|entry| entry.value)
    }

    fn entry(&self, name: &str) -> Option<(usize, &Entry)> {
        let at = *self.index.get(&folded(name))?;
        Some((at, self.lines.get(at)?.entry.as_ref()?))
    }

    fn push(&mut self, line: Line) -> Result<(), VmxError> {
        let at = self.lines.len();
        if let Some(entry) = &line.entry
            && let Some(first) = self.index.insert(folded(&entry.name), at)
        {
            return Err(VmxError {
                line: at + 1,
                found: format!("{:?} a second time", entry.name),
                expected: format!(
                    "each name once, and line {} has it; remove one of the two",
                    first + 1
                ),
            });
        }
        self.lines.push(line);
        Ok(())
    }
}

impl fmt::Display for Vmx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{}", line.text))
    }
}

impl Line {
    fn change(&mut self, value: String) {
        let Some(entry) = self.entry.as_mut().filter(|entry| entry.value != value) else { return };
        entry.value = value;
        let end = if self.text.ends_with('\r') { "\r" } else { "" };
        self.text = format!("{entry}{end}");
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = \"{}\"{}", escape_name(&self.name), escape_value(&self.value), self.tail)
    }
}

/// A [`VmxError`] that does not know its line yet.
#[derive(Debug, PartialEq)]
struct Problem {
    found: String,
    expected: &'static str,
}

impl Problem {
    fn new(found: impl Into<String>, expected: &'static str) -> Self {
        Self { found: found.into(), expected }
    }

    fn on_line(self, line: usize) -> VmxError {
        VmxError { line, found: self.found, expected: self.expected.to_owned() }
    }
}

fn read_line(raw: &[u8]) -> Result<Line, Problem> {
    let text = str::from_utf8(raw).map_err(|error| {
        let byte = raw.get(error.valid_up_to()).copied().unwrap_or_default();
        Problem::new(
            format!("the byte 0x{byte:02X}"),
            "UTF-8 text; convert the file to UTF-8 and set .encoding = \"UTF-8\"",
        )
    })?;
    let says = text.strip_suffix('\r').unwrap_or(text).trim_start_matches(BLANK);
    let entry = match says.chars().next() {
        None | Some('#') => None,
        Some(_) => Some(read_entry(says)?),
    };
    Ok(Line { text: text.to_owned(), entry })
}

const BLANK: [char; 2] = [' ', '\t'];

fn read_entry(says: &str) -> Result<Entry, Problem> {
    let not_an_entry = || Problem::new(start_of(says), "name = \"value\", a # comment, or nothing");
    let name_ends =
        says.find(|c| BLANK.contains(&c) || c == '=' || c == '#').ok_or_else(not_an_entry)?;
    let (name, rest) = says.split_at(name_ends);
    let rest = rest.trim_start_matches(BLANK).strip_prefix('=').ok_or_else(not_an_entry)?;
    if name.is_empty() {
        return Err(Problem::new("a '=' without a name before it", "name = \"value\""));
    }
    let (value, tail) = split_value(rest.trim_start_matches(BLANK))?;
    if !tail.trim_start_matches(BLANK).is_empty()
        && !tail.trim_start_matches(BLANK).starts_with('#')
    {
        return Err(Problem::new(
            format!("{} after the value of {name:?}", start_of(tail)),
            "nothing or a # comment there; write a value with blanks in double quotes, and a \" in it as |22",
        ));
    }
    let value = unescape(value).map_err(|_| {
        Problem::new(
            format!("a value of {name:?} whose |XX escapes do not make UTF-8"),
            "the bytes of UTF-8 text; write a literal | as |7C",
        )
    })?;
    Ok(Entry { name: unescape_name(name), value, tail: tail.to_owned() })
}

/// Cuts what follows the `=` into the value, still escaped, and the rest.
fn split_value(text: &str) -> Result<(&str, &str), Problem> {
    let Some(quoted) = text.strip_prefix('"') else {
        let ends = text.find([' ', '\t', '#']).unwrap_or(text.len());
        return Ok(text.split_at(ends));
    };
    quoted.split_once('"').ok_or_else(|| {
        Problem::new(
            format!("{} without a closing quote", start_of(text)),
            "a second \" on the same line; write a line break in a value as |0A",
        )
    })
}

fn unescape(value: &str) -> Result<String, std::string::FromUtf8Error> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'|', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                bytes.push(hex(*high) << 4 | hex(*low));
                after
            }
            _ => {
                bytes.push(first);
                after
            }
        };
    }
    String::from_utf8(bytes)
}

/// The value of a hexadecimal digit; 0 for anything else.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

fn escape_value(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' | '|' | '\0'..='\x08' | '\n'..='\x1F' | '\x7F' => {
                text.push_str(&format!("|{:02X}", c as u32))
            }
            _ => text.push(c),
        }
    }
    text
}

fn unescape_name(name: &str) -> String {
    name.replace("|7C", "|")
}

fn escape_name(name: &str) -> String {
    name.replace("|7C", "|7C7C")
}

fn check_name(name: &str) -> Result<(), VmxNameError> {
    if name.is_empty() {
        return Err(VmxNameError::Empty);
    }
    let bad =
        |c: &char| matches!(c, ' ' | '\t' | '\r' | '\n' | '\0' | '=' | '#' | '"' | '\u{FEFF}');
    match name.chars().find(bad) {
        Some(character) => Err(VmxNameError::Character { name: name.to_owned(), character }),
        None => Ok(()),
    }
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Enough of a text to recognize it by, quoted.
pub(crate) fn start_of(text: &str) -> String {
    const SHOWN: usize = 40;
    let cut = text.char_indices().nth(SHOWN).map_or(text.len(), |(cut, _)| cut);
    let (start, rest) = text.split_at(cut);
    format!("{start:?}{}", if rest.is_empty() { "" } else { "…" })
}

#[cfg(test)]
mod tests;
