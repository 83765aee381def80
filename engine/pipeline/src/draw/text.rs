//! Text from outside on its way into a picture: cleaned, cut, measured, escaped.

/// A text on one line of at most so many characters: control characters and runs of white space are
/// one blank, what is invisible or turns the direction of writing is left out, and what is cut ends
/// with `…`.
pub(crate) fn line(text: &str, characters_max: usize) -> String {
    let mut clean = String::new();
    let mut count = 0;
    let mut is_blank_due = false;
    for letter in text.chars() {
        if letter.is_whitespace() || letter.is_control() {
            is_blank_due = count > 0;
            continue;
        }
        if is_invisible(letter) {
            continue;
        }
        let needed = 1 + usize::from(is_blank_due);
        if count + needed > characters_max {
            while count >= characters_max && clean.pop().is_some() {
                count -= 1;
            }
            clean.truncate(clean.trim_end().len());
            clean.push('…');
            return clean;
        }
        if is_blank_due {
            clean.push(' ');
            is_blank_due = false;
        }
        clean.push(letter);
        count += needed;
    }
    clean
}

/// Marks without a width of their own, marks that turn the direction of writing, and what XML has
/// no place for.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFFB}' | '\u{FFFE}' | '\u{FFFF}' | '\u{E0000}'..='\u{E0FFF}')
        || (letter as u32) & 0xFFFE == 0xFFFE
}

fn is_combining(letter: char) -> bool {
    matches!(letter, '\u{0300}'..='\u{036F}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05BD}'
        | '\u{064B}'..='\u{065F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}'
        | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
}

fn is_wide(letter: char) -> bool {
    matches!(letter, '\u{1100}'..='\u{115F}' | '\u{231A}'..='\u{231B}' | '\u{23E9}'..='\u{23F3}'
        | '\u{2E80}'..='\u{303E}' | '\u{3041}'..='\u{A4CF}' | '\u{A960}'..='\u{A97F}'
        | '\u{AC00}'..='\u{D7A3}' | '\u{F900}'..='\u{FAFF}' | '\u{FE30}'..='\u{FE6F}'
        | '\u{FF00}'..='\u{FF60}' | '\u{FFE0}'..='\u{FFE6}' | '\u{1F000}'..='\u{1FAFF}'
        | '\u{20000}'..='\u{3FFFD}')
}

/// How many columns of a terminal a letter takes.
pub(crate) fn columns_of(letter: char) -> usize {
    match (is_combining(letter), is_wide(letter)) {
        (true, _) => 0,
        (_, true) => 2,
        _ => 1,
    }
}

/// How many columns of a terminal a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Width of a text in bold, in pixels at a font size: more than the fonts of common systems need.
pub(crate) fn bold_width(text: &str, size: f64) -> f64 {
    let of = |letter: char| match letter {
        _ if is_combining(letter) => 0.0,
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.36,
        'f' | 'r' | 't' | ' ' | '(' | ')' | '[' | ']' | '-' | '/' => 0.44,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.98,
        'A'..='Z' => 0.74,
        _ if is_wide(letter) => 1.05,
        _ => 0.64,
    };
    text.chars().map(of).sum::<f64>() * size
}

/// Width of a text in a font of equal widths.
pub(crate) fn mono_width(text: &str, size: f64) -> f64 {
    columns(text) as f64 * 0.605 * size
}

/// Escaped for XML: text and attributes.
pub(crate) fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Escaped for a label of Graphviz in the manner of HTML: there too a backslash begins something
/// (`\N` is the node's name), even where it is written as an entity.
pub(crate) fn dot(text: &str) -> String {
    xml(text).replace('\\', "\\\\")
}

/// Escaped for a quoted text of Mermaid, which has its own way to write entities and reads HTML and
/// Markdown behind them: only what certainly means itself stands as it is.
pub(crate) fn mermaid(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut is_in_word = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_word = letter.is_alphanumeric();
        let is_plain = match letter {
            ' ' | ',' | '/' | '=' | '(' | ')' | '…' | '·' => true,
            // Inside of a word they begin no list and no emphasis.
            '.' | '_' => is_in_word && letters.peek().is_some_and(|next| next.is_alphanumeric()),
            _ => is_word,
        };
        if is_plain {
            escaped.push(letter);
        } else {
            escaped.push_str(&format!("#{};", letter as u32));
        }
        // It takes these two letters for the end of a line even where they are written as entities.
        if letter == '\\' && letters.peek() == Some(&'n') {
            escaped.push_str("#8203;");
        }
        is_in_word = is_word;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_clean_and_short() {
        for (text, line_of_it) in [
            ("  a \n\t b\u{0} ", "a b"),
            ("a\u{202E}b\u{200B}c\u{FFFE}", "abc"),
            ("12345678", "12345678"),
            ("123456789", "1234567…"),
            ("123456 89", "123456…"),
            ("1234567 9", "1234567…"),
            ("größer🚚🚚", "größer🚚🚚"),
            ("", ""),
        ] {
            assert_eq!(line(text, 8), line_of_it);
            assert!(line(text, 8).chars().count() <= 8);
        }
        assert_eq!(line("ab", 1), "…");
    }

    #[test]
    fn widths_are_of_what_is_seen() {
        assert_eq!(columns("abc"), 3);
        assert_eq!(columns("温度"), 4);
        assert_eq!(columns("e\u{301}"), 1);
        assert!(bold_width("mmm", 10.0) > bold_width("iii", 10.0));
    }

    #[test]
    fn what_has_a_meaning_is_escaped() {
        assert_eq!(xml("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
        assert_eq!(dot("\\N<"), "\\\\N&lt;");
        assert_eq!(mermaid("a_b _c 1.5 2. x"), "a_b #95;c 1.5 2#46; x");
        assert_eq!(mermaid("\"<#\\n"), "#34;#60;#35;#92;#8203;n");
    }
}
