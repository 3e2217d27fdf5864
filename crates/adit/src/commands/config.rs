//! `adit config`: check, describe and show configuration files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use adit_agent::config as agent;
use adit_config::{Spec, reference, schema};
use adit_edge::config as edge;
use adit_model::Code;
use clap::{Subcommand, ValueEnum};

use crate::failure::Failure;
use crate::settings::{self, Options, Remarks};
use crate::{Outcome, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// Read a file and tell every mistake in it
    #[command(after_help = "Examples:
  adit config check server.toml
  adit config check client.toml --for client

The environment is read too, as a start would. Exit status 0: no mistake, 2:
some, each told with file, line and what to write instead.")]
    Check {
        /// The file
        file: PathBuf,
        /// Whose file it is; default: found out from its tables
        #[arg(long = "for", value_enum, value_name = "SIDE")]
        side: Option<Side>,
    },
    /// Print the JSON schema (2020-12) of a file, for editors
    #[command(after_help = "Example:
  adit config schema server")]
    Schema {
        /// Whose file
        #[arg(value_enum, default_value = "server")]
        side: Side,
    },
    /// Print a complete commented file
    #[command(after_help = "Example:
  adit config example client")]
    Example {
        /// Whose file
        #[arg(value_enum, default_value = "server")]
        side: Side,
    },
    /// Print the reference of every key, as Markdown
    #[command(after_help = "Example:
  adit config reference")]
    Reference,
}

/// Whose configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Server,
    Client,
}

impl Side {
    fn spec(self) -> &'static Spec {
        match self {
            Self::Server => &edge::keys::SPEC,
            Self::Client => &agent::keys::SPEC,
        }
    }
}

pub(crate) fn run(command: &Sub) -> Outcome {
    match command {
        Sub::Check { file, side } => check(file, *side),
        Sub::Schema { side } => {
            let text = serde_json::to_string_pretty(&schema(side.spec()));
            let text = text.map_err(|error| Failure::new(Code::OUTPUT_CLOSED, error))?;
            Ok(terminal::print_whole(&format!("{text}\n"))?)
        }
        Sub::Example { side } => Ok(terminal::print_whole(match side {
            Side::Server => edge::EXAMPLE,
            Side::Client => agent::EXAMPLE,
        })?),
        Sub::Reference => Ok(terminal::print_whole(&page())?),
    }
}

fn check(file: &Path, side: Option<Side>) -> Outcome {
    let side = match side {
        Some(side) => side,
        None => guess(file)?,
    };
    let (options, remarks) = (Options::default(), Remarks::default());
    let what = match side {
        Side::Server => {
            let config = settings::edge(Some(file), &options, &remarks)?;
            let count = config.routes.len();
            format!(
                "an edge for {}, {count} {}",
                config.server.domain.host(),
                plural(count, "route")
            )
        }
        Side::Client => {
            let config = settings::agent(Some(file), &options, &remarks)?;
            let (count, local) = (config.tunnels.len(), config.forwards.len());
            let mut what = format!("an agent, {count} {}", plural(count, "tunnel"));
            if local > 0 {
                let _ = write!(what, ", {local} {}", plural(local, "local port"));
            }
            what
        }
    };
    remarks.note();
    terminal::print(&format!("{}: no mistake ({what})", file.display()));
    Ok(())
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// Whose file it is.
///
/// # Errors
/// It cannot be read.
pub(crate) fn guess(file: &Path) -> Result<Side, Failure> {
    let unreadable = |why: String| {
        Failure::from(adit_config::Mistakes::unreadable(
            &file.display().to_string(),
            &why,
        ))
    };
    let text = settings::read(file).map_err(unreadable)?;
    Ok(side_of(&text))
}

/// The first table that only one side knows decides. Both know `[[tunnel]]`: an
/// agent's says where to.
fn side_of(text: &str) -> Side {
    for line in text.lines() {
        let knows = |side: Side| {
            let mut sections = side.spec().sections.iter();
            sections.any(|section| {
                let header = match section.repeated {
                    true => format!("[[{}]]", section.name),
                    false => format!("[{}]", section.name),
                };
                line.trim_start().starts_with(&header)
            })
        };
        match (knows(Side::Server), knows(Side::Client)) {
            (true, false) => return Side::Server,
            (false, true) => return Side::Client,
            _ => {}
        }
    }
    let has_target = text
        .lines()
        .any(|line| line.trim_start().starts_with("target"));
    if has_target {
        Side::Client
    } else {
        Side::Server
    }
}

/// `docs/configuration.md`.
fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    for side in [Side::Server, Side::Client] {
        page.push('\n');
        page.push_str(&reference(side.spec()));
    }
    page
}

const INTRODUCTION: &str = "\
# Configuration

An edge runs without a configuration and an agent with its command line alone; a
file says more. Files are TOML. Every mistake is told at once, each with file,
line and what to write instead; unknown keys are mistakes. `adit config check
FILE` only looks, `adit config example server` (or `client`) prints a complete
commented file, `adit config schema` a JSON schema for editors. This page is
printed by `adit config reference`.

**Order.** An option of the command line stands above the environment, the
environment above the file, the file above the defaults. A key `domain` of
`[server]` is the variable `ADIT_SERVER_DOMAIN`; lists are separated by commas
there. Keys of tables in two brackets, as `[[route]]`, have no variable. `ADIT_EDGE`
and `ADIT_PIN` are short for `ADIT_AGENT_EDGE` and `ADIT_AGENT_PIN`; `ADIT_AUTH` is
the `--auth` of `adit http`; `ADIT_CONFIG` names the file.

**Secrets** are the value itself, `file:/path` (the file's text, one trailing
newline removed) or `env:NAME`. On a command line also `-`, the first line of
stdin. As an option's own value other users of the machine can read them in the
list of processes, so that Adit warns.

**Paths** that do not begin with a slash start at the configuration's folder.

**The edge's own words.** At a terminal `adit server` prints doors, fingerprint,
join string, PIN and who may come. Where stdout is no terminal (a service, a
container, a script) it prints a line for each door, the certificate that it made,
its fingerprint and `ready`, and no secret; the log then says how to get them: `adit server --print-join` and
`adit server --print-pin`, with the same `--config` or `--data`. A JSON log has
one object a line, each with `time` and `kind`: `access` (a request), `visit`
(a visitor of a TCP, TLS, UDP or private tunnel, when it is gone: how long it was
there, bytes each way, and what cut it), `audit` (who was admitted or refused) or
`log`. Nobody waits for who reads the log: when that one is too slow or has
stopped, lines are dropped, and one line says how many.

To take visitors and agents of other machines, two lines are needed:

```toml
[doors]
http = \"0.0.0.0:8080\"     # better: a loopback address behind your TLS proxy
link = \"0.0.0.0:7400\"     # and public = \"HOST:7400\" under [server]
```
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_tables() {
        for (text, side) in [
            (edge::EXAMPLE, Side::Server),
            (agent::EXAMPLE, Side::Client),
            ("[[tunnel]]\nname = \"a\"\n[doors]\n", Side::Server),
            (
                "[[tunnel]]\nname = \"a\"\ntarget = \"3000\"\n",
                Side::Client,
            ),
            ("[[tunnel]]\nname = \"a\"\nallow = []\n", Side::Server),
            ("[[agent]]\n", Side::Server),
            ("  [agent]\n", Side::Client),
            ("[[forward]]\n", Side::Client),
            ("", Side::Server),
        ] {
            assert_eq!(side_of(text), side, "{text}");
        }
    }

    #[test]
    fn the_reference_page_is_the_one_in_the_repository() {
        let stored = include_str!("../../../../docs/configuration.md");
        let page = page();
        let differs = stored.lines().zip(page.lines()).find(|(a, b)| a != b);
        assert_eq!(
            differs, None,
            "run: adit config reference > docs/configuration.md"
        );
        assert_eq!(stored.len(), page.len());
    }

    #[test]
    fn schemas_name_every_key_and_allow_no_other() {
        for side in [Side::Server, Side::Client] {
            let schema = schema(side.spec());
            assert_eq!(
                schema["$schema"],
                "https://json-schema.org/draft/2020-12/schema"
            );
            for section in side.spec().sections {
                let table = &schema["properties"][section.name];
                let table = if section.repeated {
                    &table["items"]
                } else {
                    table
                };
                assert_eq!(table["additionalProperties"], false, "{}", section.name);
                for key in section.keys {
                    let key_schema = &table["properties"][key.name()];
                    assert!(key_schema["description"].is_string(), "{}", key.name());
                    assert_eq!(key_schema.get("default").is_some(), key.default().is_some());
                }
            }
        }
    }
}
