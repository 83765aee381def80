//! Which crate may depend on which. The table is the map of rooms; a crate that is not in it, or
//! an edge that is not, fails the check, so that the map is changed on purpose or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    failure::Failure,
    process,
    workspace::{Member, Workspace},
};

/// What a crate may use of the workspace.
#[derive(Clone, Copy)]
enum May {
    /// These, in its library or binary.
    Use(&'static [&'static str]),
    /// Anything: it wires the rest together, or attacks it.
    UseAll,
}

/// Crate by crate; arrows point one way, so a crate uses only those above it.
const MAP: &[(&str, May)] = &[
    ("quiver-allocator", May::Use(&[])),
    ("quiver-model", May::Use(&[])),
    ("quiver-pki", May::Use(&["quiver-model"])),
    ("quiver-analysis", May::Use(&["quiver-model"])),
    ("quiver-expression", May::Use(&["quiver-model"])),
    (
        "quiver-pipeline",
        May::Use(&["quiver-model", "quiver-expression", "quiver-analysis"]),
    ),
    ("quiver-protocol", May::Use(&["quiver-model"])),
    (
        "quiver-client",
        May::Use(&["quiver-model", "quiver-pki", "quiver-protocol"]),
    ),
    ("quiver-log", May::Use(&["quiver-model"])),
    ("quiver-hot", May::Use(&["quiver-model"])),
    ("quiver-archive", May::Use(&["quiver-model", "quiver-hot"])),
    (
        "quiver-query",
        May::Use(&["quiver-model", "quiver-hot", "quiver-archive"]),
    ),
    (
        "quiver-runtime",
        May::Use(&[
            "quiver-model",
            "quiver-pki",
            "quiver-protocol",
            "quiver-log",
            "quiver-hot",
        ]),
    ),
    (
        "quiver-bench",
        May::Use(&["quiver-model", "quiver-pki", "quiver-protocol"]),
    ),
    ("quiver", May::UseAll),
    ("quiver-bench-kernels", May::UseAll),
    ("quiver-bench-limits", May::UseAll),
    (
        "quiver-bench-windows",
        May::Use(&["quiver-allocator", "quiver-analysis"]),
    ),
    ("quiver-fuzz", May::UseAll),
    ("quiver-tests", May::UseAll),
    ("xtask", May::Use(&[])),
];

/// Crates that must stay light: what is below them compiles in a minute or two, and has one TLS
/// provider. Everything a device or a gateway links is here.
const LIGHT: &[&str] = &[
    "quiver-model",
    "quiver-pki",
    "quiver-analysis",
    "quiver-protocol",
    "quiver-client",
    "quiver-log",
    "quiver-hot",
    "quiver-runtime",
    "quiver-bench",
];

/// What must not be below a light crate, and why.
const HEAVY: &[Heavy] = &[
    Heavy {
        package: "datafusion",
        edges: "normal,build,dev",
        why: "it takes minutes to compile",
    },
    Heavy {
        package: "datafusion-common",
        edges: "normal,build,dev",
        why: "it takes minutes to compile",
    },
    Heavy {
        package: "deltalake-core",
        edges: "normal,build,dev",
        why: "it takes minutes to compile",
    },
    Heavy {
        package: "arrow",
        edges: "normal",
        why: "it is a façade that drags all of Arrow in; depend on arrow-array, -schema, -ipc…",
    },
    Heavy {
        package: "aws-lc-rs",
        edges: "normal",
        why: "the one TLS provider is ring",
    },
];

struct Heavy {
    package: &'static str,
    /// Kinds of edges followed, in `cargo tree`'s words.
    edges: &'static str,
    why: &'static str,
}

/// Checks the direct edges between our crates, and what is below the light ones.
pub fn check(workspace: &Workspace) -> Result<(), Failure> {
    let mut findings = edges(&workspace.members, MAP);
    findings.extend(weights(workspace)?);
    Failure::unless_empty(findings)
}

/// The members whose documentation is built: libraries without query planning below them.
pub fn light_libraries(workspace: &Workspace) -> Vec<&str> {
    let is_light = |member: &&Member| member.has_library && LIGHT.contains(&member.name.as_str());
    workspace
        .members
        .iter()
        .filter(is_light)
        .map(|member| member.name.as_str())
        .collect()
}

fn edges(members: &[Member], map: &[(&str, May)]) -> Vec<String> {
    let rules: BTreeMap<&str, May> = map.iter().copied().collect();
    let ours: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut findings = Vec::new();
    for member in members {
        let name = &member.name;
        let Some(rule) = rules.get(name.as_str()) else {
            findings.push(format!(
                "{name} is not in the map; say in xtask/src/arrows.rs what it may use, and in \
                 ARCHITECTURE.md what it is for",
            ));
            continue;
        };
        let May::Use(allowed) = rule else { continue };
        for dependency in &member.dependencies {
            // For its tests a crate may use any other; what that weighs is checked below.
            if !dependency.dev
                && ours.contains(dependency.name.as_str())
                && !allowed.contains(&dependency.name.as_str())
            {
                findings.push(format!(
                    "{name} -> {}: this arrow is not in the map; move what is shared into a crate \
                     that both may use, or hand it in as a trait",
                    dependency.name,
                ));
            }
        }
    }
    findings
}

fn weights(workspace: &Workspace) -> Result<Vec<String>, Failure> {
    let lock = workspace.root.join("Cargo.lock");
    let lock = fs::read_to_string(&lock)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", lock.display())))?;
    let mut findings = Vec::new();
    for heavy in HEAVY {
        // A rule about a crate that nobody has any more would hold for ever and guard nothing.
        if !is_locked(&lock, heavy.package) {
            findings.push(format!(
                "{} is not in Cargo.lock, so the rule about it guards nothing; mend the table in \
                 xtask/src/arrows.rs",
                heavy.package,
            ));
        }
    }
    for name in LIGHT {
        if !workspace.members.iter().any(|member| member.name == *name) {
            findings.push(format!(
                "{name} is in xtask/src/arrows.rs and not in the workspace"
            ));
            continue;
        }
        for edges in ["normal", "normal,build,dev"] {
            let rules = || HEAVY.iter().filter(|heavy| heavy.edges == edges);
            let below = below(workspace, name, edges)?;
            for heavy in rules().filter(|heavy| below.contains(heavy.package)) {
                findings.push(format!(
                    "{name} has {} below it, but {}; `cargo tree -p {name} -e {edges} -i {}` shows \
                     the way",
                    heavy.package, heavy.why, heavy.package,
                ));
            }
        }
    }
    Ok(findings)
}

/// The names of all packages below one.
fn below(workspace: &Workspace, name: &str, edges: &str) -> Result<BTreeSet<String>, Failure> {
    let mut command = workspace.cargo();
    command.args([
        "tree", "--locked", "-p", name, "-e", edges, "--prefix", "none",
    ]);
    let tree = process::output(&mut command)?;
    Ok(tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect())
}

fn is_locked(lock: &str, package: &str) -> bool {
    let line = format!("name = \"{package}\"");
    lock.lines().any(|found| found == line)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::Dependency;

    fn member(name: &str, dependencies: &[(&str, bool)]) -> Member {
        Member {
            name: name.to_owned(),
            directory: PathBuf::new(),
            has_library: true,
            dependencies: dependencies
                .iter()
                .map(|(name, dev)| Dependency {
                    name: (*name).to_owned(),
                    dev: *dev,
                })
                .collect(),
        }
    }

    const RULES: &[(&str, May)] = &[
        ("low", May::Use(&[])),
        ("high", May::Use(&["low"])),
        ("top", May::UseAll),
    ];

    #[test]
    fn arrows_of_the_map_are_allowed_and_so_are_other_peoples_crates() {
        let members = [
            member("low", &[("serde", false), ("high", true)]),
            member("high", &[("low", false)]),
            member("top", &[("low", false), ("high", false)]),
        ];
        assert_eq!(edges(&members, RULES), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_against_the_map_and_a_crate_beside_it_are_found() {
        let members = [
            member("low", &[("high", false)]),
            member("high", &[]),
            member("new", &[]),
        ];
        let found = edges(&members, RULES);
        assert!(found.len() == 2, "{found:?}");
        assert!(found[0].starts_with("low -> high"));
        assert!(found[1].starts_with("new is not in the map"));
    }

    #[test]
    fn the_map_itself_has_no_cycle() {
        let mut above: BTreeSet<&str> = BTreeSet::new();
        for (name, rule) in MAP {
            if let May::Use(allowed) = rule {
                assert!(allowed.iter().all(|other| above.contains(other)), "{name}");
            }
            above.insert(name);
        }
    }

    #[test]
    fn a_locked_package_is_found_by_its_whole_name() {
        let lock = "[[package]]\nname = \"datafusion-common\"\nversion = \"1\"\n";
        assert!(is_locked(lock, "datafusion-common"));
        assert!(!is_locked(lock, "datafusion"));
    }
}
