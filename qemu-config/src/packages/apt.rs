// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An apt of its own: own sources, lists and downloads, the machine's programs, proxies and Debian keys.

mod configuration;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::available;
use crate::cache::{Cache, KeyBuilder, Lock, sha256_of_file};
use crate::host::Mirror;
use crate::pins::Suites;
use crate::{Progress, Result, SetupError, process};

/// One package that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its name.
    pub(crate) package: String,
    /// Its version, a prefix of one with `*` at its end, or whatever the suites have.
    pub(crate) version: Option<String>,
}

impl Request {
    pub(crate) fn pinned(package: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            package: package.into(),
            version: Some(version.into()),
        }
    }

    pub(crate) fn any(package: impl Into<String>) -> Self {
        Self {
            package: package.into(),
            version: None,
        }
    }

    fn argument(&self) -> String {
        match &self.version {
            Some(version) => format!("{}={version}", self.package),
            None => self.package.clone(),
        }
    }
}

/// What else is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closure {
    /// Everything that the packages need to run.
    WithDependencies,
    /// Nothing.
    Alone,
}

/// One package file as the signed index describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    file: String,
    bytes: u64,
    sha256: String,
}

/// The private apt. Its operations exclude each other, in this process and between processes.
pub(crate) struct Apt {
    cache: Cache,
    suites: Suites,
    mirror: Option<String>,
    offline: bool,
    updated: AtomicBool,
    one_at_a_time: Mutex<()>,
    downloaded: std::sync::atomic::AtomicU64,
}

impl Apt {
    /// Nothing is looked at before the first download. `mirror` is the user's choice.
    pub(crate) fn new(
        cache: &Cache,
        suites: &Suites,
        mirror: Option<String>,
        offline: bool,
    ) -> Self {
        Self {
            cache: cache.clone(),
            suites: suites.clone(),
            mirror,
            offline,
            updated: AtomicBool::new(false),
            one_at_a_time: Mutex::new(()),
            downloaded: 0.into(),
        }
    }

    /// The bytes of packages that were downloaded so far.
    pub(crate) fn downloaded(&self) -> u64 {
        self.downloaded.load(Ordering::Relaxed)
    }

    /// Downloads packages into `downloads` of the cache and returns the verified files. What an interrupted run
    /// has downloaded already is used again. The caller removes the folder when it has used the files.
    pub(crate) fn fetch(
        &self,
        name: &str,
        requests: &[Request],
        closure: Closure,
        progress: &Progress,
    ) -> Result<Download> {
        if self.offline {
            return Err(SetupError::Offline {
                what: format!("what is made from the packages of {name}"),
                cache: self.cache.root().to_owned(),
            });
        }
        let arguments: Vec<String> = requests.iter().map(Request::argument).collect();
        // Runs with other pins do not remove each other's files.
        let key = KeyBuilder::new(name, 1).value(&arguments).finish();
        let folder = (self.cache.root().join("downloads")).join(format!("{name}-{}", key.short()));
        let _turn = (self.one_at_a_time.lock()).unwrap_or_else(std::sync::PoisonError::into_inner);
        let root = self.cache.root().join("apt");
        for folder in [&folder, &root] {
            create(folder)?;
        }
        let _lock = Lock::take(&root.join("lock"), || {
            progress.line("waiting for another process that is downloading packages");
        })?;
        let mirror = Mirror::choose(self.mirror.as_deref())?;
        let config = configuration::write_to(&root, &self.suites, &mirror)?;
        if !self.updated.load(Ordering::Relaxed) {
            update(&config, &mirror, progress)?;
            self.updated.store(true, Ordering::Relaxed);
        }
        let items = list(&config, &root, requests, closure).map_err(|error| {
            available::explain_missing(&config, &mirror, requests).unwrap_or(error)
        })?;
        let bytes = items.iter().map(|item| item.bytes).sum();
        if items.iter().any(|item| !is_complete(item, &folder)) {
            download(&config, name, &folder, requests, closure, bytes, progress)?;
            self.downloaded.fetch_add(bytes, Ordering::Relaxed);
        }
        let mut files = Vec::with_capacity(items.len());
        for item in &items {
            let path = folder.join(&item.file);
            let found = sha256_of_file(&path)?;
            if found != item.sha256 {
                return Err(SetupError::WrongHash {
                    path,
                    expected: item.sha256.clone(),
                    found,
                });
            }
            files.push(path);
        }
        Ok(Download { folder, files })
    }
}

/// Verified package files and the folder that they are in.
pub(crate) struct Download {
    folder: PathBuf,
    /// The files.
    pub(crate) files: Vec<PathBuf>,
}

impl Download {
    /// The file of one package.
    pub(crate) fn file(&self, package: &str) -> Result<&Path> {
        let prefix = format!("{package}_");
        let is_it = |file: &&PathBuf| {
            (file.file_name()).is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        };
        (self.files.iter().find(is_it))
            .map(PathBuf::as_path)
            .ok_or_else(|| {
                SetupError::invalid(&self.folder, format!("expected a file of {package}"))
            })
    }

    /// Removes the files.
    pub(crate) fn discard(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(SetupError::io("remove", &self.folder))
    }
}

/// A command of apt with the private configuration.
pub(super) fn command(config: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("APT_CONFIG", config).env("LC_ALL", "C");
    command
}

fn update(config: &Path, mirror: &Mirror, progress: &Progress) -> Result<()> {
    let step = progress.step(&format!("package lists of {mirror}"), None);
    let mut command = command(config, "apt-get");
    // Without this an unreachable mirror is a warning, and the lists of an earlier run would be used silently.
    command.args(["update", "-q", "-o", "APT::Update::Error-Mode=any"]);
    process::watch("update the package lists", &mut command, |line| {
        step.detail(line);
    })?;
    step.finish("signatures verified");
    Ok(())
}

fn list(config: &Path, root: &Path, requests: &[Request], closure: Closure) -> Result<Vec<Item>> {
    let mut command = command(config, "apt-get");
    command.args(verb(closure));
    // A folder without packages makes apt name those too that are downloaded already.
    command.arg("-o").arg(archives(&root.join("none")));
    command.args(["-qq", "--print-uris", "-o", "Acquire::ForceHash=SHA256"]);
    command.args(requests.iter().map(Request::argument));
    let text = process::output("find the packages and what they need", &mut command)?;
    (text.lines())
        .map(|line| {
            parse_item(line).ok_or_else(|| {
                let expected = "expected apt to name an address, a file, a size and a SHA-256";
                SetupError::invalid(config, format!("{expected}, found {line:?}"))
            })
        })
        .collect()
}

/// `'ADDRESS' FILE SIZE SHA256:HASH`
fn parse_item(line: &str) -> Option<Item> {
    let mut words = line.split_whitespace().skip(1);
    let (file, bytes, hash) = (words.next()?, words.next()?, words.next()?);
    let sha256 = hash.strip_prefix("SHA256:")?;
    let valid = !file.contains('/') && file.ends_with(".deb") && sha256.len() == 64;
    valid.then_some(Item {
        file: file.to_owned(),
        bytes: bytes.parse().ok()?,
        sha256: sha256.to_owned(),
    })
}

fn is_complete(item: &Item, folder: &Path) -> bool {
    let path = folder.join(&item.file);
    let size_fits = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == item.bytes);
    size_fits && sha256_of_file(&path).is_ok_and(|found| found == item.sha256)
}

fn download(
    config: &Path,
    name: &str,
    folder: &Path,
    requests: &[Request],
    closure: Closure,
    bytes: u64,
    progress: &Progress,
) -> Result<()> {
    create(&folder.join("partial"))?;
    let what = format!("download {name} ({})", megabytes(bytes));
    let step = progress.step(&what, Some(bytes));
    let mut command = command(config, "apt-get");
    command.args(verb(closure)).arg("-o").arg(archives(folder));
    command.args(["-q", "-o", "Acquire::Retries=3"]);
    command.args(requests.iter().map(Request::argument));
    command.current_dir(folder);
    std::thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        scope.spawn(|| {
            // apt's own progress is meant for people; the size of what is there says the same.
            const PERIOD: Duration = Duration::from_millis(200);
            let is_done = is_done;
            while is_done.recv_timeout(PERIOD) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                step.set_position(size_of_files(folder) + size_of_files(&folder.join("partial")));
            }
        });
        let outcome = process::watch(&what, &mut command, |_| {});
        drop(done);
        outcome
    })?;
    step.finish("downloaded");
    Ok(())
}

fn verb(closure: Closure) -> &'static [&'static str] {
    match closure {
        Closure::WithDependencies => &["install", "--download-only", "--yes"],
        Closure::Alone => &["download"],
    }
}

fn archives(folder: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from("Dir::Cache::archives=");
    option.push(folder);
    option
}

fn size_of_files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum()
}

/// Decimal megabytes, as download sizes are given.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Makes a folder and those above it.
fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(SetupError::io("create", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_apt_is_understood_and_a_weak_hash_is_not() {
        let hash = "a".repeat(64);
        let line =
            format!("'http://m.example/libc6.deb' libc6_2.41-12_amd64.deb 123 SHA256:{hash}");
        let item = parse_item(&line).unwrap();
        assert_eq!(
            (item.file.as_str(), item.bytes),
            ("libc6_2.41-12_amd64.deb", 123)
        );
        assert_eq!(item.sha256, hash);
        for bad in [
            line.replace("SHA256", "MD5Sum"),
            line.replace("libc6_2", "../libc6_2"),
            line.replace(&hash, "short"),
            line.replace("123", "many"),
            String::new(),
        ] {
            assert_eq!(parse_item(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn offline_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path().to_owned())).unwrap();
        let suites = Suites {
            base: "trixie".to_owned(),
            backports: "trixie-backports".to_owned(),
            from_backports: Vec::new(),
        };
        let apt = Apt::new(&cache, &suites, None, true);
        let requests = [Request::any("hello")];
        let outcome = apt.fetch("greeting", &requests, Closure::Alone, &Progress::new());
        let text = outcome
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            text.contains("greeting") && text.contains("cargo xtask setup"),
            "{text}"
        );
    }
}
