//! A new file that gets its name when it is complete.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use super::errors;
use crate::cli::exit::{CliError, CliExitCode};

/// A file being written, readable by its owner only; dropped, it leaves nothing.
pub(super) struct NewFile {
    path: PathBuf,
    draft: NamedTempFile,
    writer: tokio::fs::File,
}

impl NewFile {
    pub(super) fn begin(path: &Path) -> Result<NewFile, CliError> {
        let failed = |error| failed(path, error);
        if path.try_exists().map_err(failed)? {
            let sentence = format!("{} exists already", path.display());
            return Err(CliError::new(CliExitCode::Failed, sentence).with_kind("exists"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let draft = NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        let writer = tokio::fs::File::from_std(draft.as_file().try_clone().map_err(failed)?);
        Ok(NewFile { path: path.to_owned(), draft, writer })
    }

    pub(super) fn writer(&mut self) -> &mut tokio::fs::File {
        &mut self.writer
    }

    /// Gives it its name, unless another file has that name by now.
    pub(super) async fn finish(mut self) -> Result<(), CliError> {
        self.writer.flush().await.map_err(|error| failed(&self.path, error))?;
        self.writer.sync_all().await.map_err(|error| failed(&self.path, error))?;
        let path = self.path;
        self.draft.persist_noclobber(&path).map(drop).map_err(|refused| failed(&path, refused.error))
    }

    /// Writes and finishes.
    pub(super) async fn whole(self, content: &[u8]) -> Result<(), CliError> {
        self.draft.as_file().write_all(content).map_err(|error| failed(&self.path, error))?;
        self.finish().await
    }
}

fn failed(path: &Path, error: std::io::Error) -> CliError {
    errors::while_doing(format_args!("writing {}", path.display()), error)
}
