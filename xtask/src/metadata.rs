//! What cargo knows of the workspace: members, what they depend on, and what
//! they reach through others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::shell::{Place, Run};

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Its folder, below the repository's root.
    pub(crate) folder: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A line of a member's dependency tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) package: String,
    /// The name that sources use, with underscores.
    pub(crate) ident: String,
    /// Only its tests or its build script have it.
    pub(crate) auxiliary: bool,
}

/// The workspace as cargo resolved it.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) members: Vec<Member>,
    /// Package name to the names that its own code is linked with.
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load(place: &Place) -> Result<Self, String> {
        let text = Run::cargo(
            place,
            &["metadata", "--format-version", "1", "--quiet", "--locked"],
        )
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|e| format!("what cargo metadata wrote cannot be read: {e}"))?;
        Ok(Self::read(&json, place))
    }

    fn read(json: &Value, place: &Place) -> Self {
        let members: BTreeSet<&str> = list(json, "workspace_members")
            .filter_map(Value::as_str)
            .collect();
        let mut names = BTreeMap::new();
        let mut found = Vec::new();
        for package in list(json, "packages") {
            names.insert(text(package, "id"), text(package, "name"));
            if members.contains(text(package, "id")) {
                found.push(member(package, place));
            }
        }
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&json["resolve"], "nodes") {
            let from = names.get(text(node, "id")).copied().unwrap_or_default();
            let to = list(node, "deps")
                .filter(|dep| list(dep, "dep_kinds").any(|kind| kind["kind"].is_null()));
            let to = to.filter_map(|dep| names.get(text(dep, "pkg")).map(|n| (*n).to_owned()));
            edges.entry(from.to_owned()).or_default().extend(to);
        }
        Self {
            members: found,
            edges,
        }
    }

    /// How `from` comes to be linked with `to`: the packages on the way, both
    /// ends included.
    pub(crate) fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut waiting = std::collections::VecDeque::from([from]);
        while let Some(at) = waiting.pop_front() {
            for next in self.edges.get(at).into_iter().flatten() {
                if next == from || came_from.contains_key(next.as_str()) {
                    continue;
                }
                came_from.insert(next, at);
                if next == to {
                    return Some(walk_back(&came_from, from, to));
                }
                waiting.push_back(next);
            }
        }
        None
    }
}

fn walk_back(came_from: &BTreeMap<&str, &str>, from: &str, to: &str) -> Vec<String> {
    let mut way = vec![to.to_owned()];
    let mut at = to;
    while let Some(&before) = came_from.get(at).filter(|_| at != from) {
        way.push(before.to_owned());
        at = before;
    }
    way.reverse();
    way
}

fn member(package: &Value, place: &Place) -> Member {
    let manifest = PathBuf::from(text(package, "manifest_path"));
    let folder = manifest.parent().unwrap_or(&manifest);
    let dependencies = list(package, "dependencies").map(|line| {
        let name = text(line, "name");
        Dependency {
            package: name.to_owned(),
            ident: line["rename"].as_str().unwrap_or(name).replace('-', "_"),
            auxiliary: !line["kind"].is_null(),
        }
    });
    Member {
        name: text(package, "name").to_owned(),
        folder: folder
            .strip_prefix(&place.root)
            .unwrap_or(folder)
            .to_path_buf(),
        dependencies: dependencies.collect(),
    }
}

fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl Workspace {
        /// The member of this name.
        pub(crate) fn member(&self, name: &str) -> Option<&Member> {
            self.members.iter().find(|member| member.name == name)
        }
    }

    /// A workspace of members and of edges `from -> to` that their code links.
    pub(crate) fn workspace(members: &[&str], edges: &[(&str, &str)]) -> Workspace {
        let mut found = Workspace {
            members: Vec::new(),
            edges: BTreeMap::new(),
        };
        for (from, to) in edges {
            found
                .edges
                .entry((*from).into())
                .or_default()
                .insert((*to).into());
        }
        for name in members {
            let direct = edges.iter().filter(|(from, _)| from == name);
            found.members.push(Member {
                name: (*name).into(),
                folder: PathBuf::from("crates").join(name.trim_start_matches("adit-")),
                dependencies: direct
                    .map(|(_, to)| Dependency {
                        package: (*to).into(),
                        ident: to.replace('-', "_"),
                        auxiliary: false,
                    })
                    .collect(),
            });
        }
        found
    }

    #[test]
    fn ways_are_the_shortest_and_follow_cycles_once() {
        let edges = [
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("c", "d"),
            ("a", "e"),
            ("e", "d"),
        ];
        let found = workspace(&["a"], &edges);
        assert_eq!(found.way("a", "d").unwrap(), ["a", "e", "d"]);
        assert_eq!(found.way("d", "a"), None);
        assert_eq!(found.way("a", "a"), None);
    }

    #[test]
    fn cargo_metadata_is_read_with_renames_and_kinds() {
        let json = serde_json::json!({
            "workspace_members": ["one"],
            "packages": [
                {"id": "one", "name": "adit-one", "manifest_path": "/r/crates/one/Cargo.toml",
                 "dependencies": [
                    {"name": "some-lib", "rename": null, "kind": null},
                    {"name": "other-lib", "rename": "other", "kind": "dev"}]},
                {"id": "lib", "name": "some-lib", "manifest_path": "/x/Cargo.toml", "dependencies": []},
                {"id": "dev", "name": "other-lib", "manifest_path": "/x/Cargo.toml", "dependencies": []}],
            "resolve": {"nodes": [{"id": "one", "deps": [
                {"pkg": "lib", "dep_kinds": [{"kind": null}]},
                {"pkg": "dev", "dep_kinds": [{"kind": "dev"}]}]}]}
        });
        let place = Place {
            root: "/r".into(),
            target: "/r/target".into(),
        };
        let found = Workspace::read(&json, &place);
        let member = found.member("adit-one").unwrap();
        assert_eq!(member.folder, PathBuf::from("crates/one"));
        assert_eq!(member.dependencies[0].ident, "some_lib");
        assert_eq!(member.dependencies[1].ident, "other");
        assert!(member.dependencies[1].auxiliary);
        assert!(found.way("adit-one", "some-lib").is_some());
        assert!(found.way("adit-one", "other-lib").is_none());
    }
}
