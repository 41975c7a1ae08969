//! A network namespace of one's own, where every port is free, and names that lead to loopback.

use std::ffi::OsStr;
use std::process::ExitStatus;

use tokio::process::Command;

/// Runs this program again, with `arguments`, in new network and mount namespaces where `names` lead to loopback and the
/// environment variable `mark` is set; as an ordinary user inside a user namespace.
///
/// # Panics
/// When `unshare` of util-linux or `ip` of iproute2 is missing.
pub async fn run_again_inside(
    names: &[&str],
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    mark: &str,
) -> ExitStatus {
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = format!("127.0.0.1 localhost {}\n", names.join(" "));
    std::fs::write(hosts.path(), text).expect("the hosts file is written");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    let mut command = Command::new("unshare");
    if !is_root {
        command.arg("--map-root-user");
    }
    command
        .args(["--net", "--mount", "--", "sh", "-c"])
        .arg("ip link set lo up && mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"")
        .arg("sh")
        .arg(hosts.path())
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(arguments)
        .env(mark, "1")
        .kill_on_drop(true);
    command.status().await.expect("`unshare` of util-linux and `ip` of iproute2 are installed")
}
