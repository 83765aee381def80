use std::collections::{BTreeMap, BTreeSet};

use super::{
    Terminal, ascii,
    boxes::{Direction, boxes},
    channel::{Net, tracks},
};
use crate::draw::{
    layout::Layout,
    picture::{Exit, Kind, Picture},
    tests::{Numbers, connect, node, random},
    text,
};

#[test]
fn no_two_lines_between_layers_lie_on_each_other() {
    for seed in 0..2_000 {
        let mut numbers = Numbers(seed);
        // Rows where lines begin and where they end: each belongs to one line.
        let mut starts: Vec<usize> = (0..12).collect();
        let mut ends: Vec<usize> = (0..12).collect();
        let mut nets = Vec::new();
        for owner in 0..1 + numbers.below(6) {
            let from = starts.swap_remove(numbers.below(starts.len()));
            let to = (0..1 + numbers.below(2))
                .map(|_| ends.swap_remove(numbers.below(ends.len())))
                .collect();
            nets.push(Net::new(owner, from, to));
        }
        let (nets, count) = tracks(nets);
        // Who takes which half cell along, row by row; and which row, track by track.
        let mut along: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut across: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let take = |taken: &mut BTreeMap<(usize, usize), usize>, place, owner| {
            let other = *taken.entry(place).or_insert(owner);
            assert_eq!(other, owner, "seed {seed}: {nets:?}");
        };
        for net in &nets {
            let Some(track) = net.track else {
                (0..=count).for_each(|at| take(&mut along, (net.from, at), net.owner));
                continue;
            };
            let owner = net.owner;
            let first = net.after.map(|after| nets[after].track.unwrap());
            let start = first.map_or(0, |track| track + 1);
            assert!(start <= track);
            (start..=track).for_each(|at| take(&mut along, (net.from, at), owner));
            let (near, far) = net.ends();
            (near..=far).for_each(|at| take(&mut across, (at, track), owner));
            for to in net.to.iter().filter(|_| !net.is_continued) {
                (track + 1..=count).for_each(|at| take(&mut along, (*to, at), owner));
            }
        }
    }
}

/// Boxes of a drawing, by name: left, top, right, bottom.
fn found(cells: &[Vec<char>]) -> Vec<(String, [usize; 4])> {
    let mut found = Vec::new();
    for (y, row) in cells.iter().enumerate() {
        for (x, letter) in row.iter().enumerate() {
            if *letter != '┌' {
                continue;
            }
            let right = x + row[x..].iter().position(|letter| *letter == '┐').unwrap();
            let below = cells[y..].iter();
            let bottom = y + below.take_while(|row| row[x] != '└').count();
            let name: String = cells[y + 1][x + 2..right].iter().collect();
            found.push((name.trim().to_owned(), [x, y, right, bottom]));
        }
    }
    found
}

/// The sides to which a letter leads: up, right, down, left.
fn sides(letter: char) -> [bool; 4] {
    match letter {
        '─' | '╌' | '▶' => [false, true, false, true],
        '│' | '╎' | '▼' => [true, false, true, false],
        '╭' => [false, true, true, false],
        '╮' => [false, false, true, true],
        '╰' => [true, true, false, false],
        '╯' => [true, false, false, true],
        '├' => [true, true, true, false],
        '┤' => [true, false, true, true],
        '┬' => [false, true, true, true],
        '┴' => [true, true, false, true],
        '┼' => [true; 4],
        _ => [false; 4],
    }
}

const STEPS: [(isize, isize); 4] = [(0, -1), (1, 0), (0, 1), (-1, 0)];

/// The boxes that lines from an arrow's head lead back to.
fn followed(
    cells: &[Vec<char>],
    boxes: &[(String, [usize; 4])],
    head: (usize, usize),
) -> BTreeSet<String> {
    let at = |x: isize, y: isize| -> char {
        let row = usize::try_from(y).ok().and_then(|y| cells.get(y));
        let cell = row.and_then(|row| row.get(usize::try_from(x).ok()?));
        cell.copied().unwrap_or(' ')
    };
    let box_at = |x: isize, y: isize| {
        boxes.iter().find(|(_, [left, top, right, bottom])| {
            (*left as isize..=*right as isize).contains(&x)
                && (*top as isize..=*bottom as isize).contains(&y)
        })
    };
    let (x, y) = (head.0 as isize, head.1 as isize);
    let into = if at(x, y) == '▶' { 1 } else { 2 };
    let mut reached = BTreeSet::new();
    let mut seen = BTreeSet::new();
    // Where from, and to which side; the head itself leads back only.
    let mut open = vec![(x, y, (into + 2) % 4)];
    while let Some((x, y, side)) = open.pop() {
        let (mut next_x, mut next_y) = (x + STEPS[side].0, y + STEPS[side].1);
        // A line from side to side passes over those from top to bottom.
        while side % 2 == 1
            && matches!(at(next_x, next_y), '│' | '╎')
            && box_at(next_x, next_y).is_none()
        {
            next_x += STEPS[side].0;
            next_y += STEPS[side].1;
        }
        if let Some((name, _)) = box_at(next_x, next_y) {
            reached.insert(name.clone());
            continue;
        }
        let letter = at(next_x, next_y);
        if letter == '▶' || letter == '▼' {
            continue;
        }
        assert!(sides(letter)[(side + 2) % 4], "a line ends at {letter:?}");
        if seen.insert((next_x, next_y)) {
            let all = sides(letter);
            open.extend(
                (0..4)
                    .filter(|side| all[*side])
                    .map(|side| (next_x, next_y, side)),
            );
        }
    }
    reached
}

#[test]
fn every_arrow_leads_from_the_right_box() {
    for seed in 0..40 {
        let picture = random(seed, false);
        let layout = Layout::new(&picture).unwrap();
        for direction in [Direction::Right, Direction::Down] {
            let drawn = boxes(&picture, &layout, direction, 5_000).unwrap();
            let width = drawn
                .lines()
                .map(|line| line.chars().count())
                .max()
                .unwrap();
            let cells: Vec<Vec<char>> = drawn
                .lines()
                .map(|line| format!("{line:width$}").chars().collect())
                .collect();
            let found = found(&cells);
            let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names.len(), picture.nodes().len(), "{drawn}");
            let mut expected = Vec::new();
            for edge in picture.edges() {
                let name = |node: usize| picture.nodes()[node].name.clone();
                expected.push((name(edge.from), name(edge.to)));
            }
            let mut drawn_edges = Vec::new();
            for (y, row) in cells.iter().enumerate() {
                for (x, letter) in row.iter().enumerate() {
                    let (next_x, next_y) = match letter {
                        '▶' => (x + 1, y),
                        '▼' => (x, y + 1),
                        _ => continue,
                    };
                    let (to, _) = found
                        .iter()
                        .find(|(_, [left, top, right, bottom])| {
                            (*left..=*right).contains(&next_x) && (*top..=*bottom).contains(&next_y)
                        })
                        .unwrap();
                    let from = followed(&cells, &found, (x, y));
                    assert_eq!(from.len(), 1, "seed {seed}, to {to} from {from:?}\n{drawn}");
                    drawn_edges.extend(from.into_iter().map(|from| (from, to.clone())));
                }
            }
            expected.sort();
            drawn_edges.sort();
            assert_eq!(drawn_edges, expected, "seed {seed}\n{drawn}");
        }
    }
}

#[test]
fn wild_pictures_are_drawn_too() {
    for seed in 0..30 {
        let picture = random(seed, true);
        let layout = Layout::new(&picture).unwrap();
        for direction in [Direction::Right, Direction::Down] {
            let drawn = boxes(&picture, &layout, direction, 5_000).unwrap();
            let heads = drawn.matches(['▶', '▼']).count();
            let is_forth =
                |(route, edge): &(&crate::draw::layout::Route, &crate::draw::picture::Edge)| {
                    !route.is_back && edge.from != edge.to
                };
            let forth = layout.routes.iter().zip(picture.edges()).filter(is_forth);
            assert_eq!(heads, forth.count(), "seed {seed}\n{drawn}");
        }
    }
}

#[test]
fn a_picture_is_not_wider_than_the_terminal() {
    for seed in 0..12 {
        let picture = random(seed, seed % 2 == 0);
        for columns in [40, 80, 100, 160] {
            let drawn = ascii(
                &picture,
                Terminal {
                    columns,
                    is_unicode: true,
                },
            );
            assert!(drawn.lines().all(|line| text::columns(line) <= columns));
        }
    }
}

fn chain(count: usize) -> Picture {
    let mut picture = Picture::default();
    for number in 0..count {
        let kind = if number == 0 { Kind::Stream } else { Kind::Map };
        picture
            .add(node(kind, &format!("n{number}"), &["x"]))
            .unwrap();
        if number > 0 {
            connect(&mut picture, number - 1, number, Exit::Out);
        }
    }
    picture
}

#[test]
fn what_is_too_wide_goes_down_and_what_is_too_large_is_a_list() {
    let wide = ascii(&chain(4), Terminal::default());
    assert_eq!(wide.lines().count(), 4);
    let long = ascii(&chain(30), Terminal::default());
    assert!(long.contains('▼') && !long.contains('▶'));
    let mut star = chain(1);
    for number in 1..40 {
        star.add(node(Kind::Store, &format!("s{number}"), &["keep 3d"]))
            .unwrap();
        for exit in [Exit::Out, Exit::Late, Exit::Errors] {
            connect(&mut star, 0, number, exit);
        }
    }
    let narrow = Terminal {
        columns: 30,
        is_unicode: true,
    };
    let list = ascii(&star, narrow);
    assert!(list.starts_with("n0  stream · x\n├─▶ s1  store · keep 3d\n├╌ late ╌▶ s1\n"));
    assert!(list.ends_with("╰╌ errors ╌▶ s39\n"));
}

#[test]
fn a_list_has_every_node_and_every_connection() {
    for seed in 0..50 {
        let picture = random(seed, true);
        let list = super::list::list(&picture, 100);
        assert_eq!(list.matches('▶').count(), picture.edges().len(), "{list}");
        for node in picture.nodes() {
            let name = format!("{}  {}", node.name, node.kind.word());
            let told = list.lines().filter(|line| line.contains(&name)).count();
            let with_sign = [" ↺", " …", " ↑"].iter().any(|sign| {
                let name = format!("{}{sign}  {}", node.name, node.kind.word());
                list.contains(&name)
            });
            assert!(told == 1 || with_sign, "{name}\n{list}");
        }
    }
}

#[test]
fn without_unicode_there_is_none() {
    let terminal = Terminal {
        columns: 100,
        is_unicode: false,
    };
    let mut picture = chain(3);
    connect(&mut picture, 1, 1, Exit::Out);
    connect(&mut picture, 2, 1, Exit::Errors);
    let drawn = ascii(&picture, terminal);
    assert!(drawn.is_ascii() && !drawn.contains('?'), "{drawn}");
}
