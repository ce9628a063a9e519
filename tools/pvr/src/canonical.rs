//! JSON as the original writes it: the canonical form that is hashed and signed, and the indented form for people.
//!
//! Canonical: no white space, keys sorted by code point, the fewest escapes, `\u00XX` in upper case; integers as
//! plain digits in whatever form they were written, other numbers as `d.ddE[-]n`. The digits of a number are
//! kept as they were written: nothing passes through floating point, so no number is ever rounded.
//!
//! Input is RFC 8259 as `serde_json` reads it (nesting up to 128); of a key that is given twice the last counts.

use crate::error::{Error, Result};
use serde_json::{Number, Value};

/// Digits of an integer that is written out. The largest double has 309; `1e999999999` must not fill the memory.
const DIGITS_MAX: i64 = 1024;

/// How a value is laid out.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    /// One level of indentation; none means everything on one line.
    indent: Option<&'a str>,
    /// Escape `<`, `>`, `&`, U+2028 and U+2029, as Go's encoder does.
    html: bool,
}

/// The canonical form.
pub const CANONICAL: Layout<'static> = Layout { indent: None, html: false };
/// The canonical text, indented by tabs.
pub const TABS: Layout<'static> = Layout { indent: Some("\t"), html: false };
/// Indented by tabs and escaped: `pvr diff`.
pub const TABS_ESCAPED: Layout<'static> = Layout { indent: Some("\t"), html: true };
/// Indented by four spaces and escaped: files of a checkout.
pub const CHECKOUT: Layout<'static> = Layout { indent: Some("    "), html: true };

/// Writes `value`. Fails only on a number with an absurd exponent.
pub fn write(value: &Value, layout: Layout<'_>) -> Result<String> {
    let mut out = String::new();
    Writer { layout, out: &mut out }.value(value, 0)?;
    Ok(out)
}

struct Writer<'a> {
    layout: Layout<'a>,
    out: &'a mut String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(true) => self.out.push_str("true"),
            Value::Bool(false) => self.out.push_str("false"),
            Value::Number(n) => self.out.push_str(&number(n)?),
            Value::String(s) => self.string(s),
            Value::Array(items) if items.is_empty() => self.out.push_str("[]"),
            Value::Array(items) => {
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.item(i, depth + 1);
                    self.value(item, depth + 1)?;
                }
                self.line(depth);
                self.out.push(']');
            }
            Value::Object(map) if map.is_empty() => self.out.push_str("{}"),
            // The map is sorted by the bytes of its keys, which in UTF-8 is the order of code points.
            Value::Object(map) => {
                self.out.push('{');
                for (i, (key, member)) in map.iter().enumerate() {
                    self.item(i, depth + 1);
                    self.string(key);
                    self.out.push_str(if self.layout.indent.is_some() { ": " } else { ":" });
                    self.value(member, depth + 1)?;
                }
                self.line(depth);
                self.out.push('}');
            }
        }
        Ok(())
    }

    fn item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push(',');
        }
        self.line(depth);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.layout.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn string(&mut self, s: &str) {
        self.out.push('"');
        for c in s.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\u{8}' => self.out.push_str("\\b"),
                '\t' => self.out.push_str("\\t"),
                '\n' => self.out.push_str("\\n"),
                '\u{c}' => self.out.push_str("\\f"),
                '\r' => self.out.push_str("\\r"),
                '\0'..'\u{20}' => self.out.push_str(&format!("\\u{:04X}", c as u32)),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if self.layout.html => {
                    self.out.push_str(&format!("\\u{:04x}", c as u32));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// The canonical form of one number, from the text that was read.
fn number(n: &Number) -> Result<String> {
    let text = n.as_str();
    let (sign, unsigned) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // The value is 0.DIGITS × 10^point, DIGITS without zeros at either end.
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return Ok("0".into());
    }
    let leading_zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    let absurd = || Error::input(format!("number {text} has an exponent that is too large"));
    let exponent: i64 = exponent.parse().map_err(|_| absurd())?;
    let point = (whole.len() as i64 - leading_zeros as i64).checked_add(exponent).ok_or_else(absurd)?;
    if point >= digits.len() as i64 {
        if point > DIGITS_MAX {
            return Err(absurd());
        }
        return Ok(format!("{sign}{digits}{}", "0".repeat(point as usize - digits.len())));
    }
    let (first, rest) = digits.split_at(1);
    Ok(format!("{sign}{first}.{}E{}", if rest.is_empty() { "0" } else { rest }, point - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        write(&serde_json::from_str(text).unwrap(), CANONICAL).unwrap()
    }

    #[test]
    fn the_reference_example() {
        assert_eq!(
            canonical(r#"{"z":1.0,"y":1e3,"f":0.10,"x":"é</&>\u0001"}"#),
            "{\"f\":1.0E-1,\"x\":\"é</&>\\u0001\",\"y\":1000,\"z\":1}"
        );
    }

    #[test]
    fn numbers_are_never_rounded() {
        assert_eq!(
            canonical("[12345678901234567890, 0.00120, 100.5, -0.0]"),
            "[12345678901234567890,1.2E-3,1.005E2,0]"
        );
    }

    #[test]
    fn an_absurd_exponent_is_refused() {
        let value = serde_json::from_str("[1e999999999]").unwrap();
        assert!(write(&value, CANONICAL).is_err());
        let value = serde_json::from_str("[1e99999999999999999999]").unwrap();
        assert!(write(&value, CANONICAL).is_err());
        assert_eq!(canonical("[1e-400]"), "[1.0E-400]");
    }

    #[test]
    fn layouts() {
        let value = serde_json::from_str(r#"{"a":[],"b":{"c":"<"}}"#).unwrap();
        assert_eq!(write(&value, TABS).unwrap(), "{\n\t\"a\": [],\n\t\"b\": {\n\t\t\"c\": \"<\"\n\t}\n}");
        assert_eq!(write(&value, CHECKOUT).unwrap().lines().nth(3).unwrap(), "        \"c\": \"\\u003c\"");
    }
}
