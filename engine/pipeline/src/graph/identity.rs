//! Which definition of a node is which: what it remembers is of use to another definition only if
//! that remembers the same things.

use crate::{
    config::{NodeKind, WindowConfig},
    graph::{Graph, Node, Origin, Port},
    source::Located,
    value::Text,
};

impl Node {
    /// Names the definition of what the node remembers. A node with the same generation takes up the
    /// state of the one before; tolerances, conditions and inputs may change with it.
    pub fn generation(&self) -> u64 {
        let mut hash = Fnv::new();
        hash.add(self.section());
        match &self.config.kind {
            NodeKind::Window(window) => window_state(window, &mut hash),
            NodeKind::Missing(missing) => hash.texts(&missing.fields),
            NodeKind::Route(_) | NodeKind::Map(_) | NodeKind::Lookup(_) => {}
            NodeKind::Later { .. } => {}
        }
        hash.0
    }

    /// Whether rows that go in leave something behind that rows after them depend on.
    pub fn has_state(&self) -> bool {
        match &self.config.kind {
            NodeKind::Window(_) | NodeKind::Missing(_) => true,
            NodeKind::Route(route) => route.limit.is_some(),
            NodeKind::Map(_) | NodeKind::Lookup(_) | NodeKind::Later { .. } => false,
        }
    }

    /// Names the whole definition, its inputs included.
    pub fn definition(&self) -> u64 {
        let mut hash = Fnv::new();
        hash.add(self.section());
        hash.add(self.name());
        hash.texts(&self.config.from);
        match &self.config.kind {
            NodeKind::Route(route) => {
                hash.text(route.condition.as_ref());
                hash.add(&format!(
                    "{} {:?} {:?}",
                    route.is_default,
                    route.sample.as_ref().map(|sample| sample.value),
                    route.limit.as_ref().map(|limit| limit.value)
                ));
            }
            NodeKind::Map(map) => {
                hash.text(map.select.as_ref());
                hash.text(map.condition.as_ref());
            }
            NodeKind::Lookup(lookup) => {
                if let Some(crate::config::LookupTable::File(file)) = &lookup.table {
                    hash.text(Some(file));
                }
                for (row, table) in &lookup.on {
                    hash.text(Some(row));
                    hash.text(Some(table));
                }
                hash.texts(&lookup.columns);
                hash.add(&lookup.keeps_unmatched.to_string());
            }
            NodeKind::Window(window) => {
                window_state(window, &mut hash);
                hash.text(window.condition.as_ref());
                let spans = [
                    &window.out_of_order,
                    &window.late,
                    &window.early,
                    &window.idle,
                    &window.retain,
                ];
                for span in spans {
                    hash.span(span.as_ref());
                }
            }
            NodeKind::Missing(missing) => {
                hash.texts(&missing.fields);
                hash.span(missing.after.as_ref());
                hash.span(missing.forget.as_ref());
            }
            NodeKind::Later { actions, .. } => hash.texts(actions),
        }
        hash.0
    }
}

impl Graph {
    /// Names all that makes this graph another than others: its streams, nodes and stores.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::new();
        for stream in &self.streams {
            hash.add(&stream.name);
            let Some(declared) = &stream.declared else {
                continue;
            };
            hash.add(&format!("{:?}", declared.mode));
            for field in &declared.fields {
                hash.add(&format!("{} {}", field.field.name, field.field.type_word()));
            }
        }
        for node in &self.nodes {
            hash.add(&node.definition().to_string());
        }
        for store in &self.stores {
            hash.add(&store.config.name.value);
            hash.texts(&store.config.from);
            for span in [&store.config.hot, &store.config.queue, &store.config.keep] {
                hash.span(span.as_ref());
            }
        }
        hash.0
    }

    /// Names, for each node, all that its rows depend on: its own definition and those of the views
    /// that its rows come through, back to records of the log. What comes from other nodes by way of
    /// the log does not count.
    pub fn lineages(&self) -> Vec<u64> {
        let mut lineages = vec![0; self.nodes.len()];
        for number in self.order.iter().copied() {
            let Some(node) = self.nodes.get(number) else {
                continue;
            };
            let mut hash = Fnv::new();
            hash.add(&node.definition().to_string());
            for edge in &node.inputs {
                hash.add(&self.name(edge.origin));
                if let Origin::Node(before, port) = edge.origin
                    && let Some(origin) = self.nodes.get(before)
                    && !(origin.is_derived() && port == Port::Out)
                {
                    hash.add(&lineages.get(before).copied().unwrap_or(0).to_string());
                }
                if matches!(&node.config.kind, NodeKind::Route(route) if route.is_default) {
                    // It takes what the others leave.
                    for other in self.nodes.iter().filter(|other| other.section() == "route") {
                        if other.inputs.iter().any(|input| input.origin == edge.origin) {
                            hash.add(&other.definition().to_string());
                        }
                    }
                }
            }
            if let Some(lineage) = lineages.get_mut(number) {
                *lineage = hash.0;
            }
        }
        lineages
    }
}

/// What the state of a window depends on.
fn window_state(window: &WindowConfig, hash: &mut Fnv) {
    hash.add(&format!("{:?} {:?}", window.shape, window.emit));
    hash.texts(&window.sizes);
    for span in [&window.every, &window.gap, &window.max] {
        hash.span(span.as_ref());
    }
    for text in [
        &window.open,
        &window.close,
        &window.select,
        &window.timezone,
    ] {
        hash.text(text.as_ref());
    }
    if let Some(by) = &window.by {
        hash.texts(&by.value);
    }
}

/// FNV-1a over parts, each ended so that no two lists of parts are alike.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, part: &str) {
        for byte in part.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn text(&mut self, text: Option<&Located<Text>>) {
        match text {
            Some(text) => self.add(text.as_str()),
            None => self.add("\u{0}"),
        }
    }

    fn texts(&mut self, texts: &[Located<Text>]) {
        self.add(&texts.len().to_string());
        texts.iter().for_each(|text| self.text(Some(text)));
    }

    fn span(&mut self, span: Option<&Located<i64>>) {
        self.add(&format!("{:?}", span.map(|span| span.value)));
    }
}
