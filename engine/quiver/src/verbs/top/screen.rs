//! The screen: the figures, what is wrong, and what keys do.

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line as Words, Text},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::figures::{Column, Figures, Line, Look, Order};

/// Columns of a terminal between two columns of the table.
const GAP: u16 = 2;
/// A name is not made shorter than this.
const NAME_MIN: usize = 8;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing that the screen cannot do by itself.
    Go,
    /// The end.
    End,
}

/// What is on the screen.
pub struct Screen {
    last: Look,
    figures: Figures,
    /// Why the engine does not answer.
    problem: Option<String>,
    /// The order of the graph if nothing else.
    order: Option<Order>,
    /// Lines that are above the first one that is shown.
    skipped: usize,
    is_coloured: bool,
}

impl Screen {
    /// Begins with a look at an engine.
    pub fn new(look: Look, sort: Option<Column>, is_coloured: bool) -> Self {
        Self {
            figures: Figures::of(None, &look),
            last: look,
            problem: None,
            order: sort.map(|column| Order {
                column,
                is_reversed: false,
            }),
            skipped: 0,
            is_coloured,
        }
    }

    /// Another look, or why there is none: then the last figures stay.
    pub fn take(&mut self, look: Result<Look, String>) {
        match look {
            Ok(look) => {
                self.figures = Figures::of(Some(&self.last), &look);
                self.last = look;
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// A key.
    pub fn press(&mut self, key: KeyEvent) -> Wish {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::End,
            KeyCode::Char('c') if is_control => return Wish::End,
            KeyCode::Left => self.sort_by(-1),
            KeyCode::Right => self.sort_by(1),
            KeyCode::Char('r') => {
                if let Some(order) = &mut self.order {
                    order.is_reversed = !order.is_reversed;
                }
            }
            KeyCode::Char('g') => self.order = None,
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::Home => self.skipped = 0,
            _ => {}
        }
        Wish::Go
    }

    /// Sorts by the next column, or the one before.
    fn sort_by(&mut self, step: isize) {
        let column = match self.order {
            None if step > 0 => Some(0),
            None => Column::ALL.len().checked_sub(1),
            Some(order) => {
                let mut all = Column::ALL.iter();
                let now = all.position(|column| *column == order.column);
                now.and_then(|now| now.checked_add_signed(step))
            }
        };
        // Beyond the ends is the order of the graph.
        let column = column.and_then(|index| Column::ALL.get(index).copied());
        self.order = column.map(|column| Order {
            column,
            is_reversed: false,
        });
    }

    fn scroll(&mut self, lines: isize) {
        let last = self.figures.lines.len().saturating_sub(1);
        self.skipped = self.skipped.saturating_add_signed(lines).min(last);
    }

    /// Draws it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let head = u16::try_from(self.figures.head.len()).unwrap_or(0);
        let parts = [
            Constraint::Length(head),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ];
        let [head, problem, table, foot] = Layout::vertical(parts).areas(frame.area());
        let lines: Vec<Words<'_>> = self
            .figures
            .head
            .iter()
            .map(|line| Words::raw(line.as_str()))
            .collect();
        frame.render_widget(Paragraph::new(Text::from(lines)), head);
        if let Some(text) = &self.problem {
            let style = self.colour(Color::Red).add_modifier(Modifier::BOLD);
            let text = format!("{text}; trying again");
            frame.render_widget(Paragraph::new(text).style(style), problem);
        }
        self.table(frame, table);
        let sorted = match self.order {
            None => "the graph".to_owned(),
            Some(order) if order.is_reversed => format!("{} reversed", order.column.title()),
            Some(order) => order.column.title().to_owned(),
        };
        let keys =
            format!("q ends   ←→ sorts (by {sorted})   r reverses   g as the graph   ↑↓ scrolls");
        let style = Style::new().add_modifier(Modifier::DIM);
        frame.render_widget(Paragraph::new(keys).style(style), foot);
    }

    fn table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let lines = self.figures.sorted(self.order);
        // The title takes a line. What fits wholly is not scrolled.
        let room = usize::from(area.height.saturating_sub(1));
        self.skipped = self.skipped.min(lines.len().saturating_sub(room));
        let columns = fitting(&lines, area.width);
        let titles = columns.iter().map(|(column, _)| {
            let is_sorted = self.order.is_some_and(|order| order.column == *column);
            let style = match is_sorted {
                true => Modifier::BOLD | Modifier::REVERSED,
                false => Modifier::BOLD,
            };
            cell(column.title().to_owned(), *column).style(Style::new().add_modifier(style))
        });
        let rows = lines.iter().skip(self.skipped).map(|line| {
            let cells = columns.iter().map(|(column, width)| {
                let style = match column {
                    Column::Errors if line.is_notable(*column) => self.colour(Color::Red),
                    Column::Late if line.is_notable(*column) => self.colour(Color::Yellow),
                    Column::Kind => self.colour(kind_colour(&line.kind)),
                    _ => Style::new(),
                };
                cell(cut(line.text(*column), usize::from(*width)), *column).style(style)
            });
            Row::new(cells)
        });
        let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
        let mut table = Table::new(rows, widths)
            .header(Row::new(titles))
            .column_spacing(GAP);
        if self.problem.is_some() {
            // What stands there is of before.
            table = table.style(Style::new().add_modifier(Modifier::DIM));
        }
        frame.render_widget(table, area);
    }

    fn colour(&self, colour: Color) -> Style {
        match self.is_coloured {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }
}

/// Stages are told apart as in the picture of a graph.
fn kind_colour(kind: &str) -> Color {
    match kind {
        "stream" => Color::Blue,
        "route" => Color::LightRed,
        "map" => Color::Green,
        "lookup" => Color::Magenta,
        "window" => Color::Yellow,
        "missing" => Color::LightMagenta,
        _ => Color::Reset,
    }
}

fn cell(text: String, column: Column) -> Cell<'static> {
    let alignment = match column.is_number() {
        true => Alignment::Right,
        false => Alignment::Left,
    };
    Cell::from(Text::from(text).alignment(alignment))
}

/// The columns that there is room for, and how wide each is. First columns are left out that can be
/// spared, then the name is made shorter.
fn fitting(lines: &[&Line], room: u16) -> Vec<(Column, u16)> {
    let width = |column: Column| {
        let texts = lines.iter().map(|line| line.text(column).chars().count());
        let widest = texts.chain([column.title().chars().count()]).max();
        u16::try_from(widest.unwrap_or(0)).unwrap_or(u16::MAX)
    };
    let mut columns: Vec<(Column, u16)> = Column::ALL
        .into_iter()
        .map(|column| (column, width(column)))
        .collect();
    let taken = |columns: &[(Column, u16)]| {
        let gaps = GAP.saturating_mul(u16::try_from(columns.len()).unwrap_or(0).saturating_sub(1));
        let widths = columns.iter().map(|(_, width)| *width);
        widths.fold(gaps, u16::saturating_add)
    };
    for spared in Column::LEFT_OUT {
        if taken(&columns) <= room {
            break;
        }
        columns.retain(|(column, _)| *column != spared);
    }
    let beyond = taken(&columns).saturating_sub(room);
    if let Some((_, name)) = columns.first_mut() {
        let least = (*name).min(u16::try_from(NAME_MIN).unwrap_or(u16::MAX));
        *name = name.saturating_sub(beyond).max(least);
    }
    columns
}

/// A text that is not wider than that.
fn cut(text: String, width: usize) -> String {
    if text.chars().count() <= width {
        return text;
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}
