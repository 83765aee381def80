//! The files that a configuration is in, and places in them.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// Largest file of a configuration, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Most files of a configuration.
const FILES_MAX: usize = 1_000;

/// A place in one of the files of [`Sources`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the file.
    pub file: usize,
    /// Bytes of its text.
    pub span: Range<usize>,
}

/// Something that stands at a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// What.
    pub value: T,
    /// Where.
    pub place: Place,
}

impl<T> Located<T> {
    /// Something at a place.
    pub const fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

/// A file of a configuration.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its path, as it was given.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// The files of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The files, by number.
    pub files: Vec<SourceFile>,
}

/// A configuration cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct SourceError {
    /// Of what.
    pub path: PathBuf,
    /// Why.
    pub problem: String,
}

impl Sources {
    /// One text, under a name.
    pub fn text(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            files: vec![SourceFile {
                path: path.into(),
                text: text.into(),
            }],
        }
    }

    /// A file, or every `*.toml` of a directory in the order of their names.
    ///
    /// # Errors
    /// If something cannot be read, is too large, or there is nothing.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let fail = |path: &Path, problem: String| SourceError {
            path: path.to_owned(),
            problem,
        };
        let io = |path: &Path, error: std::io::Error| fail(path, error.to_string());
        let metadata = std::fs::metadata(path).map_err(|error| io(path, error))?;
        let mut paths = Vec::new();
        if metadata.is_dir() {
            for entry in std::fs::read_dir(path).map_err(|error| io(path, error))? {
                let found = entry.map_err(|error| io(path, error))?.path();
                if found
                    .extension()
                    .is_some_and(|extension| extension == "toml")
                    && found.is_file()
                {
                    paths.push(found);
                }
                if paths.len() > FILES_MAX {
                    let problem = format!("there are more than {FILES_MAX} files");
                    return Err(fail(path, problem));
                }
            }
            paths.sort();
            if paths.is_empty() {
                return Err(fail(
                    path,
                    "there is no *.toml in this directory".to_owned(),
                ));
            }
        } else {
            paths.push(path.to_owned());
        }
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let bytes = std::fs::metadata(&path)
                .map_err(|error| io(&path, error))?
                .len();
            if bytes > FILE_BYTES_MAX {
                return Err(fail(
                    &path,
                    format!("the file is larger than {FILE_BYTES_MAX} bytes"),
                ));
            }
            let text = std::fs::read(&path).map_err(|error| io(&path, error))?;
            let text = String::from_utf8(text).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                fail(&path, format!("byte {at} is not UTF-8"))
            })?;
            files.push(SourceFile { path, text });
        }
        Ok(Self { files })
    }

    /// Line and column of a place, both from 1, the column in characters.
    pub fn line_column(&self, place: &Place) -> (usize, usize) {
        let Some(file) = self.files.get(place.file) else {
            return (1, 1);
        };
        let before = file.text.get(..place.span.start).unwrap_or(&file.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |index| index + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// Writes `file:line:column`.
    pub fn locate<'a>(&'a self, place: &'a Place) -> impl fmt::Display + 'a {
        let (line, column) = self.line_column(place);
        let path = self.files.get(place.file).map(|file| file.path.display());
        struct At<'a>(Option<std::path::Display<'a>>, usize, usize);
        impl fmt::Display for At<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match &self.0 {
                    Some(path) => write!(f, "{path}:{}:{}", self.1, self.2),
                    None => write!(f, "{}:{}", self.1, self.2),
                }
            }
        }
        At(path, line, column)
    }
}
