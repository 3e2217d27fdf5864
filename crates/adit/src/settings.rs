//! Configurations from files, environment and options.

use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};

use adit_agent::config::AgentConfig;
use adit_config::{CommandOption, Input, LogFormat, LogLevel, Mistakes};
use adit_edge::config::EdgeConfig;
use clap::ValueEnum;

use crate::failure::Failure;
use crate::terminal;

/// Most bytes of a configuration or a secret's file.
const MAX: u64 = 1 << 20;

/// Options on the log, for every command that keeps one.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LogOptions {
    /// Form of the log's lines on stderr
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<Format>,
    /// Least severity that is logged
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) log_level: Option<Level>,
}

/// Form of the log's lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Least severity.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogOptions {
    /// As options that set keys.
    pub(crate) fn add_to(self, options: &mut Options) {
        options.set(
            "ADIT_LOG_FORMAT",
            "--log-format",
            self.log_format.as_ref().map(word),
        );
        options.set(
            "ADIT_LOG_LEVEL",
            "--log-level",
            self.log_level.as_ref().map(word),
        );
    }

    /// For commands without a configuration: text from `quietest` up.
    pub(crate) fn or(self, quietest: LogLevel) -> (LogFormat, LogLevel) {
        let format = match self.log_format {
            Some(Format::Json) => LogFormat::Json,
            Some(Format::Text) | None => LogFormat::Text,
        };
        let level = match self.log_level {
            Some(Level::Error) => LogLevel::Error,
            Some(Level::Warn) => LogLevel::Warn,
            Some(Level::Info) => LogLevel::Info,
            Some(Level::Debug) => LogLevel::Debug,
            Some(Level::Trace) => LogLevel::Trace,
            None => quietest,
        };
        (format, level)
    }
}

fn word(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Options of the command line that set keys of a configuration.
#[derive(Default)]
pub(crate) struct Options(Vec<(&'static str, &'static str, zeroize::Zeroizing<String>)>);

impl Options {
    /// Sets a key by the variable of the same meaning.
    pub(crate) fn set(
        &mut self,
        variable: &'static str,
        name: &'static str,
        value: Option<impl Into<String>>,
    ) {
        if let Some(value) = value {
            self.0
                .push((variable, name, zeroize::Zeroizing::new(value.into())));
        }
    }

    /// Sets a key to a path.
    pub(crate) fn set_path(
        &mut self,
        variable: &'static str,
        name: &'static str,
        value: Option<&Path>,
    ) {
        self.set(
            variable,
            name,
            value.map(|path| path.to_string_lossy().into_owned()),
        );
    }

    fn as_given(&self) -> Vec<CommandOption<'_>> {
        self.0
            .iter()
            .map(|(variable, name, value)| CommandOption {
                variable,
                name,
                value,
            })
            .collect()
    }
}

/// Sentences about what is right and still deserves a warning.
#[derive(Debug, Default)]
pub(crate) struct Remarks(RefCell<Vec<String>>);

impl Remarks {
    /// One more.
    pub(crate) fn add(&self, remark: &str) {
        self.0.borrow_mut().push(remark.to_owned());
    }

    /// Each as a warning in the log, which has to be started.
    pub(crate) fn log(&self) {
        for remark in self.0.borrow().iter() {
            tracing::warn!(target: "adit", "{remark}");
        }
    }

    /// Each as a line for the person at the terminal.
    pub(crate) fn note(&self) {
        for remark in self.0.borrow().iter() {
            terminal::note(&format!("warning: {}", terminal::plain(remark)));
        }
    }

    /// The text of a file that holds a secret, with a remark when everybody on
    /// this machine can read it.
    ///
    /// # Errors
    /// The system's words.
    pub(crate) fn read_secret(&self, path: &Path) -> Result<String, String> {
        let text = read(path)?;
        // A certificate is there for everybody.
        let public = text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE KEY");
        if !public && is_exposed(path) {
            let path = path.display();
            self.0.borrow_mut().push(format!(
                "every user of this machine can read the secret in {path}: chmod 600 {path}"
            ));
        }
        Ok(text)
    }
}

/// Whether others than owner and group may read a file.
#[cfg(unix)]
fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o004 != 0)
}

/// Elsewhere rights are not told by bits.
#[cfg(not(unix))]
fn is_exposed(_: &Path) -> bool {
    false
}

/// An edge's configuration.
///
/// # Errors
/// Every mistake at once.
pub(crate) fn edge(
    file: Option<&Path>,
    options: &Options,
    remarks: &Remarks,
) -> Result<EdgeConfig, Failure> {
    let file = file.map(PathBuf::from).or_else(configured);
    let text = text_of(file.as_deref())?;
    let config = EdgeConfig::parse(Input {
        text: &text,
        file: file.as_deref(),
        variable: &variable,
        read: &|path| remarks.read_secret(path),
        options: &options.as_given(),
    })?;
    let own = config.remarks().into_iter().map(str::to_owned);
    remarks.0.borrow_mut().extend(own);
    Ok(config)
}

/// An edge's configuration from options alone: neither file nor environment.
///
/// # Errors
/// Every mistake at once.
pub(crate) fn edge_alone(options: &Options) -> Result<EdgeConfig, Failure> {
    Ok(EdgeConfig::parse(Input {
        text: "",
        file: None,
        variable: &|_| None,
        read: &read,
        options: &options.as_given(),
    })?)
}

/// An agent's configuration.
///
/// # Errors
/// Every mistake at once.
pub(crate) fn agent(
    file: Option<&Path>,
    options: &Options,
    remarks: &Remarks,
) -> Result<AgentConfig, Failure> {
    let file = file.map(PathBuf::from);
    let text = text_of(file.as_deref())?;
    let parsed = AgentConfig::parse(Input {
        text: &text,
        file: file.as_deref(),
        variable: &variable,
        read: &|path| remarks.read_secret(path),
        options: &options.as_given(),
    });
    Ok(parsed.map_err(|mistakes| mistakes.with_variables_as(&typed))?)
}

/// The file that the environment names, for commands that may go without.
pub(crate) fn configured() -> Option<PathBuf> {
    variable("ADIT_CONFIG").map(PathBuf::from)
}

fn text_of(file: Option<&Path>) -> Result<String, Failure> {
    let Some(file) = file else {
        return Ok(String::new());
    };
    let unreadable = |why: String| Mistakes::unreadable(&file.display().to_string(), &why).into();
    read(file).map_err(unreadable)
}

/// A variable of the environment. The short names of what an agent needs
/// stand for the long ones.
pub(crate) fn variable(name: &str) -> Option<String> {
    set(name).or_else(|| short(name).and_then(set))
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn short(name: &str) -> Option<&'static str> {
    match name {
        "ADIT_AGENT_EDGE" => Some("ADIT_EDGE"),
        "ADIT_AGENT_PIN" => Some("ADIT_PIN"),
        _ => None,
    }
}

/// The name under which a person has set a variable.
fn typed(name: &str) -> Option<String> {
    let short = short(name).filter(|_| set(name).is_none());
    short.map(str::to_owned)
}

/// A file's text, or the system's words why not.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let words = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    let file = std::fs::File::open(path).map_err(words)?;
    let mut text = String::new();
    let size = file
        .take(MAX + 1)
        .read_to_string(&mut text)
        .map_err(words)?;
    if size as u64 > MAX {
        return Err("it has more than 1 MiB".to_owned());
    }
    Ok(text)
}

/// Warns about variables that look like ours and set nothing: a misspelt one
/// would be without effect.
pub(crate) fn warn_unknown_variables() {
    const OTHERS: [&str; 4] = ["ADIT_CONFIG", "ADIT_EDGE", "ADIT_PIN", "ADIT_AUTH"];
    let mut known = adit_edge::config::keys::SPEC.variables();
    known.extend(adit_agent::config::keys::SPEC.variables());
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("ADIT_")) {
        if !OTHERS.contains(&name.as_str()) && !known.contains(&name) {
            tracing::warn!(target: "adit", variable = name, "this variable of the environment sets nothing");
        }
    }
}
