//! KVM or emulation, found out by booting a kernel.
//!
//! A device node proves nothing: there are hosts where `/dev/kvm` opens, makes a machine, even runs its firmware, and
//! then hangs any Linux kernel for ever. So a kernel is booted, without a disk; that it gets as far as its message
//! about the missing root file system is the proof.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::domain::VirtType;

/// The kernel's message about the missing disk: it is up.
const PROOF: &str = "Unable to mount root fs";
/// With KVM a kernel gets there in under two seconds; emulated it needs five on an idle machine.
pub const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VirtTypePreference {
    /// KVM where it is proven, else emulation.
    Auto,
    /// Exactly this.
    Always(VirtType),
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenVirtType {
    /// For [`crate::DomainSpec::virt_type`].
    pub virt_type: VirtType,
    /// A sentence for people.
    pub reason: String,
}

/// Chooses, by probing when asked to. `kernel` is any bootable Linux kernel; without one, the host's newest is taken.
/// Takes up to [`PROBE_WITHIN`]; ask once per start.
pub fn choose(wanted: VirtTypePreference, kernel: Option<&Path>) -> ChosenVirtType {
    let emulated = |reason: String| ChosenVirtType { virt_type: VirtType::Qemu, reason };
    match wanted {
        VirtTypePreference::Always(virt_type) => {
            ChosenVirtType { virt_type, reason: "set in the configuration".to_owned() }
        }
        VirtTypePreference::Auto if !Path::new("/dev/kvm").exists() => {
            emulated("this host has no /dev/kvm".to_owned())
        }
        VirtTypePreference::Auto => match kernel.map(Path::to_owned).or_else(newest_host_kernel) {
            None => emulated("no kernel to probe /dev/kvm with was found".to_owned()),
            Some(kernel) => match boots(VirtType::Kvm, &kernel, PROBE_WITHIN) {
                Ok(()) => ChosenVirtType {
                    virt_type: VirtType::Kvm,
                    reason: "a kernel booted on /dev/kvm".to_owned(),
                },
                Err(reason) => emulated(reason),
            },
        },
    }
}

/// Boots a kernel and waits until it is up.
///
/// # Errors
/// A sentence: QEMU is missing, or ended, or the kernel did not get far enough in time.
pub fn boots(virt_type: VirtType, kernel: &Path, within: Duration) -> Result<(), String> {
    let accelerator = match virt_type {
        VirtType::Kvm => "kvm",
        VirtType::Qemu => "tcg",
    };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-accel",
            accelerator,
            "-M",
            "q35",
            "-m",
            "256",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let child = command.spawn().map_err(|error| format!("cannot start qemu-system-x86_64: {error}"))?;
    let mut machine = Machine(child);
    let console = machine.0.stdout.take().expect("its output was asked for");
    let (up, is_up) = mpsc::sync_channel(1);
    // Ends with the machine: killing it closes its console.
    thread::spawn(move || {
        let proven = BufReader::new(console).split(b'\n').map_while(Result::ok);
        let proven = proven.into_iter().any(|line| String::from_utf8_lossy(&line).contains(PROOF));
        // After the timeout nobody receives this.
        let _ = up.send(proven);
    });
    match is_up.recv_timeout(within) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("QEMU with {accelerator} ended before a kernel was up")),
        Err(_) => Err(format!("a kernel did not boot with {accelerator} within {within:?}")),
    }
}

/// A QEMU process that does not outlive its probe.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn newest_host_kernel() -> Option<PathBuf> {
    let boot = fs::read_dir("/boot").ok()?;
    let kernels = boot.filter_map(|entry| {
        let entry = entry.ok()?;
        let is_kernel = entry.file_name().to_string_lossy().starts_with("vmlinuz");
        let changed = entry.metadata().and_then(|about| about.modified()).ok()?;
        is_kernel.then(|| (changed, entry.path()))
    });
    kernels.max().map(|(_, path)| path)
}
