//! Starts a real bitcoind on regtest, loopback only, and stops it when dropped.

use bitai_node::bitcoin::Backend;
use bitai_node::bitcoin::core::{Auth, CoreRpc};
use bitcoin::Network;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running node.
pub(crate) struct Bitcoind {
    exe: PathBuf,
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

/// `BITCOIND_EXE`, then PATH, then the copy beside the repository.
pub(crate) fn find() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/bin/bitcoind");
    std::env::var_os("BITCOIND_EXE")
        .map(PathBuf::from)
        .into_iter()
        .chain(
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|d| d.join("bitcoind")),
        )
        .chain([beside])
        .find(|p| p.is_file())
}

fn spawn(exe: &Path, dir: &Path, port: u16, more: &[&str]) -> Child {
    Command::new(exe)
        .args([
            "-regtest",
            "-listen=0",
            "-dnsseed=0",
            "-txindex",
            "-fallbackfee=0.0001",
            "-server",
        ])
        .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-printtoconsole=0"])
        .arg(format!("-datadir={}", dir.display()))
        .arg(format!("-rpcport={port}"))
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Bitcoind {
    /// Starts it, or says that the test is skipped; where `BITAI_REQUIRE_BITCOIND` is set, fails instead.
    pub(crate) fn start() -> Option<Self> {
        let Some(exe) = find() else {
            assert!(
                std::env::var_os("BITAI_REQUIRE_BITCOIND").is_none(),
                "BITAI_REQUIRE_BITCOIND is set and there is no bitcoind; name one with BITCOIND_EXE or put it on the PATH"
            );
            println!("SKIPPED: no bitcoind; name one with BITCOIND_EXE or put it on the PATH");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = spawn(&exe, dir.path(), port, &[]);
        let node = Self {
            exe,
            child,
            dir,
            port,
        };
        node.wait();
        Some(node)
    }

    /// Stops it and starts it again with more arguments.
    pub(crate) fn restart(&mut self, args: &[&str]) {
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(stopped.unwrap().success());
        self.child.wait().unwrap();
        self.child = spawn(&self.exe, self.dir.path(), self.port, args);
        self.wait();
    }

    fn wait(&self) {
        let begun = Instant::now();
        while let Err(e) = self.client().tip() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{} does not answer: {e}",
                self.exe.display()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// URL and login.
    pub(crate) fn access(&self) -> (String, Auth) {
        let cookie = self.dir.path().join("regtest/.cookie");
        (format!("http://127.0.0.1:{}", self.port), Auth::Cookie(cookie))
    }

    /// A client of it.
    pub(crate) fn client(&self) -> CoreRpc {
        let (url, auth) = self.access();
        CoreRpc::new(url, auth, Network::Regtest)
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
