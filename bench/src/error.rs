//! Why a benchmark did not run, or did not hold. The binary maps each kind to an exit code.

/// A failure, by what kind of thing is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// The command line or a scenario asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file is not what it should be.
    #[error("{0}")]
    Data(String),
    /// No server answers, or it refuses.
    #[error("{0}")]
    Unavailable(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String),
    /// Certificates or credentials cannot be used.
    #[error("{0}")]
    Config(String),
    /// The load ran, and the loss audit does not hold.
    #[error("{0}")]
    Audit(String),
    /// A comparison found a regression beyond the gate.
    #[error("{0}")]
    Regression(String),
}

impl BenchError {
    /// An input or output error with the path it happened at.
    pub(crate) fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Io(format!("cannot {what} {}: {error}", path.display()))
    }
}
