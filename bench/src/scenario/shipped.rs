//! The scenarios that are part of the program. Their files are in `bench/scenarios`.

/// A scenario that is part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// By which it is asked for.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
}

impl Shipped {
    /// The comment it begins with, in one line.
    pub fn purpose(&self) -> String {
        self.text
            .lines()
            .map_while(|line| line.strip_prefix('#'))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// All of them.
        pub const SHIPPED: &[Shipped] = &[$(Shipped {
            name: $name,
            text: include_str!(concat!("../../scenarios/", $name, ".toml")),
        },)*];
    };
}

shipped![
    "few-large",
    "gateway",
    "many-small",
    "coalesced",
    "messages",
    "iot-trucks",
    "storm",
    "disorder",
    "clocks",
    "duplicates",
    "lossy",
    "roaming",
    "bursts",
    "replay",
    "soak",
];
