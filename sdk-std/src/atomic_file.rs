//! Small files that survive a power failure.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Longer than any file written here.
const LONGEST: u64 = 4096;

/// Reads the text at `path`, 4 KiB at most.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let bytes = read_whole(path, LONGEST)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

/// Reads the file at `path`, of `longest` bytes at most. It must be a regular file: others may return bytes
/// indefinitely, or block.
pub(crate) fn read_whole(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open(path)?;
    if len > longest {
        return Err(too_long(longest));
    }
    // Reserved in one piece: a growing buffer leaves copies behind, and the file may be a key. Some files report no
    // length.
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0).max(4096) + 1);
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= longest) { Ok(bytes) } else { Err(too_long(longest)) }
}

/// Checks that `path` is a regular file of `longest` bytes at most, if it is there.
pub(crate) fn check(path: &Path, longest: u64) -> io::Result<()> {
    match open(path) {
        Ok((_, len)) if len > longest => Err(too_long(longest)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn too_long(longest: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {longest} bytes"))
}

/// Opens a regular file for reading, without blocking on a FIFO's peer.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let regular = |metadata: &fs::Metadata| {
        if metadata.is_file() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {}, not a regular file", kind(metadata))))
    };
    // Before it is opened, which some devices notice, and after, when it may be another.
    regular(&fs::metadata(path)?)?;
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata.len()))
}

#[cfg(unix)]
fn kind(metadata: &fs::Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn kind(metadata: &fs::Metadata) -> &'static str {
    if metadata.is_dir() { "a directory" } else { "something else" }
}

/// Writes `text` to `path` so that a crash leaves the old file or the new one, readable by the owner alone.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // A file left by a crash may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename is durable once the directory is synced.
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_gives_bytes_for_ever_or_none_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let long = directory.path().join("long");
        File::create(&long).unwrap().set_len(1 << 40).unwrap();
        let table = [
            (pipe.as_path(), "it is a named pipe, not a regular file"),
            (Path::new("/dev/zero"), "it is a device, not a regular file"),
            (directory.path(), "it is a directory, not a regular file"),
            (&long, "it is longer than 4096 bytes"),
        ];
        for (path, problem) in table {
            assert_eq!(read(path).unwrap_err().to_string(), problem);
        }
        // A file that reports no length.
        assert!(read(Path::new("/proc/self/stat")).unwrap().starts_with(&std::process::id().to_string()));
    }

    #[test]
    fn only_the_owner_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept");
        // A crash left an open file behind.
        fs::write(directory.path().join("kept.new"), "junk").unwrap();
        replace(&path, "text\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), "text\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
