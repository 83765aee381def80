//! CSV that people write or export: a line after the other, none of them kept longer than it takes,
//! with the cells of each. A line that is wrong is told by its number, and the next one is read.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use crate::exit::{Failure, IO};

/// Longest line, in bytes: as many attributes as an identity may have, of the longest that may be.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The lines of a file.
pub struct Lines {
    input: Box<dyn BufRead>,
    from: PathBuf,
    number: u64,
}

/// A line that is not empty.
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// Its text without its end and spaces around it, or what is wrong with it.
    pub text: Result<String, String>,
}

impl Lines {
    /// Those of a file; `-` is standard input.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(from: &Path) -> Result<Self, Failure> {
        let input: Box<dyn BufRead> = if from == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(from).map_err(|error| unreadable(from, &error))?;
            Box::new(BufReader::new(file))
        };
        Ok(Self {
            input,
            from: from.to_owned(),
            number: 0,
        })
    }

    /// The next one that is not empty; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let bytes = next_line(&mut *self.input);
            let Some(bytes) = bytes.map_err(|error| unreadable(&self.from, &error))? else {
                return Ok(None);
            };
            self.number += 1;
            let text = text(&bytes).map(|text| text.trim_start_matches('\u{feff}').trim());
            if text != Ok("") {
                return Ok(Some(Line {
                    number: self.number,
                    text: text.map(str::to_owned),
                }));
            }
        }
    }
}

fn unreadable(from: &Path, error: &io::Error) -> Failure {
    Failure::new(IO, format!("{} cannot be read: {error}", from.display()))
}

fn text(line: &[u8]) -> Result<&str, String> {
    if line.len() > LINE_BYTES_MAX && !line.ends_with(b"\n") {
        return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
    }
    std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())
}

/// The bytes of the next line, of one that is too long only the first ones.
fn next_line(input: &mut dyn BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    if (&mut *input).take(limit).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() > LINE_BYTES_MAX && !bytes.ends_with(b"\n") {
        let mut rest = Vec::new();
        // The rest of it, piece by piece.
        while (&mut *input).take(limit).read_until(b'\n', &mut rest)? > 0 {
            if rest.ends_with(b"\n") {
                break;
            }
            rest.clear();
        }
    }
    Ok(Some(bytes))
}

/// The cells of a line, which are separated by commas. Spaces around them do not count. A cell in
/// quotes is what is between them, a quote being written twice; it ends on its line.
///
/// # Errors
/// If quotes are wrong.
pub fn cells(line: &str) -> Result<Vec<Cow<'_, str>>, String> {
    let mut cells = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (cell, behind) = first_cell(text)?;
        cells.push(cell);
        rest = behind;
    }
    Ok(cells)
}

/// The first cell, and what is behind its comma if it has one.
fn first_cell(text: &str) -> Result<(Cow<'_, str>, Option<&str>), String> {
    let Some(mut rest) = text.trim_start().strip_prefix('"') else {
        let (cell, behind) = text
            .split_once(',')
            .map_or((text, None), |(cell, behind)| (cell, Some(behind)));
        return Ok((Cow::Borrowed(cell.trim()), behind));
    };
    let mut cell = String::new();
    loop {
        let (part, behind) = rest
            .split_once('"')
            .ok_or("a quoted cell does not end on the line")?;
        cell.push_str(part);
        if let Some(behind) = behind.strip_prefix('"') {
            cell.push('"');
            rest = behind;
            continue;
        }
        return match behind.trim_start() {
            "" => Ok((cell.into(), None)),
            behind => match behind.strip_prefix(',') {
                Some(behind) => Ok((cell.into(), Some(behind))),
                None => Err(
                    "a quoted cell has text behind its end; a quote in it is written twice"
                        .to_owned(),
                ),
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_end_and_no_more_of_them_is_kept_than_may_be() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let longest = "y".repeat(LINE_BYTES_MAX);
        let text = format!("\u{feff}a\r\n\n{long}\n{longest}\n \nlast");
        let mut lines = Lines {
            input: Box::new(io::Cursor::new(text.clone())),
            from: PathBuf::new(),
            number: 0,
        };
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.number, line.text.ok()));
        }
        let expected = [
            (1, Some("a".to_owned())),
            (3, None),
            (4, Some(longest)),
            (6, Some("last".to_owned())),
        ];
        assert_eq!(found, expected);
        let mut input = text.as_bytes();
        while let Some(bytes) = next_line(&mut input).unwrap() {
            assert!(bytes.len() <= LINE_BYTES_MAX + 1);
        }
    }

    #[test]
    fn cells_are_what_is_between_commas_or_quotes() {
        for (line, expected) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            (" a , ,", &["a", "", ""]),
            (
                r#""Oslo, north" , "say ""hi""",b"#,
                &["Oslo, north", r#"say "hi""#, "b"],
            ),
            (r#"""," x ""#, &["", " x "]),
            (r#"6" pipe,"",x"#, &["6\" pipe", "", "x"]),
            ("ü,\u{a0}", &["ü", ""]),
        ] {
            assert_eq!(cells(line).unwrap(), expected, "{line}");
        }
        for wrong in [r#""a"#, r#"a,"b""#, r#""a" b"#, r#""a""b"#, r#"""""#] {
            let is_wrong = cells(wrong).is_err();
            assert_eq!(is_wrong, wrong != r#"a,"b""#, "{wrong}");
        }
    }
}
