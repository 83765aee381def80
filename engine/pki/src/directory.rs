//! Small sets of files that appear in a directory all together or not at all.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why a directory of certificates could not be written. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Something is there already; keys are never overwritten.
    #[error(
        "{path} exists and is not an empty directory; keys are never overwritten, so choose another place or move it away first"
    )]
    Exists {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file or directory at fault.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Who may read a file.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// `0600`.
    Secret,
    /// `0644`.
    Public,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Secret => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Makes `directory` (`0700`) with exactly these files. They are written and synced under a
/// temporary name beside it, which is then renamed: the directory appears whole or not at all, of
/// two who create it one wins, and what is there already is never touched. Missing parents are
/// made.
pub(crate) fn create(directory: &Path, files: &[(&str, &[u8], Access)]) -> Result<(), SaveError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| SaveError::Io { path, source }
    };
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(io_error(parent))?;
    let staging = tempfile::Builder::new()
        .prefix(".creating-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(io_error(parent))?;
    for (name, content, access) in files {
        let path = staging.path().join(name);
        write_new(&path, content, *access).map_err(io_error(&path))?;
    }
    sync_directory(staging.path()).map_err(io_error(staging.path()))?;
    match std::fs::rename(staging.path(), directory) {
        Ok(()) => {
            // It has its own name now; dropping the guard would look for the old one.
            let _renamed_away = staging.keep();
        }
        Err(error) if is_occupied(&error) => {
            return Err(SaveError::Exists {
                path: directory.to_owned(),
            });
        }
        Err(error) => return Err(io_error(directory)(error)),
    }
    sync_directory(parent).map_err(io_error(parent))
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
    )
}

fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode())
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FILES: &[(&str, &[u8], Access)] = &[
        ("key.pem", b"secret", Access::Secret),
        ("cert.pem", b"open", Access::Public),
    ];

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_and_its_keys_are_for_the_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        create(&directory, FILES).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("key.pem")), 0o600);
        assert_eq!(fs::read(directory.join("cert.pem")).unwrap(), b"open");
    }

    #[test]
    fn what_is_there_is_never_overwritten_and_nothing_is_left_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pki");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("precious"), "x").unwrap();
        assert!(matches!(
            create(&directory, FILES),
            Err(SaveError::Exists { .. })
        ));
        let file = root.path().join("file");
        fs::write(&file, "y").unwrap();
        assert!(matches!(
            create(&file, FILES),
            Err(SaveError::Exists { .. })
        ));
        assert_eq!(fs::read(&file).unwrap(), b"y");
        let mut names: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["file", "pki"]);
    }

    #[test]
    fn an_empty_directory_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pki");
        fs::create_dir(&directory).unwrap();
        create(&directory, FILES).unwrap();
        assert_eq!(mode(&directory), 0o700);
    }
}
