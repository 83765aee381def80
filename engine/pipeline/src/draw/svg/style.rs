//! Colours and fonts. A picture carries its own style, for light and for dark pages.
//!
//! The borders are told apart by people who are colour-blind too (after Okabe and Ito), and every
//! kind has its own shape besides. Text on every fill has a contrast of more than 7 to 1.

use crate::draw::picture::Kind;

/// Fill and border of a kind, on a light page.
pub(crate) const fn light(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Stream => ("#d6e8f7", "#0063a3"),
        Kind::Route => ("#fde6cf", "#b85c00"),
        Kind::Map => ("#d5f0e4", "#007a5a"),
        Kind::Lookup => ("#ecdff5", "#7b3fa0"),
        Kind::Window => ("#fbf0bd", "#8a6a00"),
        Kind::Missing => ("#fbe0ec", "#b03a78"),
        Kind::Detect => ("#d2f0f5", "#0a7285"),
        Kind::Alert => ("#fde0dc", "#b3261e"),
        Kind::Action => ("#f0e4d8", "#7a4a21"),
        Kind::Display => ("#e3e6fb", "#4a50b8"),
        Kind::Store => ("#e6e9ee", "#4a5565"),
    }
}

/// Fill and border of a kind, on a dark page.
const fn dark(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Stream => ("#12324a", "#6cb4e8"),
        Kind::Route => ("#46290a", "#f0a04b"),
        Kind::Map => ("#0c3a2d", "#4cc79b"),
        Kind::Lookup => ("#371f49", "#c490e4"),
        Kind::Window => ("#3d3208", "#e2c044"),
        Kind::Missing => ("#471a31", "#ee8fbd"),
        Kind::Detect => ("#0b3840", "#5ccbdc"),
        Kind::Alert => ("#4a1714", "#f58a80"),
        Kind::Action => ("#3a2817", "#d3a06f"),
        Kind::Display => ("#22264f", "#9aa2f5"),
        Kind::Store => ("#2a313b", "#a7b3c4"),
    }
}

/// What does not depend on the page. Every rule begins with the picture's class, so that a page that
/// includes the picture keeps its own look.
const COMMON: &str = "\
.qg text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','Noto Sans',Arial,sans-serif;text-anchor:middle}
.qg .n .f{stroke-width:1.6;stroke-linejoin:round}
.qg .n .l{stroke-width:1.3;fill:none}
.qg .missing .f{stroke-dasharray:5 3.5}
.qg .name{font-size:13px;font-weight:600}
.qg text.what{font-size:10.5px;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace}
.qg .p{fill:none;stroke-width:1.5;stroke-linecap:butt}
.qg .late .p{stroke-dasharray:7 4}
.qg .errors .p{stroke-dasharray:2.5 3}
.qg .back .p{stroke-dasharray:10 3 2 3}
.qg text.r{font-size:10px;text-anchor:start;font-variant-numeric:tabular-nums}
.qg .m text{font-size:9.5px;font-weight:600}
.qg text.k{font-size:11px;text-anchor:start}
";

struct Page {
    background: &'static str,
    text: &'static str,
    quiet: &'static str,
    edge: &'static str,
    late: &'static str,
    errors: &'static str,
    mark: (&'static str, &'static str),
    colours: fn(Kind) -> (&'static str, &'static str),
}

const LIGHT: Page = Page {
    background: "#ffffff",
    text: "#18202b",
    quiet: "#3b4656",
    edge: "#66717f",
    late: "#8f6200",
    errors: "#b3261e",
    mark: ("#b3261e", "#ffffff"),
    colours: light,
};

const DARK: Page = Page {
    background: "#0d1117",
    text: "#f0f4f9",
    quiet: "#cdd6e1",
    edge: "#8d99a8",
    late: "#e2b33c",
    errors: "#ff8a80",
    mark: ("#ff8a80", "#2a0a08"),
    colours: dark,
};

fn rules(page: &Page, kinds: &[Kind]) -> String {
    let Page {
        background,
        text,
        quiet,
        edge,
        late,
        errors,
        mark,
        colours,
    } = page;
    let mut rules = format!(
        ".qg .bg{{fill:{background}}}\n.qg text{{fill:{text}}}\n.qg text.what,.qg text.k{{fill:{quiet}}}\n\
         .qg text.r{{fill:{quiet};stroke:{background};stroke-width:3px;stroke-linejoin:round;paint-order:stroke}}\n"
    );
    for (class, colour) in [
        ("", edge),
        (".late", late),
        (".errors", errors),
        (".back", errors),
    ] {
        rules.push_str(&format!(
            ".qg {class}.e .p{{stroke:{colour}}}\n.qg {class}.e .h{{fill:{colour}}}\n"
        ));
    }
    rules.push_str(&format!(
        ".qg .late text.r{{fill:{late}}}\n.qg .errors text.r{{fill:{errors}}}\n.qg .m rect{{fill:{}}}\n.qg .m text{{fill:{}}}\n",
        mark.0, mark.1
    ));
    for kind in kinds {
        let (fill, border) = colours(*kind);
        let word = kind.word();
        rules.push_str(&format!(".qg .{word} .f{{fill:{fill};stroke:{border}}}\n"));
        if matches!(kind, Kind::Lookup | Kind::Store) {
            rules.push_str(&format!(".qg .{word} .l{{stroke:{border}}}\n"));
        }
        if *kind == Kind::Window {
            rules.push_str(&format!(".qg .{word} .b{{fill:{border}}}\n"));
        }
    }
    rules
}

/// The style of a picture with these kinds.
pub(crate) fn style(kinds: &[Kind]) -> String {
    format!(
        "<style>\n{COMMON}{}@media (prefers-color-scheme:dark){{\n{}}}\n</style>\n",
        rules(&LIGHT, kinds),
        rules(&DARK, kinds)
    )
}
