//! What cargo knows of the workspace: members, what they depend on, and what
//! they are linked with.

use std::collections::BTreeSet;
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

/// The members of the workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) members: Vec<Member>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load(place: &Place) -> Result<Self, String> {
        let arguments = ["metadata", "--format-version", "1", "--quiet", "--no-deps"];
        let text = Run::cargo(place, &arguments).output()?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|e| format!("what cargo metadata wrote cannot be read: {e}"))?;
        Ok(Self::read(&json, place))
    }

    fn read(json: &Value, place: &Place) -> Self {
        let members: BTreeSet<&str> = list(json, "workspace_members")
            .filter_map(Value::as_str)
            .collect();
        let packages = list(json, "packages").filter(|p| members.contains(text(p, "id")));
        Self {
            members: packages.map(|package| member(package, place)).collect(),
        }
    }
}

/// What the code of one crate is linked with when it is built alone: its
/// features are then its own, and not those that another member asks for.
#[derive(Debug)]
pub(crate) struct Linked {
    /// Depth and name of each package, parents before their children.
    rows: Vec<(usize, String)>,
}

impl Linked {
    /// Asks cargo.
    pub(crate) fn load(place: &Place, name: &str) -> Result<Self, String> {
        let arguments = [
            "tree",
            "--quiet",
            "--locked",
            "--edges",
            "normal,no-proc-macro",
        ];
        let tree = Run::cargo(place, &arguments)
            .args(["--prefix", "depth", "--package", name])
            .output()?;
        Ok(Self::read(&tree))
    }

    pub(crate) fn read(tree: &str) -> Self {
        let row = |line: &str| {
            let name = line.trim_start_matches(|c: char| c.is_ascii_digit());
            let depth = line[..line.len() - name.len()].parse().ok()?;
            Some((depth, name.split(' ').next()?.to_owned()))
        };
        Self {
            rows: tree.lines().filter_map(row).collect(),
        }
    }

    /// How `to` comes to be linked: the packages on the way, both ends
    /// included.
    pub(crate) fn way(&self, to: &str) -> Option<Vec<String>> {
        let at = self.rows.iter().position(|(_, name)| name == to)?;
        let (mut depth, mut way) = (self.rows[at].0 + 1, Vec::new());
        for (above, name) in self.rows[..=at].iter().rev() {
            if *above < depth {
                depth = *above;
                way.push(name.clone());
            }
        }
        way.reverse();
        Some(way)
    }
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

    /// A workspace of members, each with dependencies.
    pub(crate) fn workspace(members: &[(&str, &[&str])]) -> Workspace {
        let dependency = |package: &&str| Dependency {
            package: (*package).into(),
            ident: package.replace('-', "_"),
            auxiliary: false,
        };
        let members = members.iter().map(|(name, dependencies)| Member {
            name: (*name).into(),
            folder: PathBuf::from("crates").join(name.trim_start_matches("adit-")),
            dependencies: dependencies.iter().map(dependency).collect(),
        });
        Workspace {
            members: members.collect(),
        }
    }

    #[test]
    fn the_way_to_a_package_is_read_from_the_tree() {
        let tree = "0adit-wire v0.1.0 (/r)\n1adit-model v0.1.0 (/r)\n2helper v1.0.0\n\
                    3tokio v1.0.0\n2other v1.0.0\n1last v0.1.0\n2helper v1.0.0 (*)\n";
        let linked = Linked::read(tree);
        let way = linked.way("tokio").unwrap();
        assert_eq!(way, ["adit-wire", "adit-model", "helper", "tokio"]);
        assert_eq!(linked.way("last").unwrap(), ["adit-wire", "last"]);
        assert_eq!(linked.way("mio"), None);
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
                {"id": "lib", "name": "some-lib", "manifest_path": "/x/Cargo.toml", "dependencies": []}]
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
        assert_eq!(found.members.len(), 1);
    }
}
