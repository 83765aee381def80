//! A picture as text: boxes and arrows where a terminal is wide enough for them, from left to right
//! or else from top to bottom; a list with branches where it is not.

mod boxes;
mod canvas;
mod channel;
mod list;

use crate::draw::{layout::Layout, picture::Picture};

/// Widest terminal that is drawn for.
const COLUMNS_MAX: usize = 1_000;

/// Where a text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// How many columns it has.
    pub columns: usize,
    /// Whether it has letters beyond ASCII; without them a picture is made of `+--+` and `->`.
    pub is_unicode: bool,
}

impl Default for Terminal {
    /// 100 columns, with all letters.
    fn default() -> Self {
        Self {
            columns: 100,
            is_unicode: true,
        }
    }
}

pub(crate) fn ascii(picture: &Picture, terminal: Terminal) -> String {
    let columns = terminal.columns.min(COLUMNS_MAX);
    let drawn = Layout::new(picture).ok().and_then(|layout| {
        let directions = [boxes::Direction::Right, boxes::Direction::Down];
        let mut drawn = directions.into_iter();
        drawn.find_map(|direction| boxes::boxes(picture, &layout, direction, columns))
    });
    let text = drawn.unwrap_or_else(|| list::list(picture, columns));
    match terminal.is_unicode {
        true => text,
        false => text.chars().map(plain).collect(),
    }
}

/// A letter of ASCII in place of any other.
fn plain(letter: char) -> char {
    match letter {
        letter if letter.is_ascii() => letter,
        '─' => '-',
        '│' => '|',
        '╌' => '.',
        '╎' => ':',
        '▶' => '>',
        '◀' => '<',
        '▼' => 'v',
        '▲' => '^',
        '↑' => '^',
        '↺' => '@',
        '…' => '~',
        '·' => '-',
        '╰' => '`',
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' | '╭' | '╮' | '╯' => {
            '+'
        }
        _ => '?',
    }
}

#[cfg(test)]
mod tests;
