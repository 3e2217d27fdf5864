use std::io;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// A program is not on this machine.
    #[error("{program} is missing: {how}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// How to get it, or why getting it failed.
        how: String,
    },
    /// A process did not come up or ended early.
    #[error("{0}")]
    Failed(String),
}

impl BenchError {
    /// Turns an I/O error into one that says what was attempted.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
