//! Stores the assignment in a file, so that a restarted device connects directly to its hub.

use std::io;
use std::path::{Path, PathBuf};

use steadfast_core::Assignment;

use crate::atomic_file;

/// The first line of the file.
const HEADING: &str = "steadfast assignment 1";

/// The path of the file, and the device it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct AssignmentFile {
    path: PathBuf,
    id_scope: Box<str>,
    registration_id: Box<str>,
}

impl AssignmentFile {
    pub(crate) fn new(path: PathBuf, id_scope: &str, registration_id: &str) -> Self {
        Self { path, id_scope: id_scope.into(), registration_id: registration_id.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the assignment. An unusable file is logged and costs one registration.
    pub(crate) fn load(&self) -> Option<Assignment> {
        let text = match atomic_file::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the stored assignment cannot be read; provisioning again");
                return None;
            }
        };
        let assignment = self.parse(&text);
        if assignment.is_none() {
            tracing::warn!(path = %self.path.display(), "the stored assignment is of another device or not usable; provisioning again");
        }
        assignment
    }

    /// Writes the assignment atomically.
    pub(crate) fn save(&self, assignment: &Assignment) -> io::Result<()> {
        let text = format!(
            "{HEADING}\nid-scope {}\nregistration-id {}\nhub {}\ndevice-id {}\n",
            self.id_scope,
            self.registration_id,
            assignment.hub(),
            assignment.device_id()
        );
        atomic_file::replace(&self.path, &text)
    }

    fn parse(&self, text: &str) -> Option<Assignment> {
        let mut lines = text.lines();
        if lines.next()? != HEADING
            || lines.next()?.strip_prefix("id-scope ")? != &*self.id_scope
            || lines.next()?.strip_prefix("registration-id ")? != &*self.registration_id
        {
            return None;
        }
        let hub = lines.next()?.strip_prefix("hub ")?;
        let device_id = lines.next()?.strip_prefix("device-id ")?;
        // A last line without its end was cut.
        if lines.next().is_some() || !text.ends_with('\n') {
            return None;
        }
        Assignment::new(hub, device_id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(directory: &Path, id: &str) -> AssignmentFile {
        AssignmentFile::new(directory.join("assignment"), "0ne00AB12CD", id)
    }

    #[test]
    fn what_was_saved_is_loaded_by_the_same_device_only() {
        let directory = tempfile::tempdir().unwrap();
        let pump = file(directory.path(), "pump-7");
        assert_eq!(pump.load(), None);
        for hub in ["first.azure-devices.net", "second.azure-devices.net"] {
            let assignment = Assignment::new(hub, "device-7").unwrap();
            pump.save(&assignment).unwrap();
            assert_eq!(pump.load(), Some(assignment));
        }
        assert_eq!(file(directory.path(), "pump-8").load(), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let pump = file(directory.path(), "pump-7");
        pump.save(&Assignment::new("a.azure-devices.net", "d").unwrap()).unwrap();
        let whole = fs::read(pump.path()).unwrap();
        for len in 0..whole.len() {
            fs::write(pump.path(), &whole[..len]).unwrap();
            assert_eq!(pump.load(), None, "cut at {len}");
        }
        for junk in [&b"\xff\xfe"[..], b"{}", &[b'a'; 100_000]] {
            fs::write(pump.path(), junk).unwrap();
            assert_eq!(pump.load(), None);
        }
        fs::write(pump.path(), String::from_utf8(whole).unwrap().replace("a.azure-devices.net", "evil.com/x")).unwrap();
        assert_eq!(pump.load(), None);
    }
}
