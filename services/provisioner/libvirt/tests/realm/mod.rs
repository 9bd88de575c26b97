//! What a test finds in a realm: connections, machines, and the daemon itself, to be stopped and killed.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use provisioner_libvirt::backup::RunningBackup;
use provisioner_libvirt::network::{Forward, NetworkSpec};
use provisioner_libvirt::{
    BackingImage, Connection, Deadlines, DiskCache, DiskFormat, DiskSpec, DomainSpec, MacAddress, Mark,
    NetworkInterface, Settings, Uuid, VirtType,
};

/// Between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a command given to the guest's agent may take.
const GUEST_COMMAND: Duration = Duration::from_secs(60);
/// How long the agent may take to answer.
const AGENT_ANSWER: Duration = Duration::from_secs(10);

/// The realm, for as long as one test has it.
pub(crate) struct Realm {
    _turn: Flock<File>,
}

/// A machine that can be defined; its disks are made.
pub(crate) struct Machine {
    pub(crate) spec: DomainSpec,
}

impl Machine {
    pub(crate) fn mac(&self) -> MacAddress {
        self.spec.network.as_ref().expect("every machine here has an interface").mac
    }
}

impl Realm {
    /// Beside other tests.
    pub(crate) fn shared() -> Option<Realm> {
        Realm::enter(FlockArg::LockShared)
    }

    /// While no other test runs: for tests that stop the daemon that all share.
    pub(crate) fn alone() -> Option<Realm> {
        Realm::enter(FlockArg::LockExclusive)
    }

    fn enter(turn: FlockArg) -> Option<Realm> {
        if std::env::var_os("LOAM_TEST_LIBVIRT").is_none() {
            assert!(std::env::var_os("CI").is_none(), "this test needs tests/harness/realm");
            eprintln!("SKIPPED: this test needs tests/harness/realm");
            return None;
        }
        let file = File::create("/run/loam-test-turn").expect("a lock file");
        Some(Realm { _turn: Flock::lock(file, turn).map_err(|(_, error)| error).expect("a turn") })
    }

    pub(crate) fn connection(&self) -> Connection {
        // A busy machine that emulates everything is slow, not broken.
        self.connection_within(Deadlines::scaled(3.0))
    }

    pub(crate) fn connection_within(&self, deadlines: Deadlines) -> Connection {
        Connection::new(Settings { deadlines, ..Settings::system("/run/loam-test") })
    }

    /// A new folder that QEMU's user can enter.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        std::env::var_os("LOAM_TEST_KERNEL").expect("the realm names a kernel").into()
    }

    pub(crate) fn network(&self) -> NetworkSpec {
        NetworkSpec {
            name: "loam".into(),
            bridge: "loam0".into(),
            host_address: Ipv4Addr::new(10, 105, 0, 1),
            prefix_length: 24,
            dhcp_range: (Ipv4Addr::new(10, 105, 0, 10), Ipv4Addr::new(10, 105, 0, 250)),
            forward: Forward::Nat,
        }
    }

    /// An overlay of the tiny guest, a NoCloud disk, and the machine around them.
    pub(crate) fn machine(&self, name: &str, disk_bytes: u64) -> Machine {
        let folder = self.folder(name);
        let seed: PathBuf = std::env::var_os("LOAM_TEST_GUEST").expect("the realm names a guest").into();
        let disk = folder.join("root.qcow2");
        let backing = format!("backing_file={},backing_fmt=qcow2", seed.display());
        run(Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o", &backing])
            .arg(&disk)
            .arg(disk_bytes.to_string()));
        let nocloud = folder.join("nocloud.img");
        write_nocloud(&nocloud, name);
        let uuid = Uuid::new_v4();
        let [.., a, b, c] = *uuid.as_bytes();
        Machine {
            spec: DomainSpec {
                name: format!("test-{name}"),
                uuid,
                mark: Mark {
                    realm: "test".into(),
                    vm: name.into(),
                    generation: 1,
                    spec_digest: "none".into(),
                    operation: "test".into(),
                },
                memory_mib: 256,
                vcpus: 1,
                virt_type: VirtType::Qemu,
                disks: vec![DiskSpec {
                    path: disk,
                    format: DiskFormat::Qcow2,
                    backing_chain: vec![BackingImage { path: seed, format: DiskFormat::Qcow2 }],
                    target: "vda".into(),
                    serial: "root".into(),
                    cache: DiskCache::possible_in(&folder),
                }],
                nocloud: Some(nocloud),
                network: Some(NetworkInterface {
                    network: "loam".into(),
                    mac: MacAddress::new([0x52, 0x54, 0, a, b, c]).expect("a good address"),
                }),
                console_log: Some(folder.join("console.log")),
            },
        }
    }

    /// Runs a shell command in the guest, through its agent, to its end.
    pub(crate) fn guest_runs(&self, connection: &mut Connection, uuid: Uuid, line: &str) {
        let pid = self.guest_starts(connection, uuid, line);
        self.guest_ends(connection, uuid, &pid);
    }

    /// Starts a shell command in the guest, through its agent, and returns its process id there.
    pub(crate) fn guest_starts(&self, connection: &mut Connection, uuid: Uuid, line: &str) -> String {
        let start =
            format!(r#"{{"execute":"guest-exec","arguments":{{"path":"/bin/sh","arg":["-c","{line}"]}}}}"#);
        let started = connection.agent_command(uuid, &start, AGENT_ANSWER).expect("the agent starts it");
        started.chars().filter(char::is_ascii_digit).collect()
    }

    /// Waits until a process in the guest has ended with status 0.
    pub(crate) fn guest_ends(&self, connection: &mut Connection, uuid: Uuid, pid: &str) {
        let ask = format!(r#"{{"execute":"guest-exec-status","arguments":{{"pid":{pid}}}}}"#);
        let mut ended = String::new();
        eventually(GUEST_COMMAND, || {
            ended = connection.agent_command(uuid, &ask, AGENT_ANSWER).expect("the agent answers");
            ended.contains(r#""exited":true"#)
        });
        assert!(ended.contains(r#""exitcode":0"#), "process {pid}: {ended}");
    }

    /// A folder on a file system of its own with `mib` MiB of space.
    pub(crate) fn small_folder(&self, name: &str, mib: u32) -> SmallFolder {
        let folder = self.folder(name);
        let size = format!("size={mib}m,mode=755");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "loam-test"]).arg(&folder));
        SmallFolder(folder)
    }

    /// Stops libvirtd's process until the returned value is dropped.
    pub(crate) fn freeze_daemon(&self) -> FrozenDaemon {
        let daemon = FrozenDaemon(daemon_pid());
        kill(daemon.0, Signal::SIGSTOP).expect("ours to stop");
        daemon
    }

    pub(crate) fn kill_daemon(&self) {
        let pid = daemon_pid();
        kill(pid, Signal::SIGKILL).expect("ours to kill");
        eventually(Duration::from_secs(10), || kill(pid, None).is_err());
    }

    pub(crate) fn start_daemon(&self) {
        run(Command::new("libvirtd").arg("-d"));
    }
}

/// Unmounted when dropped.
pub(crate) struct SmallFolder(PathBuf);

impl SmallFolder {
    /// Gives it `mib` MiB of space.
    pub(crate) fn resize(&self, mib: u32) {
        run(Command::new("mount").args(["-o", &format!("remount,size={mib}m")]).arg(&self.0));
    }
}

impl Drop for SmallFolder {
    fn drop(&mut self) {
        // A test that failed may have left a machine on it: then it goes when the machine does.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

pub(crate) struct FrozenDaemon(Pid);

impl Drop for FrozenDaemon {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).expect("ours to continue");
    }
}

fn daemon_pid() -> Pid {
    let text = fs::read_to_string("/run/libvirtd.pid").expect("libvirtd writes its id");
    Pid::from_raw(text.trim().parse().expect("a number"))
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn eventually(within: Duration, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < within, "not met within {within:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn write_nocloud(path: &Path, name: &str) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a file");
    file.set_len(1 << 20).expect("its size");
    let label = fatfs::FormatVolumeOptions::new().volume_label(*b"cidata     ");
    fatfs::format_volume(&file, label).expect("a file system");
    let volume = fatfs::FileSystem::new(&file, fatfs::FsOptions::new()).expect("a file system");
    let root = volume.root_dir();
    let write = |entry: &str, text: String| {
        root.create_file(entry).expect("an entry").write_all(text.as_bytes()).expect("its text");
    };
    write("meta-data", format!("instance-id: {name}\nlocal-hostname: {name}\n"));
    write("user-data", "#cloud-config\n{}\n".to_owned());
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Copies the first export into a raw image.
pub(crate) fn read_export(backup: &RunningBackup, to: &Path) {
    let uri = format!("nbd+unix:///{}?socket={}", backup.exports[0].name, backup.socket.display());
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw", &uri]).arg(to));
}

/// How many bytes the first export's bitmap calls changed. qemu-img shows a bitmap's clean blocks as data.
pub(crate) fn dirty_bytes(backup: &RunningBackup) -> u64 {
    let export = &backup.exports[0];
    let options = format!(
        "driver=nbd,export={},server.type=unix,server.path={},x-dirty-bitmap={}",
        export.name,
        backup.socket.display(),
        export.dirty_bitmap_context_name.as_deref().expect("a bitmap")
    );
    let map = run(Command::new("qemu-img").args(["map", "--output=json", "--image-opts", &options]));
    let map = String::from_utf8(map.stdout).expect("text");
    let number = |line: &str, key: &str| -> u64 {
        let from = line.find(key).expect("every extent has it") + key.len();
        let digits: String = line[from..].trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    map.lines()
        .filter(|line| line.contains(r#""data": false"#))
        .map(|line| number(line, r#""length":"#))
        .sum()
}

/// A file in the tiny guest's second partition, read without mounting.
pub(crate) fn file_in_disk(disk: &Path, path: &str) -> String {
    const ROOT_OFFSET: u64 = 33 << 20;
    let image = format!("{}?offset={ROOT_OFFSET}", disk.display());
    let read = run(Command::new("debugfs").args(["-R", &format!("cat {path}"), &image]));
    String::from_utf8(read.stdout).expect("text")
}
