//! What a program takes, from its start to its end.
//!
//! The kernel keeps the peak memory of all children together, so each program runs as the only child of a process of
//! ours, which is this benchmark once more:
//!
//! ```text
//!   benchmark ── meter REPORT PROGRAM … ── PROGRAM …
//! ```

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

/// The argument that makes this benchmark a meter.
pub(crate) const ARGUMENT: &str = "meter";

/// What a program took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) wall_seconds: f64,
    /// Of user and system.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
}

impl Taken {
    /// One after the other.
    pub(crate) fn and(self, next: Taken) -> Taken {
        Taken {
            wall_seconds: self.wall_seconds + next.wall_seconds,
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            peak_mib: self.peak_mib.max(next.peak_mib),
        }
    }

    /// The middle of each, over several runs.
    pub(crate) fn median(all: &[Taken]) -> Taken {
        let of = |part: fn(&Taken) -> f64| {
            let mut values: Vec<f64> = all.iter().map(part).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Taken {
            wall_seconds: of(|taken| taken.wall_seconds),
            cpu_seconds: of(|taken| taken.cpu_seconds),
            peak_mib: of(|taken| taken.peak_mib),
        }
    }
}

/// Runs a program and measures it.
pub(crate) fn measure(command: &Command) -> Taken {
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut meter = Command::new(std::env::current_exe().unwrap());
    meter.arg(ARGUMENT).arg(report.path()).arg(command.get_program()).args(command.get_args());
    meter.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        meter.current_dir(folder);
    }
    let done = meter.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?} failed: {said}");
    let text = std::fs::read_to_string(report.path()).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    Taken { wall_seconds: numbers[0], cpu_seconds: numbers[1], peak_mib: numbers[2] }
}

/// The process between: runs the rest of its arguments and reports.
pub(crate) fn be_one(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let report = arguments.next().expect("the report's place comes first");
    let program = arguments.next().expect("then the program");
    let begun = Instant::now();
    let status = Command::new(program).args(arguments).status().unwrap();
    let wall_seconds = begun.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cpu_seconds = seconds(usage.user_time()) + seconds(usage.system_time());
    let peak_mib = usage.max_rss() as f64 / 1024.0;
    std::fs::write(Path::new(&report), format!("{wall_seconds} {cpu_seconds} {peak_mib}")).unwrap();
    status.code().unwrap_or(1)
}
