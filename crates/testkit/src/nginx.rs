//! A real origin: nginx with a configuration made for the test.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::peers::program;
use crate::process::Process;
use crate::wait::until_true;

/// A running nginx and its folder.
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    folder: tempfile::TempDir,
    _process: Process,
}

impl Nginx {
    /// Starts nginx with one server whose directives these are; `root` is the
    /// folder that [`Nginx::site`] names.
    ///
    /// nginx cannot be asked for port 0: it gets an address of the loopback
    /// network that no other process has.
    ///
    /// # Panics
    /// When nginx is missing or does not come up.
    #[must_use]
    pub fn start(directives: &str) -> Self {
        Self::listening("", directives)
    }

    /// As [`Nginx::start`], with more words for its `listen`: `ssl` say.
    ///
    /// # Panics
    /// As [`Nginx::start`].
    #[must_use]
    pub fn listening(words: &str, directives: &str) -> Self {
        let address = own_address();
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("site")).expect("a folder for the site");
        let file = folder.path().join("nginx.conf");
        fs::write(
            &file,
            config(folder.path(), &format!("{address} {words}"), directives),
        )
        .expect("a configuration");
        let mut command = Command::new(program("nginx"));
        command
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&file);
        let process = Process::spawn(command);
        let pid = folder.path().join("nginx.pid");
        until_true("nginx is up", || pid.exists());
        Self {
            address,
            folder,
            _process: process,
        }
    }

    /// An nginx that serves the files of its site.
    ///
    /// # Panics
    /// As [`Nginx::start`].
    #[must_use]
    pub fn files() -> Self {
        Self::start("")
    }

    /// The folder of what it serves.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    /// Puts a file on its site.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.site().join(name), content).expect("a file of the site");
    }

    /// Its access log so far: one line a request.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// An address made of our process id, which is ours alone while we live, and a
/// port that we have not given away before.
fn own_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 64 + high, middle, low);
    let port = 20_000 + GIVEN.fetch_add(1, Ordering::Relaxed);
    SocketAddr::new(IpAddr::V4(address), port)
}

fn config(folder: &Path, listen: &str, directives: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; worker_processes 1;\n\
         pid {folder}/nginx.pid;\n\
         error_log {folder}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log {folder}/access.log;\n\
           client_body_temp_path {folder}/body;\n\
           proxy_temp_path {folder}/proxy;\n\
           fastcgi_temp_path {folder}/fastcgi;\n\
           uwsgi_temp_path {folder}/uwsgi;\n\
           scgi_temp_path {folder}/scgi;\n\
           default_type text/plain;\n\
           keepalive_requests 1000000;\n\
           server {{\n\
             listen {listen};\n\
             root {folder}/site;\n\
             {directives}\n\
           }}\n\
         }}\n"
    )
}
