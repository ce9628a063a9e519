//! Text that others wrote, fit for a terminal.
//!
//! Names of files, messages of commits and what the other side says may hold what a terminal takes for commands, and
//! characters that turn the direction of what follows. Both are shown as escapes, never sent.
//! Not done here: what is printed for programs (`--json`, the text of a state) is as it is.

/// In one line.
pub fn shown(text: &str) -> String {
    escape(text, |_| false)
}

/// With its lines and tabs.
pub fn shown_lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// In quotes, as far as an error has room for it.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 300;
    let short: String = text.chars().take(MOST).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("\"{}\"{more}", shown(&short))
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() || turns(c)) && !keep(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether it turns or isolates the direction of text.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_not_sent() {
        assert_eq!(shown("a\u{1b}[31m\rb\n"), "a\\u{1b}[31m\\rb\\n");
        assert_eq!(shown("gr\u{fc}n \u{202e}\u{9b}2J"), "gr\u{fc}n \\u{202e}\\u{9b}2J");
        assert_eq!(shown_lines("a\tb\nc\u{7}"), "a\tb\nc\\u{7}");
        assert_eq!(quoted("a\r"), "\"a\\r\"");
        assert!(quoted(&"x".repeat(10_000)).chars().count() < 310);
    }
}
