//! Takes CSV and TSV apart into records of cells.
//!
//! Why not with a library: whether a cell was quoted decides whether it is trimmed and whether an
//! empty one is a value, and a quote that is never closed must be an error that names the line
//! where it opened, not one value that reaches to the end of the file.
//!
//! ```text
//! start ──"──▶ quoted ──"──▶ behind ──delimiter──▶ start      "" within a quoted cell is one "
//!   └─other─▶ plain ──delimiter──▶ start                      a line end ends plain and behind
//!
//! Blanks before and behind the quotes of a cell are no part of it.
//! ```

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::FileError;

/// Longest quoted cell, in bytes: what is longer is taken for a quote that somebody forgot.
pub(super) const QUOTED_BYTES_MAX: usize = 64 * 1024;
/// Most line ends in a quoted cell, for the same reason.
pub(super) const QUOTED_LINES_MAX: u64 = 1_000;
/// Longest record, in bytes of the file.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most cells of a record: ten times what a stream has fields, for the columns that are left out.
const CELLS_MAX: usize = 10_000;
/// What some programs put in front of UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A value as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell<'a> {
    /// Without the quotes, and without the blanks around it if there were none.
    pub text: &'a str,
    /// It was between quotes: an empty one is a value then.
    pub is_quoted: bool,
}

impl<'a> Cell<'a> {
    /// A text that is a value whatever it is.
    pub fn quoted(text: &'a str) -> Self {
        Self {
            text,
            is_quoted: true,
        }
    }

    /// A text that is no value if it is empty.
    pub fn plain(text: &'a str) -> Self {
        Self {
            text,
            is_quoted: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a record: line ends mean nothing.
    Record,
    /// Before the first character of a cell.
    Start,
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell: the closing one, or the first of two.
    Behind,
}

/// The records of a file, one after the other.
pub(super) struct Records<R> {
    path: PathBuf,
    input: BufReader<R>,
    delimiter: u8,
    is_begun: bool,
    /// The line being read, from 1, and whether a CR was the last character.
    line: u64,
    is_after_cr: bool,
    /// The line of the record.
    record_line: u64,
    bytes: Vec<u8>,
    text: String,
    /// End of each cell in `text`, and whether it was quoted.
    ends: Vec<(usize, bool)>,
}

impl<R: Read> Records<R> {
    pub fn new(path: &Path, input: R, delimiter: u8) -> Self {
        Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(256 * 1024, input),
            delimiter,
            is_begun: false,
            line: 1,
            is_after_cr: false,
            record_line: 1,
            bytes: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
        }
    }

    /// What it read from.
    pub fn into_inner(self) -> R {
        self.input.into_inner()
    }

    /// The line, from 1, in which the record begins.
    pub fn begun_in(&self) -> u64 {
        self.record_line
    }

    /// Cells of the record.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The cells of the record.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |(end, is_quoted)| {
            let text = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            Cell {
                text: if *is_quoted { text } else { text.trim() },
                is_quoted: *is_quoted,
            }
        })
    }

    /// Goes to the next record; `false` at the end of the file.
    pub fn advance(&mut self) -> Result<bool, FileError> {
        self.bytes.clear();
        self.ends.clear();
        let mut state = State::Record;
        // Of the quoted cell: the line it opened in, and where its text begins.
        let (mut opened, mut start) = (0, 0);
        // Bytes of the file that the record has so far.
        let mut taken = 0;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(FileError::Io {
                        path: self.path.clone(),
                        source,
                    });
                }
            };
            if buffer.is_empty() {
                return match state {
                    State::Record => Ok(false),
                    State::Quoted => Err(self.open_quote(opened, "in the rest of the file")),
                    state => self.complete(state).map(|()| true),
                };
            }
            let mut at = 0;
            if !self.is_begun {
                self.is_begun = true;
                if buffer.starts_with(BYTE_ORDER_MARK) {
                    at = BYTE_ORDER_MARK.len();
                }
            }
            let mut fault = None;
            let mut is_complete = false;
            while at < buffer.len() && !is_complete && fault.is_none() {
                let byte = buffer[at];
                let is_line_end = byte == b'\n' || byte == b'\r';
                // Text without any meaning goes over in one piece.
                let delimiter = self.delimiter;
                let run = match state {
                    State::Plain => buffer[at..]
                        .iter()
                        .position(|byte| *byte == delimiter || matches!(byte, b'\n' | b'\r')),
                    State::Quoted => buffer[at..]
                        .iter()
                        .position(|byte| matches!(byte, b'"' | b'\n' | b'\r')),
                    _ => Some(0),
                }
                .unwrap_or(buffer.len() - at);
                if run > 0 {
                    self.bytes.extend_from_slice(&buffer[at..at + run]);
                    self.is_after_cr = false;
                    at += run;
                    taken += run;
                    fault = beyond(
                        state,
                        self.bytes.len().saturating_sub(start),
                        taken,
                        self.ends.len(),
                    );
                    continue;
                }
                at += 1;
                taken += 1;
                let line = self.line;
                if is_line_end {
                    if byte == b'\r' || !self.is_after_cr {
                        self.line += 1;
                    }
                    self.is_after_cr = byte == b'\r';
                } else {
                    self.is_after_cr = false;
                }
                if state == State::Record {
                    if is_line_end {
                        continue;
                    }
                    self.record_line = line;
                    taken = 1;
                    state = State::Start;
                }
                match (state, byte) {
                    (State::Start, b'"') => {
                        // Without the blanks in front of the quote.
                        let end = self.ends.last().map_or(0, |(end, _)| *end);
                        self.bytes.truncate(end);
                        (opened, start) = (line, self.bytes.len());
                        state = State::Quoted;
                    }
                    (State::Quoted, b'"') => state = State::Behind,
                    (State::Quoted, _) => {
                        self.bytes.push(byte);
                        if self.line - opened > QUOTED_LINES_MAX {
                            fault = Some(Fault::Long);
                        }
                    }
                    (State::Behind, b'"') => {
                        self.bytes.push(byte);
                        state = State::Quoted;
                    }
                    (_, _) if is_line_end => is_complete = true,
                    (_, byte) if byte == self.delimiter => {
                        self.ends.push((self.bytes.len(), state == State::Behind));
                        state = State::Start;
                    }
                    (State::Start, b' ' | b'\t') => self.bytes.push(byte),
                    (State::Behind, b' ' | b'\t') => {}
                    (State::Behind, _) => fault = Some(Fault::Behind),
                    (_, byte) => {
                        self.bytes.push(byte);
                        state = State::Plain;
                    }
                }
                if !is_complete && fault.is_none() {
                    fault = beyond(
                        state,
                        self.bytes.len().saturating_sub(start),
                        taken,
                        self.ends.len(),
                    );
                }
            }
            self.input.consume(at);
            match fault {
                None => {}
                Some(Fault::Long) => {
                    let within = format!(
                        "within {QUOTED_LINES_MAX} lines and {} KiB",
                        QUOTED_BYTES_MAX / 1024
                    );
                    return Err(self.open_quote(opened, &within));
                }
                Some(Fault::Behind) => {
                    return Err(self.fault(opened, format!("the quoted value that opens here goes on behind its closing quote in line {}; double the quotes that belong to a text (\"\"), or close it", self.line)));
                }
                Some(Fault::Record) => {
                    return Err(self.fault(
                        self.record_line,
                        format!(
                            "the line is longer than {RECORD_BYTES_MAX} bytes; write one row a line"
                        ),
                    ));
                }
                Some(Fault::Cells) => {
                    return Err(self.fault(
                        self.record_line,
                        format!(
                            "the line has more than {CELLS_MAX} values; write one row a line, and a column for each field"
                        ),
                    ));
                }
            }
            if is_complete {
                return self.complete(state).map(|()| true);
            }
        }
    }

    /// The record is complete: what was read becomes text.
    fn complete(&mut self, state: State) -> Result<(), FileError> {
        self.ends.push((self.bytes.len(), state == State::Behind));
        self.text.clear();
        let fault = match std::str::from_utf8(&self.bytes) {
            Ok(text) => {
                self.text.push_str(text);
                // Halves of a character in two cells would make one.
                let is_whole = |(end, _): &(usize, bool)| text.is_char_boundary(*end);
                (!self.ends.iter().all(is_whole)).then(|| "a character is cut in two".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        match fault {
            None => Ok(()),
            Some(fault) => Err(self.fault(
                self.record_line,
                format!("the line is not UTF-8 ({fault}); convert the file"),
            )),
        }
    }

    fn open_quote(&self, line: u64, within: &str) -> FileError {
        self.fault(line, format!("a quote opens here that is not closed {within}; close it, or put the text between quotes and double the quotes in it (\"\")"))
    }

    fn fault(&self, line: u64, reason: String) -> FileError {
        FileError::Line {
            path: self.path.clone(),
            line,
            reason,
        }
    }
}

enum Fault {
    /// A quoted cell goes on for too long.
    Long,
    /// Something is behind a closing quote.
    Behind,
    /// The record is too long.
    Record,
    /// The record has too many cells.
    Cells,
}

/// Whether a record goes on for longer than any may: its bytes since the last quote opened, its bytes
/// of the file, its complete cells.
fn beyond(state: State, quoted: usize, taken: usize, cells: usize) -> Option<Fault> {
    if state == State::Quoted && quoted > QUOTED_BYTES_MAX {
        Some(Fault::Long)
    } else if taken > RECORD_BYTES_MAX {
        Some(Fault::Record)
    } else if cells >= CELLS_MAX {
        Some(Fault::Cells)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives one byte at a time, so that every place of a file is the end of a buffer once.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    type Found = Vec<(u64, Vec<(String, bool)>)>;

    fn read(input: impl Read) -> Result<Found, String> {
        let mut records = Records::new(Path::new("x.csv"), input, b',');
        let mut found = Vec::new();
        while records.advance().map_err(|error| error.to_string())? {
            let cells = records.cells();
            let cells = cells.map(|cell| (cell.text.to_owned(), cell.is_quoted));
            found.push((records.begun_in(), cells.collect()));
        }
        Ok(found)
    }

    #[test]
    fn quoted_cells_are_kept_as_they_are_and_plain_ones_trimmed() {
        let found =
            read(&b"a, b ,\"  c  \",\"\",,\"x\"\"y\" \n\r\n\"1\r\n2\",5\" pipe\r\nlast"[..]);
        let cells = |cells: &[(&str, bool)]| -> Vec<(String, bool)> {
            cells
                .iter()
                .map(|(text, is_quoted)| ((*text).to_owned(), *is_quoted))
                .collect()
        };
        assert_eq!(
            found.unwrap(),
            [
                (
                    1,
                    cells(&[
                        ("a", false),
                        ("b", false),
                        ("  c  ", true),
                        ("", true),
                        ("", false),
                        ("x\"y", true)
                    ])
                ),
                (3, cells(&[("1\r\n2", true), ("5\" pipe", false)])),
                (5, cells(&[("last", false)])),
            ]
        );
    }

    #[test]
    fn a_quote_that_is_not_closed_is_an_error_that_names_its_line() {
        let rest = "1,2\n".repeat(50);
        for (text, part) in [
            (format!("a,b\n1,\"oops\n{rest}"), "rest of the file"),
            (
                format!("a,b\n1,\"oops\n{}", "1,2\n".repeat(2_000)),
                "within",
            ),
            (format!("a,b\n1,\"{}\"\n", "x".repeat(70_000)), "within"),
            (format!("a,b\n1,\"oops\n{rest}1,\"b\"\n"), "goes on behind"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(
                error.contains("x.csv, line 2") && error.contains(part),
                "{error}"
            );
        }
    }

    #[test]
    fn a_quote_behind_blanks_opens_a_quoted_cell() {
        let found = read(&b"ts, \"1.5\" ,  \" a, b\",\t\"c\",  , d \"e\n"[..]).unwrap();
        let cells: Vec<_> = found[0]
            .1
            .iter()
            .map(|(text, is_quoted)| (text.as_str(), *is_quoted))
            .collect();
        assert_eq!(
            cells,
            [
                ("ts", false),
                ("1.5", true),
                (" a, b", true),
                ("c", true),
                ("", false),
                ("d \"e", false)
            ]
        );
        let error = read(&b"ts,v\n1, \"a\"b\n"[..]).unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("goes on behind"),
            "{error}"
        );
    }

    #[test]
    fn a_record_is_bounded_in_bytes_and_cells_whatever_it_is_made_of() {
        /// So many times the same bytes, then a line end; counts what was read.
        struct Repeated(&'static [u8], usize, usize);

        impl Read for Repeated {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let whole = self.0.len() * self.1;
                let count = buffer.len().min(whole - self.2);
                for (index, byte) in buffer[..count].iter_mut().enumerate() {
                    *byte = self.0[(self.2 + index) % self.0.len()];
                }
                self.2 += count;
                Ok(count)
            }
        }

        for (piece, part) in [
            (&b"1,"[..], "more than 10000 values"),
            (b",", "more than 10000 values"),
            (b"\"\",", "more than 10000 values"),
            (b"x", "longer than 16777216 bytes"),
            (b" ", "longer than 16777216 bytes"),
            (b"\"\"", "not closed within"),
        ] {
            let mut input = Repeated(piece, 40_000_000 / piece.len(), 0);
            let error = read(&mut input).unwrap_err();
            assert!(error.contains("line 1") && error.contains(part), "{error}");
            assert!(input.2 < 18_000_000, "{}", input.2);
        }
        // Blanks behind a closing quote are not kept, and yet not read for ever.
        let behind = b"\"a\"".chain(Repeated(b" ", 40_000_000, 0));
        let error = read(behind).unwrap_err();
        assert!(error.contains("longer than"), "{error}");
        // Lines that are empty are no record.
        assert_eq!(read(Repeated(b"\n", 20_000_000, 0)).unwrap(), []);
        let widest = "1,".repeat(9_999) + "1\n";
        assert_eq!(read(widest.as_bytes()).unwrap()[0].1.len(), 10_000);
    }

    #[test]
    fn what_is_not_utf8_is_an_error_also_in_two_halves() {
        for text in [&b"a,b\n\xff,1\n"[..], b"a,b\n\xc3,\xa9\n"] {
            assert!(read(text).unwrap_err().contains("line 2"));
        }
    }

    proptest! {
        /// What is written by the rules is read as it was, however the bytes come; and anything at
        /// all is read the same way in one piece and byte by byte.
        #[test]
        fn what_is_written_is_read(rows in prop::collection::vec(prop::collection::vec("[a\"\n\r, é]{0,6}", 2..3), 0..6), noise in "[a\",\n\r ]{0,40}") {
            let text: String = rows.iter().map(|row| {
                let cells: Vec<_> = row.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
                format!("{}\n", cells.join(","))
            }).collect();
            let found = read(Drops(text.as_bytes())).unwrap();
            let texts: Vec<Vec<String>> = found.into_iter().map(|(_, cells)| cells.into_iter().map(|(text, _)| text).collect()).collect();
            prop_assert_eq!(texts, rows);
            prop_assert_eq!(read(noise.as_bytes()), read(Drops(noise.as_bytes())));
        }
    }
}
