//! Places in a text: the parser's lines and columns as bytes.

use std::ops::Range;

use datafusion_sql::sqlparser::tokenizer::{Location, Span};

/// Byte offset of a line and column (both from 1, columns in characters); the end if it is beyond.
pub(crate) fn offset(text: &str, Location { line, column }: Location) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match text[start..].find('\n') {
            Some(end) => start += end + 1,
            None => return text.len(),
        }
    }
    let column = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    text[start..]
        .char_indices()
        .nth(column)
        .map_or(text.len(), |(index, _)| start + index)
}

/// The bytes of a span; all of the text if the parser does not know where it is.
pub(crate) fn range(text: &str, span: Span) -> Range<usize> {
    if span.start.line == 0 || span.end.line == 0 {
        return 0..text.len();
    }
    let start = offset(text, span.start);
    let mut end = offset(text, span.end).max(start);
    // The parser's span of a call ends before its last parenthesis.
    let part = &text[start..end];
    let rest = &text[end..];
    if part.matches('(').count() > part.matches(')').count() && rest.trim_start().starts_with(')') {
        end += rest.len() - rest.trim_start().len() + 1;
    }
    start..end
}

/// The place that a parser's message ends with (`… at Line: 1, Column: 7`), and the message
/// without it.
pub(crate) fn place_in(message: &str) -> (String, Option<Location>) {
    let Some((rest, place)) = message.rsplit_once(" at Line: ") else {
        return (message.to_owned(), None);
    };
    let Some((line, column)) = place.split_once(", Column: ") else {
        return (message.to_owned(), None);
    };
    let digits = |text: &str| -> Option<u64> {
        let end = text
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let location = digits(line)
        .zip(digits(column))
        .map(|(line, column)| Location { line, column });
    (rest.to_owned(), location)
}

/// The word (or the one character) at a place.
pub(crate) fn word_at(text: &str, start: usize) -> Range<usize> {
    let rest = text.get(start..).unwrap_or("");
    let word = rest
        .find(|letter: char| !(letter.is_alphanumeric() || letter == '_'))
        .unwrap_or(rest.len());
    let length = if word == 0 {
        rest.chars().next().map_or(0, char::len_utf8)
    } else {
        word
    };
    start..start + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bytes_whatever_the_letters() {
        let text = "größe > 1 AND\n  tempärature > 2";
        let place = |line, column| offset(text, Location { line, column });
        assert_eq!(&text[place(1, 7)..], "> 1 AND\n  tempärature > 2");
        assert_eq!(&text[place(2, 3)..], "tempärature > 2");
        assert_eq!(place(9, 9), text.len());
        assert_eq!(&text[word_at(text, place(2, 3))], "tempärature");
        assert_eq!(&text[word_at(text, place(1, 7))], ">");
    }

    #[test]
    fn a_message_is_parted_from_its_place() {
        let (message, place) = place_in("Expected: an expression, found: ) at Line: 1, Column: 12");
        assert_eq!(message, "Expected: an expression, found: )");
        assert_eq!(
            place,
            Some(Location {
                line: 1,
                column: 12
            })
        );
        assert_eq!(place_in("nowhere"), ("nowhere".to_owned(), None));
    }
}
