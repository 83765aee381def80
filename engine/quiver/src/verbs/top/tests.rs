use std::{collections::BTreeMap, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use super::{
    figures::{Column, Figures, Look, Order},
    screen::{Screen, Wish},
};
use crate::http::{NodeStatus, PipelineStatus, Status};

fn node(name: &str, kind: &str, rows: [u64; 4]) -> NodeStatus {
    let [rows_in, rows_out, late, errors] = rows;
    NodeStatus {
        name: name.to_owned(),
        kind: kind.to_owned(),
        rows_in,
        rows_out,
        late,
        errors,
        ..NodeStatus::default()
    }
}

/// An engine that has done something `times` times, two seconds apart.
fn look(times: u64) -> Look {
    let window = NodeStatus {
        refused: 4 * times,
        watermark_delay: Some(61.4),
        state_bytes: 2_048,
        ..node(
            "coolant_5m",
            "window",
            [20_000 * times, 5 * times, 3 * times, 0],
        )
    };
    Look {
        at: Duration::from_secs(2 * times),
        engine: "http://127.0.0.1:8080".to_owned(),
        pipeline: PipelineStatus {
            lag: 17,
            seen: "2026-01-01T10:00:00Z".to_owned(),
            nodes: vec![
                node("hot_engines", "route", [5 * times, times, 0, 0]),
                window,
                node("metric", "map", [20_000 * times, 19_000 * times, 0, 1_000]),
                node("silent", "missing", [20_000 * times, 0, 0, 0]),
            ],
            streams: BTreeMap::from([("readings".to_owned(), 20_000 * times)]),
            ..PipelineStatus::default()
        },
        status: Status {
            connections: 50,
            rows: 40_000 * times,
            points: 200_000 * times,
            committed: 40_010 * times,
            ack_p50_us: 1_190,
            ..Status::default()
        },
    }
}

fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let lines = (0..height).map(|y| {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn screen(is_coloured: bool) -> Screen {
    let mut screen = Screen::new(look(1), None, is_coloured);
    screen.take(Ok(look(2)));
    screen
}

fn press(screen: &mut Screen, codes: &[KeyCode]) {
    for code in codes {
        assert_eq!(screen.press(KeyEvent::from(*code)), Wish::Go);
    }
}

#[test]
fn a_line_for_each_stream_and_node_with_rates() {
    assert_eq!(
        drawn(&mut screen(true), 110, 11),
        "\
engine http://127.0.0.1:8080   50 connections   20,000 rows/s   100,000 points/s   ack p50 1.19 ms p99 0.00 ms
log    committed 80,020   20,005/s   hot rows 0   archived 0 files, 0 B
graph  lag 17 positions   has seen all up to 2026-01-01T10:00:00Z   kept at 0   REFUSED 8 rows

name         kind       in/s  out/s      in     out  late  errors  refused  delay    state
readings     stream   10,000      -  40,000       -     -       -        -      -        -
hot_engines  route       2.5    0.5      10       2     -       0        0      -        -
coolant_5m   window   10,000    2.5  40,000      10     6       0        8   1m1s  2.0 KiB
metric       map      10,000  9,500  40,000  38,000     -   1,000        0      -        -
silent       missing  10,000      0  40,000       0     -       -        0      -        -
q ends   ←→ sorts (by the graph)   r reverses   g as the graph   ↑↓ scrolls"
    );
}

#[test]
fn a_text_has_the_same() {
    let figures = Figures::of(Some(&look(1)), &look(2));
    let text = figures.text(Some(Column::RateOut));
    let lines: Vec<&str> = text.lines().skip(4).collect();
    assert_eq!(
        lines,
        [
            "name         kind       in/s  out/s      in     out  late  errors  refused  delay    state",
            "metric       map      10,000  9,500  40,000  38,000     -   1,000        0      -        -",
            "coolant_5m   window   10,000    2.5  40,000      10     6       0        8   1m1s  2.0 KiB",
            "hot_engines  route       2.5    0.5      10       2     -       0        0      -        -",
            "silent       missing  10,000      0  40,000       0     -       -        0      -        -",
            "readings     stream   10,000      -  40,000       -     -       -        -      -        -",
        ]
    );
}

#[test]
fn an_engine_that_began_anew_has_no_rates_at_first() {
    let figures = Figures::of(Some(&look(5)), &look(1));
    assert!(
        figures
            .lines
            .iter()
            .all(|line| line.text(Column::RateIn) == "-")
    );
    assert!(figures.head[0].contains("   - rows/s"));
    let first = Figures::of(None, &look(1));
    assert!(
        first
            .lines
            .iter()
            .all(|line| line.text(Column::RateIn) == "-")
    );
}

#[test]
fn names_are_sorted_downwards_and_numbers_upwards() {
    let figures = Figures::of(Some(&look(1)), &look(2));
    let names = |column, is_reversed| {
        let order = Order {
            column,
            is_reversed,
        };
        let lines = figures.sorted(Some(order));
        let names = lines.iter().map(|line| line.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        names(Column::Name, false),
        "coolant_5m hot_engines metric readings silent"
    );
    assert_eq!(
        names(Column::Name, true),
        "silent readings metric hot_engines coolant_5m"
    );
    // What has no figure is last, whichever way.
    assert!(names(Column::Errors, false).starts_with("metric hot_engines coolant_5m"));
    assert!(names(Column::Errors, true).starts_with("hot_engines coolant_5m metric"));
    assert!(names(Column::Delay, true).starts_with("coolant_5m"));
}

#[test]
fn keys_sort_scroll_and_end() {
    let mut screen = screen(true);
    press(&mut screen, &[KeyCode::Right]);
    assert!(drawn(&mut screen, 110, 11).contains("\ncoolant_5m   window   10,000"));
    press(&mut screen, &[KeyCode::Char('r')]);
    let text = drawn(&mut screen, 110, 11);
    assert!(text.contains("(by name reversed)"));
    assert!(text.lines().nth(5).unwrap().starts_with("silent"));
    // To the left of the first column is the order of the graph, and before that the last one.
    press(&mut screen, &[KeyCode::Left]);
    assert!(drawn(&mut screen, 110, 11).contains("(by the graph)"));
    press(&mut screen, &[KeyCode::Left]);
    assert!(drawn(&mut screen, 110, 11).contains("(by state)"));
    press(
        &mut screen,
        &[KeyCode::Char('g'), KeyCode::PageDown, KeyCode::Down],
    );
    let text = drawn(&mut screen, 110, 8);
    assert_eq!(
        text.lines().nth(5).unwrap().split_once(' ').unwrap().0,
        "metric"
    );
    assert_eq!(
        text.lines().nth(6).unwrap().split_once(' ').unwrap().0,
        "silent"
    );
    // There is room for all again.
    assert!(drawn(&mut screen, 110, 20).contains("\nreadings"));
    for key in [
        KeyEvent::from(KeyCode::Char('q')),
        KeyEvent::from(KeyCode::Esc),
        KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
    ] {
        assert_eq!(screen.press(key), Wish::End);
    }
    assert_eq!(
        screen.press(KeyEvent::from(KeyCode::Char('c'))),
        Wish::Go,
        "only with Control"
    );
}

#[test]
fn narrow_terminals_have_fewer_columns_and_shorter_names() {
    let mut screen = screen(true);
    let title = |text: &str| text.lines().nth(4).unwrap().to_owned();
    assert_eq!(
        title(&drawn(&mut screen, 60, 11)),
        "name         kind       in/s  out/s  late  errors  delay"
    );
    assert_eq!(
        title(&drawn(&mut screen, 34, 11)),
        "name         out/s  late  errors"
    );
    let text = drawn(&mut screen, 30, 11);
    assert!(text.contains("\nhot_engi…    0.5     -       0"), "{text}");
    // Nothing to see, and nothing that breaks.
    for (width, height) in [(1, 1), (3, 2), (8, 5), (200, 1)] {
        drawn(&mut screen, width, height);
    }
}

#[test]
fn an_engine_that_is_gone_is_told_and_the_last_figures_stay() {
    let mut screen = screen(true);
    screen.take(Err("no engine runs on quiver-data".to_owned()));
    let text = drawn(&mut screen, 110, 11);
    assert!(text.contains("\nno engine runs on quiver-data; trying again\n"));
    assert!(text.contains("\nreadings     stream   10,000"));
    screen.take(Ok(look(3)));
    assert!(!drawn(&mut screen, 110, 11).contains("trying again"));
}

#[test]
fn colours_are_off_when_nobody_wants_them() {
    let coloured = |is_coloured| {
        let mut screen = screen(is_coloured);
        screen.take(Err("gone".to_owned()));
        let mut terminal = Terminal::new(TestBackend::new(110, 11)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().iter();
        assert!(
            cells
                .clone()
                .any(|cell| cell.modifier.contains(Modifier::BOLD))
        );
        cells.filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 0);
}

#[test]
fn columns_are_named_as_they_are_titled() {
    for column in Column::ALL {
        assert_eq!(column.title().parse(), Ok(column));
    }
    assert!(
        "speed"
            .parse::<Column>()
            .unwrap_err()
            .contains("there is name")
    );
}
