//! The processes of a local cluster. They outlive the command that started them, and are found
//! again by their pid files.
//!
//! A pid file also has the process's start time, so that a reused pid is never signalled. Called by
//! `cluster`; knows no resource and no RPC.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// An environment variable of child processes: with it, a process starts its own session, so that
/// closing the terminal does not end it.
pub(crate) const CHILD_ENV: &str = "WEIR_LOCAL_CHILD";

/// The most bytes of a log shown when a process does not start.
const LOG_TAIL_BYTES: u64 = 4096;

/// The interval of checks while a process stops.
const POLL: Duration = Duration::from_millis(20);

/// A process of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    name: String,
    pid_file: PathBuf,
    log_file: PathBuf,
}

/// The contents of a pid file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Running {
    pid: i32,
    /// Clock ticks between the machine's start and the process's; together with the pid it is
    /// unique.
    start_ticks: u64,
}

impl Process {
    /// The process with this name in the local cluster at `data`.
    pub(crate) fn new(data: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pid_file: data.join("run").join(format!("{name}.json")),
            log_file: data.join("logs").join(format!("{name}.log")),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its pid, if it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        let running: Running = serde_json::from_slice(&std::fs::read(&self.pid_file).ok()?).ok()?;
        (start_ticks(running.pid) == Some(running.start_ticks)).then_some(running.pid)
    }

    /// Starts this program again with `args`, detached from the terminal, with its output in the
    /// log file.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub(crate) fn start(&self, args: &[String]) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            anyhow::bail!("{} runs already, as process {pid}", self.name);
        }
        for file in [&self.pid_file, &self.log_file] {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("create {}", dir.display()))?;
            }
        }
        let log = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.log_file)
                .with_context(|| format!("open {}", self.log_file.display()))
        };
        let program = std::env::current_exe().context("find this program")?;
        // The caller of this program may have left files open, such as a lock, which the child
        // would hold as long as it lives.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        let mut child = Command::new(program)
            .args(args)
            .env(CHILD_ENV, "1")
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let pid = i32::try_from(child.id()).context("a pid")?;
        // Reaps the child if this process stays; if it returns, the system does.
        std::thread::spawn(move || child.wait());
        let running = Running { pid, start_ticks: start_ticks(pid).unwrap_or_default() };
        std::fs::write(&self.pid_file, serde_json::to_vec(&running)?)
            .with_context(|| format!("write {}", self.pid_file.display()))
    }

    /// Sends a signal to it; returns whether it ran.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<bool> {
        let Some(pid) = self.pid().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("reach {}", self.name)),
        };
        // The pidfd pins the process, so its pid cannot be reused from here on. If it is the right
        // process now, it stays so.
        if self.pid() != Some(pid.as_raw_nonzero().get()) {
            return Ok(false);
        }
        rustix::process::pidfd_send_signal(process, signal)
            .with_context(|| format!("signal {}", self.name))?;
        Ok(true)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it has not ended within this time.
    pub(crate) async fn ended(&self, within: Duration) -> anyhow::Result<()> {
        let ended = async {
            while self.pid().is_some() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(within, ended).await.with_context(|| {
            format!(
                "{} did not end within {} s; see {}",
                self.name,
                within.as_secs(),
                self.log_file.display()
            )
        })
    }

    /// The end of its log, for the message when it does not start.
    pub(crate) fn log_tail(&self) -> String {
        let tail = || -> std::io::Result<String> {
            let mut file = File::open(&self.log_file)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = tail().unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(8).map(|line| format!("    {line}")).collect();
        format!(
            "the end of {}:\n{}",
            self.log_file.display(),
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        )
    }
}

/// The start time of the process with this pid; `None` if there is none, or only a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    start_ticks_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same from proc(5)'s `stat`. While one of its threads still ends, a process holds its ports
/// and locks, though its first thread is already a zombie.
fn start_ticks_in(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, which may contain any character.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X") || threads > 1).then_some(start_ticks)
}

/// Starts a new session if `Process::start` started this process. `main` calls it first.
pub fn detach_if_child() {
    if std::env::var_os(CHILD_ENV).is_some() {
        // It fails only for the leader of a process group, which needs no new session.
        let _ = rustix::process::setsid();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_there_until_its_last_thread_has_ended() {
        let stat = |state: &str, threads: u32| {
            format!(
                "7 (we) ir) {state} 1 7 7 0 -1 4194560 99 0 0 0 3 4 0 0 20 0 {threads} 0 4711 123 45 18446744073709551615 0"
            )
        };
        assert_eq!(start_ticks_in(&stat("S", 9)), Some(4711));
        assert_eq!(start_ticks_in(&stat("Z", 2)), Some(4711));
        assert_eq!(start_ticks_in(&stat("Z", 1)), None);
        assert_eq!(start_ticks_in(&stat("X", 0)), None);
        assert_eq!(start_ticks_in(""), None);
    }

    #[test]
    fn a_pid_that_belongs_to_somebody_else_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::new(dir.path(), "broker-0");
        assert_eq!(process.pid(), None);
        std::fs::create_dir_all(dir.path().join("run")).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let write = |start_ticks| {
            std::fs::write(
                dir.path().join("run/broker-0.json"),
                serde_json::to_vec(&Running { pid: me, start_ticks }).unwrap(),
            )
            .unwrap()
        };
        write(start_ticks(me).unwrap());
        assert_eq!(process.pid(), Some(me));
        write(start_ticks(me).unwrap() + 1);
        assert_eq!(process.pid(), None);
        assert!(!process.signal(Signal::TERM).unwrap(), "and is never signalled");
        std::fs::write(dir.path().join("run/broker-0.json"), "{").unwrap();
        assert_eq!(process.pid(), None);
    }
}
