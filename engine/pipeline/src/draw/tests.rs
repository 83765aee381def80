use std::path::Path;

use super::{
    DrawError, EDGES_MAX, Edge, Exit, Format, Kind, NODES_MAX, Node, Picture, Terminal, rate_text,
    write,
};

/// Numbers without a pattern (splitmix64), for pictures that nobody would draw.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

pub(crate) fn node(kind: Kind, name: &str, details: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        kind,
        details: details.iter().map(|detail| (*detail).to_owned()).collect(),
        marks: Vec::new(),
    }
}

pub(crate) fn connect(picture: &mut Picture, from: usize, to: usize, exit: Exit) {
    let edge = Edge {
        from,
        to,
        exit,
        rate: None,
    };
    picture.connect(edge).unwrap();
}

/// A picture of some nodes; no edge is there twice. `is_wild` allows circles and all doors.
pub(crate) fn random(seed: u64, is_wild: bool) -> Picture {
    let mut numbers = Numbers(seed);
    let mut picture = Picture::default();
    let count = 1 + numbers.below(40);
    for number in 0..count {
        let kind = match is_wild {
            true => Kind::ALL[numbers.below(Kind::ALL.len())],
            false if number < 4 => Kind::Stream,
            false if number + 4 > count => Kind::Store,
            false => Kind::ALL[1 + numbers.below(7)],
        };
        let details: &[&str] = match numbers.below(3) {
            0 => &[],
            1 => &["x > 1"],
            _ => &["a longer text that says what it does"],
        };
        picture
            .add(node(kind, &format!("node_{number}"), details))
            .unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..numbers.below(2 * count) {
        let (mut from, mut to) = (numbers.below(count), numbers.below(count));
        let mut exit = Exit::Out;
        if is_wild {
            exit = [Exit::Out, Exit::Late, Exit::Errors][numbers.below(3)];
        } else {
            (from, to) = (from.min(to), from.max(to));
        }
        if (is_wild || from != to) && seen.insert((from, to, exit)) {
            connect(&mut picture, from, to, exit);
        }
    }
    picture
}

/// Ten nodes as somebody may have them.
fn ten() -> Picture {
    let mut picture = Picture::default();
    let nodes = [
        node(Kind::Stream, "readings", &["12 fields", "velocity [km/h]"]),
        node(Kind::Stream, "positions", &["not declared"]),
        node(Kind::Lookup, "with_truck", &["trucks.csv on device"]),
        node(
            Kind::Route,
            "hot_engines",
            &["coolant_temp > 90 AND device.fleet = 'west'"],
        ),
        node(Kind::Map, "metric", &["velocity / 3.6 AS speed_ms"]),
        node(Kind::Window, "coolant_5m", &["5m every 1m by device"]),
        node(Kind::Missing, "silent", &["no rows for 5m"]),
        node(Kind::Alert, "overheating", &["mean_temp > 110"]),
        node(Kind::Store, "results", &["keep for ever"]),
        node(Kind::Store, "rejects", &["keep 7d"]),
    ];
    for node in nodes {
        picture.add(node).unwrap();
    }
    for (from, to, exit) in [
        (0, 2, Exit::Out),
        (2, 3, Exit::Out),
        (2, 4, Exit::Out),
        (3, 5, Exit::Out),
        (0, 6, Exit::Out),
        (1, 6, Exit::Out),
        (5, 7, Exit::Out),
        (5, 8, Exit::Out),
        (4, 8, Exit::Out),
        (6, 8, Exit::Out),
        (5, 9, Exit::Late),
        (4, 9, Exit::Errors),
    ] {
        connect(&mut picture, from, to, exit);
    }
    picture
}

/// The same with rates.
fn live() -> Picture {
    let quiet = ten();
    let mut picture = Picture::default();
    for node in quiet.nodes() {
        let mut node = node.clone();
        if node.name == "coolant_5m" {
            node.marks = vec!["late 3/s".to_owned()];
        }
        picture.add(node).unwrap();
    }
    for edge in quiet.edges() {
        let rate = match edge.exit {
            Exit::Out => 10_f64.powi(edge.from as i32),
            Exit::Late => 3.0,
            Exit::Errors => 0.0,
        };
        let rate = Some(rate);
        let edge = Edge {
            rate,
            ..edge.clone()
        };
        picture.connect(edge).unwrap();
    }
    picture
}

fn golden() -> [(&'static str, &'static str, String); 6] {
    let wide = Terminal {
        columns: 200,
        is_unicode: true,
    };
    let plain = Terminal {
        columns: 80,
        is_unicode: false,
    };
    let draw = |picture: &Picture, format, terminal| write(picture, format, terminal).unwrap();
    [
        (
            "ten.svg",
            include_str!("tests/ten.svg"),
            draw(&ten(), Format::Svg, wide),
        ),
        (
            "ten.dot",
            include_str!("tests/ten.dot"),
            draw(&ten(), Format::Dot, wide),
        ),
        (
            "ten.mmd",
            include_str!("tests/ten.mmd"),
            draw(&ten(), Format::Mermaid, wide),
        ),
        (
            "ten.txt",
            include_str!("tests/ten.txt"),
            draw(&ten(), Format::Ascii, wide),
        ),
        (
            "ten-live.svg",
            include_str!("tests/ten-live.svg"),
            draw(&live(), Format::Svg, wide),
        ),
        (
            "ten-plain.txt",
            include_str!("tests/ten-plain.txt"),
            draw(&live(), Format::Ascii, plain),
        ),
    ]
}

#[test]
fn pictures_are_those_that_were_looked_at() {
    for (name, expected, drawn) in golden() {
        assert!(
            expected == drawn,
            "{name} is drawn otherwise; if that is better: cargo test -p quiver-pipeline -- --ignored golden_files_are_written\n{drawn}"
        );
    }
}

#[test]
#[ignore = "writes the golden files"]
fn golden_files_are_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/draw/tests");
    for (name, _, drawn) in golden() {
        std::fs::write(folder.join(name), drawn).unwrap();
    }
}

/// Refuses what is no well-formed XML, as far as pictures use it. Says which elements there are.
pub(crate) fn elements(text: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut all = Vec::new();
    let entities = |text: &str| {
        for part in text.split('&').skip(1) {
            let (name, _) = part.split_once(';').expect("an entity ends");
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "{name}");
        }
        let is_allowed = |letter: char| matches!(letter, '\n' | ' '..='\u{7E}' | '\u{A0}'..='\u{FFFD}' | '\u{10000}'..);
        assert!(text.chars().all(is_allowed), "{text:?}");
    };
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        entities(&rest[..start]);
        assert!(!rest[..start].contains('>') || open.last() == Some(&"style"));
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "of {text}");
            continue;
        }
        let is_empty = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(|letter| letter.is_ascii_alphabetic()));
        let mut names = Vec::new();
        while !attributes.is_empty() {
            let (attribute, value) = attributes.split_once("=\"").expect("a value");
            let attribute = attribute.trim_start();
            assert!(
                attribute
                    .chars()
                    .all(|letter| letter.is_ascii_alphabetic() || letter == '-')
            );
            assert!(!names.contains(&attribute), "{attribute} twice");
            names.push(attribute);
            let (value, others) = value.split_once('"').expect("a value ends");
            assert!(!value.contains('<'));
            entities(value);
            attributes = others;
        }
        let class = tag.split_once("class=\"").and_then(|(_, class)| {
            let (class, _) = class.split_once('"')?;
            Some(class)
        });
        all.push(format!("{name}.{}", class.unwrap_or_default()));
        if !is_empty {
            open.push(name);
        }
    }
    assert!(rest.trim().is_empty() && open.is_empty());
    all
}

#[test]
fn an_svg_is_xml_with_every_node_and_edge_once() {
    for seed in 0..40 {
        let picture = random(seed, seed % 2 == 0);
        let drawn = write(&picture, Format::Svg, Terminal::default()).unwrap();
        let elements = elements(&drawn);
        let count = |wanted: fn(&str) -> bool| elements.iter().filter(|e| wanted(e)).count();
        let legend = picture.kinds().len();
        assert_eq!(
            count(|e| e.starts_with("g.n ")),
            picture.nodes().len() + legend
        );
        assert_eq!(count(|e| e == "path.p"), picture.edges().len());
        assert_eq!(count(|e| e == "path.h"), picture.edges().len());
        assert_eq!(
            drawn,
            write(&picture, Format::Svg, Terminal::default()).unwrap()
        );
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
    }
}

#[test]
fn dot_and_mermaid_have_every_node_and_edge_once() {
    for seed in 0..50 {
        let picture = random(seed, true);
        let dot = write(&picture, Format::Dot, Terminal::default()).unwrap();
        let mermaid = write(&picture, Format::Mermaid, Terminal::default()).unwrap();
        let edges = picture.edges().len();
        assert_eq!(dot.matches(" -> ").count(), edges);
        assert_eq!(dot.matches("[label=<").count(), picture.nodes().len());
        assert_eq!(mermaid.matches("->").count(), edges);
        assert_eq!(mermaid.matches(":::").count(), picture.nodes().len());
    }
}

const HOSTILE: [&str; 12] = [
    "",
    "\"]); alert(1) --> x; %%",
    "</title><script>alert(1)</script>",
    "a & b < c > d ' \" \\ \\n \\N",
    "line\nbreak\r\ttab\u{0}\u{1b}[31mred\u{7f}\u{9b}",
    "\u{202E}turned\u{2066}\u{200B}\u{FEFF}\u{FFFE}",
    "温度センサー・ΔT",
    "🚚🚚🚚 e\u{301}\u{301}\u{301}",
    "end",
    "#quot;#60;script#62;&lt;",
    "`**bold**` __x__ [l](javascript:x) 1. list",
    "--&gt;]]>--><![CDATA[",
];

#[test]
fn hostile_texts_stay_texts() {
    let long = "x".repeat(100_000);
    let mut picture = Picture::default();
    for text in HOSTILE.iter().copied().chain([long.as_str()]) {
        for kind in Kind::ALL {
            let mut hostile = node(kind, text, &[text, text]);
            hostile.marks = vec![text.to_owned()];
            let number = picture.add(hostile).unwrap();
            if number > 0 {
                connect(&mut picture, number - 1, number, Exit::Errors);
            }
        }
    }
    let draw = |format| write(&picture, format, Terminal::default()).unwrap();
    let elements = elements(&draw(Format::Svg));
    assert!(!elements.iter().any(|element| element.starts_with("script")));
    let nodes = picture.nodes().len();
    let dot = draw(Format::Dot);
    assert_eq!(dot.lines().count(), 7 + nodes + picture.edges().len());
    for line in dot.lines().filter(|line| line.contains("[label=<")) {
        let (_, label) = line.split_once("label=<").unwrap();
        let (label, _) = label.split_once(">, class=").unwrap();
        elements_of_label(label);
    }
    let mermaid = draw(Format::Mermaid);
    for line in mermaid.lines().filter(|line| line.contains(":::")) {
        assert_eq!(line.matches('"').count(), 2, "{line}");
        let (_, label) = line.split_once('"').unwrap();
        let (label, _) = label.rsplit_once('"').unwrap();
        let label = label
            .replace("<b>", "")
            .replace("</b>", "")
            .replace("<br/>", "");
        assert!(!label.contains(['<', '>', '&', '`', '[', '%']), "{label}");
    }
    for is_unicode in [true, false] {
        let terminal = Terminal {
            columns: 100,
            is_unicode,
        };
        let text = write(&picture, Format::Ascii, terminal).unwrap();
        assert!(
            !text
                .chars()
                .any(|letter| letter.is_control() && letter != '\n')
        );
        assert!(!text.contains(['\u{202E}', '\u{2066}', '\u{200B}']));
        assert!(is_unicode || text.is_ascii());
    }
    let drawn = [Format::Svg, Format::Dot, Format::Mermaid, Format::Ascii].map(draw);
    assert!(drawn.iter().all(|drawn| drawn.len() < 1_000_000));
}

fn elements_of_label(label: &str) {
    elements(&format!("<label>{label}</label>"));
}

#[test]
fn what_is_too_large_is_an_error() {
    let mut picture = Picture::default();
    for number in 0..NODES_MAX {
        picture
            .add(node(Kind::Map, &number.to_string(), &[]))
            .unwrap();
    }
    let more = picture.add(node(Kind::Map, "more", &[]));
    assert_eq!(more, Err(DrawError::TooManyNodes));
    let edge = Edge {
        from: 0,
        to: NODES_MAX,
        exit: Exit::Out,
        rate: None,
    };
    assert_eq!(
        picture.connect(edge.clone()),
        Err(DrawError::NoSuchNode(NODES_MAX))
    );
    let edge = Edge { to: 1, ..edge };
    for _ in 0..EDGES_MAX {
        picture.connect(edge.clone()).unwrap();
    }
    assert_eq!(picture.connect(edge), Err(DrawError::TooManyEdges));

    // A chain of all nodes, each of which gives to the last one too: nobody could follow that.
    let mut picture = Picture::default();
    for number in 0..NODES_MAX {
        picture
            .add(node(Kind::Map, &number.to_string(), &[]))
            .unwrap();
        if number > 0 {
            connect(&mut picture, number - 1, number, Exit::Out);
        }
    }
    for number in 0..NODES_MAX - 2 {
        connect(&mut picture, number, NODES_MAX - 1, Exit::Out);
    }
    let svg = write(&picture, Format::Svg, Terminal::default());
    assert_eq!(svg, Err(DrawError::TooTangled));
    let text = write(&picture, Format::Ascii, Terminal::default()).unwrap();
    assert_eq!(text.matches('▶').count(), picture.edges().len());
}

#[test]
fn an_empty_picture_is_one() {
    let picture = Picture::default();
    for format in Format::ALL {
        write(&picture, format, Terminal::default()).unwrap();
    }
    elements(&write(&picture, Format::Svg, Terminal::default()).unwrap());
}

#[test]
fn formats_are_read_and_written() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    let error = "png".parse::<Format>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"png\" is no format of a picture; there is svg, dot, mermaid and ascii"
    );
}

#[test]
fn rates_are_short() {
    for (rate, text) in [
        (0.0, "0/s"),
        (-1.0, "0/s"),
        (f64::NAN, "0/s"),
        (0.01, "<0.1/s"),
        (0.44, "0.4/s"),
        (3.0, "3/s"),
        (9.96, "10/s"),
        (12.4, "12/s"),
        (999.6, "1.0k/s"),
        (1_234.0, "1.2k/s"),
        (45_600.0, "46k/s"),
        (1_200_000.0, "1.2M/s"),
        (3e13, "30T/s"),
    ] {
        assert_eq!(rate_text(rate), text);
    }
}
