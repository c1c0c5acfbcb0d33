//! Shell-style patterns as `modules.alias` uses them: `*`, `?` and `[...]`, nothing else.
//!
//! The kernel's build tools write device aliases as `fnmatch(3)` patterns without path rules, so a `*`
//! also spans `/` and `:`. Matching is iterative and keeps one backtracking point, so a hostile pattern
//! costs at most `pattern × text` steps and no stack.

/// Says whether `text` matches `pattern` from its first to its last byte.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to resume after the last `*`: the pattern behind it, and the text it has not yet swallowed.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(width) = one_byte(&pattern[p..], text[t]) {
            p += width;
            t += 1;
        } else if let Some((after_star, swallowed)) = retry {
            p = after_star;
            t = swallowed + 1;
            retry = Some((after_star, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// The pattern bytes used up when the element at the front of `pattern` accepts `byte`.
fn one_byte(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match class(&pattern[1..], byte) {
            Some((true, width)) => Some(width + 1),
            Some((false, _)) => None,
            // An unclosed bracket is an ordinary character, as in fnmatch(3).
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// Reads a bracket expression (after its `[`): whether it holds `byte`, and its length with the `]`.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let mut at = start;
    let mut found = false;
    loop {
        let low = *pattern.get(at)?;
        // A `]` in first place is a member, not the end.
        if low == b']' && at > start {
            return Some((found != negated, at + 1));
        }
        if pattern.get(at + 1) == Some(&b'-') && pattern.get(at + 2).is_some_and(|&b| b != b']') {
            found |= (low..=pattern[at + 2]).contains(&byte);
            at += 3;
        } else {
            found |= low == byte;
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_accept_what_fnmatch_accepts() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b:c", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("a*b*c", "aXbYbZc", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("[0-9]x", "5x", true),
            ("[0-9]x", "ax", false),
            ("[!0-9]x", "ax", true),
            ("[^0-9]x", "5x", false),
            ("[]]", "]", true),
            ("[a-]", "-", true),
            ("[a", "[a", true),
            ("[a", "a", false),
            ("abc**", "abc", true),
            ("acpi*:QEMU0002:*", "acpi:QEMU0002:", true),
            (
                "pci:v000015ADd000007C0sv*sd*bc*sc*i*",
                "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00",
                true,
            ),
            (
                "pci:v000015ADd000007B0sv*sd*bc*sc*i*",
                "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00",
                false,
            ),
            ("scsi:t-0x00*", "scsi:t-0x00", true),
            ("scsi:t-0x0[045]*", "scsi:t-0x05", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(2000)));
    }
}
