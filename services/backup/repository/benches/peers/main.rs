//! What others take for the same work: restic, rustic and borg beside our engine, in one run on one machine.
//!
//! ```text
//!   cargo bench -p backup-repository --bench peers                all of it
//!   cargo bench -p backup-repository --bench peers -- disk        a 4 GiB disk, three times
//!   cargo bench -p backup-repository --bench peers -- guests      the five guests, once
//! ```
//!
//! Every program runs as a process of its own and is measured by the kernel's accounts; of several runs medians are
//! printed. An engine that is not installed is left out (`deploy/packages bench` installs them). What is restored is
//! compared with what was backed up. All files lie in one temporary folder, which needs 8 GiB.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../disk/mod.rs"]
mod disk;
mod engines;
#[path = "../guests/mod.rs"]
mod guests;
mod meter;
mod ours;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::SeedableRng;
use rand::rngs::StdRng;

use engines::{Engine, Place};
use meter::Taken;

/// The first run warms caches for all of them; the median of three is printed.
const RUNS: usize = 3;
const MIB: usize = 1024 * 1024;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == meter::ARGUMENT => std::process::exit(meter::be_one(arguments)),
        Some(first) if first == ours::ARGUMENT => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            return runtime.block_on(ours::be_one(arguments));
        }
        _ => {}
    }
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let engines: Vec<_> = Engine::ALL.into_iter().filter(|engine| engine.name().is_some()).collect();
    if is_asked("disk") {
        compare_disk(&engines);
    }
    if is_asked("guests") {
        compare_guests(&engines);
    }
}

/// One step of a comparison: for each engine what it took, and what lay in its repository then.
struct Step {
    name: &'static str,
    taken: Vec<(Engine, Taken, f64)>,
}

fn compare_disk(engines: &[Engine]) {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let (first, second) = (folder.path().join("first/disk.raw"), folder.path().join("second/disk.raw"));
    for image in [&first, &second] {
        std::fs::create_dir(image.parent().unwrap()).unwrap();
    }
    disk::make_disk(&first, &mut rng);
    let copied = Command::new("cp").arg("--sparse=always").args([&first, &second]).status();
    assert!(copied.unwrap().success(), "could not copy the disk");
    disk::change_disk(&second, &mut rng);
    let mut steps =
        ["first backup", "again, 20 MiB changed", "restore"].map(|name| Step { name, taken: Vec::new() });
    for &engine in engines {
        let mut runs = [const { Vec::new() }; 3];
        let mut stored = [0.0; 3];
        for run in 0..RUNS {
            let here = tempfile::tempdir_in(folder.path()).unwrap();
            let place = Place::new(engine, here.path().join("repository"));
            runs[0].push(place.back_up("first", &first));
            stored[0] = place.stored_mib();
            runs[1].push(place.back_up("second", &second));
            stored[1] = place.stored_mib();
            stored[2] = stored[1];
            let into = here.path().join("restored");
            std::fs::create_dir(&into).unwrap();
            let (taken, image) = place.restore("second", "disk.raw", &into);
            runs[2].push(taken);
            if run == 0 {
                assert_equal(&restored(&image, &into), &second);
            }
        }
        for ((step, runs), stored) in steps.iter_mut().zip(&runs).zip(stored) {
            step.taken.push((engine, Taken::median(runs), stored));
        }
    }
    println!("\nA disk of 4 GiB, 512 MiB of it used (median of {RUNS} runs)");
    print(&steps);
}

fn compare_guests(engines: &[Engine]) {
    let folder = tempfile::tempdir().unwrap();
    let guests = guests::make(folder.path());
    let mut steps =
        Vec::from(["A1", "A2", "A3", "B", "C", "all five"].map(|name| Step { name, taken: Vec::new() }));
    for &engine in engines {
        let place = Place::new(engine, folder.path().join(engine.name().unwrap()));
        let mut sum = Taken::default();
        for (step, (name, image)) in steps.iter_mut().zip(&guests.images) {
            let taken = place.back_up(name, image);
            step.taken.push((engine, taken, place.stored_mib()));
            sum = sum.and(taken);
        }
        steps[5].taken.push((engine, sum, place.stored_mib()));
    }
    println!("\nFive guests of 1 GiB into one repository (once; files {})", guests.fingerprint);
    print(&steps);
}

/// Where the image is: restic keeps the folders above it.
fn restored(image: &Path, into: &Path) -> PathBuf {
    if image.exists() {
        return image.to_owned();
    }
    let mut folder = into.to_owned();
    while !folder.join("disk.raw").exists() {
        let inner =
            std::fs::read_dir(&folder).unwrap().next().expect("the image was restored somewhere").unwrap();
        folder = inner.path();
    }
    folder.join("disk.raw")
}

fn assert_equal(one: &Path, other: &Path) {
    let (one, other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let length = other.metadata().unwrap().len();
    assert_eq!(one.metadata().unwrap().len(), length);
    let (mut here, mut there) = (vec![0; 4 * MIB], vec![0; 4 * MIB]);
    for at in (0..length).step_by(4 * MIB) {
        one.read_exact_at(&mut here, at).unwrap();
        other.read_exact_at(&mut there, at).unwrap();
        assert!(here == there, "what was restored differs at byte {at} or soon after");
    }
}

fn print(steps: &[Step]) {
    let heads = ["cpu s", "x ours", "wall s", "x ours", "peak MiB", "stored MiB", "x ours"];
    print!("{:<22} {:<14}", "", "");
    println!("{}", heads.map(|head| format!("{head:>11}")).concat());
    for Step { name, taken } in steps {
        let ours = taken.iter().find(|(engine, ..)| *engine == Engine::Ours);
        let (_, ours, ours_stored) = *ours.expect("we are always there");
        for (engine, one, stored) in taken {
            let cells = [
                format!("{:.2}", one.cpu_seconds),
                format!("{:.1}", one.cpu_seconds / ours.cpu_seconds),
                format!("{:.2}", one.wall_seconds),
                format!("{:.1}", one.wall_seconds / ours.wall_seconds),
                format!("{:.0}", one.peak_mib),
                format!("{stored:.0}"),
                format!("{:.2}", stored / ours_stored),
            ];
            print!("{name:<22} {:<14}", engine.name().unwrap());
            println!("{}", cells.map(|cell| format!("{cell:>11}")).concat());
        }
    }
}
