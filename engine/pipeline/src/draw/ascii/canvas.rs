//! Cells of a terminal, in which lines meet.

use crate::draw::text;

const UP: u8 = 1;
const RIGHT: u8 = 2;
const DOWN: u8 = 4;
const LEFT: u8 = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// What is written there; it hides lines.
    letter: Option<char>,
    /// Whether the letter before takes this cell too.
    is_covered: bool,
    /// The sides to which lines lead.
    sides: u8,
    /// Whose the lines from left to right, and from top to bottom, are.
    nets: [usize; 2],
    is_dashed: bool,
}

/// A line's owner and look. Lines of one net join where they meet; others pass over each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pen {
    pub(crate) net: usize,
    pub(crate) is_dashed: bool,
}

/// A sheet of cells. What is outside of it is not drawn.
pub(crate) struct Canvas {
    width: usize,
    cells: Vec<Cell>,
}

impl Canvas {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            cells: vec![Cell::default(); width.saturating_mul(height)],
        }
    }

    fn cell(&mut self, x: usize, y: usize) -> Option<&mut Cell> {
        let index = y.checked_mul(self.width)?.checked_add(x)?;
        match x < self.width {
            true => self.cells.get_mut(index),
            false => None,
        }
    }

    pub(crate) fn letter(&mut self, x: usize, y: usize, letter: char) {
        if let Some(cell) = self.cell(x, y) {
            cell.letter = Some(letter);
        }
    }

    pub(crate) fn text(&mut self, x: usize, y: usize, text: &str) {
        let mut x = x;
        for letter in text.chars() {
            let columns = text::columns_of(letter);
            // What has no column of its own would move all that follows.
            if columns == 0 {
                continue;
            }
            self.letter(x, y, letter);
            if columns == 2
                && let Some(cell) = self.cell(x + 1, y)
            {
                cell.is_covered = true;
            }
            x += columns;
        }
    }

    /// A line between two cells of one row or one column.
    pub(crate) fn line(&mut self, from: (usize, usize), to: (usize, usize), pen: Pen) {
        let is_across = from.1 == to.1;
        let (first, last, fixed) = match is_across {
            true => (from.0.min(to.0), from.0.max(to.0), from.1),
            false => (from.1.min(to.1), from.1.max(to.1), from.0),
        };
        let (back, forth) = if is_across { (LEFT, RIGHT) } else { (UP, DOWN) };
        for at in first..=last {
            let (x, y) = if is_across { (at, fixed) } else { (fixed, at) };
            let mut sides = 0;
            if at > first {
                sides |= back;
            }
            if at < last {
                sides |= forth;
            }
            self.join(x, y, sides, pen);
        }
    }

    /// Leads lines from a cell to some sides.
    fn join(&mut self, x: usize, y: usize, sides: u8, pen: Pen) {
        let Some(cell) = self.cell(x, y) else {
            return;
        };
        cell.sides |= sides;
        if sides & (LEFT | RIGHT) != 0 {
            cell.nets[0] = pen.net;
        }
        if sides & (UP | DOWN) != 0 {
            cell.nets[1] = pen.net;
        }
        cell.is_dashed = pen.is_dashed;
    }

    /// A box with straight sides.
    pub(crate) fn frame(&mut self, x: usize, y: usize, width: usize, height: usize) {
        let (right, bottom) = (x + width.max(2) - 1, y + height.max(2) - 1);
        for column in x + 1..right {
            self.letter(column, y, '─');
            self.letter(column, bottom, '─');
        }
        for row in y + 1..bottom {
            self.letter(x, row, '│');
            self.letter(right, row, '│');
        }
        for (x, y, corner) in [
            (x, y, '┌'),
            (right, y, '┐'),
            (x, bottom, '└'),
            (right, bottom, '┘'),
        ] {
            self.letter(x, y, corner);
        }
    }

    /// The rows, without blanks at their ends.
    pub(crate) fn rows(&self) -> String {
        let mut out = String::new();
        for row in self.cells.chunks(self.width.max(1)) {
            let letters = row.iter().filter(|cell| !cell.is_covered).map(letter_of);
            let row: String = letters.collect();
            out.push_str(row.trim_end());
            out.push('\n');
        }
        let mut out = out.trim_end().trim_start_matches('\n').to_owned();
        out.push('\n');
        out
    }
}

fn letter_of(cell: &Cell) -> char {
    if let Some(letter) = cell.letter {
        return letter;
    }
    let mut sides = cell.sides;
    // A line that passes another one is broken, so that nobody takes it for a joint.
    if sides & (LEFT | RIGHT) != 0 && sides & (UP | DOWN) != 0 && cell.nets[0] != cell.nets[1] {
        sides &= UP | DOWN;
    }
    let line = |line: char, dashed: char| if cell.is_dashed { dashed } else { line };
    match sides {
        0 => ' ',
        LEFT | RIGHT | 0b1010 => line('─', '╌'),
        UP | DOWN | 0b0101 => line('│', '╎'),
        0b0110 => '╭',
        0b1100 => '╮',
        0b0011 => '╰',
        0b1001 => '╯',
        0b0111 => '├',
        0b1101 => '┤',
        0b1110 => '┬',
        0b1011 => '┴',
        _ => '┼',
    }
}
