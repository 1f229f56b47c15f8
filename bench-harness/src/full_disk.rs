//! What a member does when its disk is full: it refuses writes, goes on reading, says why, and recovers by itself.
//!
//! The disk is a small ext4 image, mounted in a directory of its own, which needs root; without it this says so and
//! checks nothing. What always holds: the image is unmounted and removed at the end. What it leaves out: the alarm
//! that tells clients in so many words, which comes with quotas.

use crate::program;
use clap::Args;
use mainstay::cli::cluster::{ClusterOptions, LocalCluster};
use mainstay::cli::workload::{client, is_there};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long one write may take before it counts as refused.
const WRITE_PATIENCE: Duration = Duration::from_secs(4);

/// Room for two segments of 64 MiB and a little more, but not for a third.
const IMAGE_BYTES: u64 = 230 * 1_024 * 1_024;

/// Tries, 100 ms apart, to unmount the disk at the end.
const UNMOUNT_TRIES: u32 = 100;

/// Large values fill segments quickly.
const VALUE_BYTES: usize = 1_024 * 1_024;

/// The arguments of `bench-harness full-disk`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// This binary instead of the one built from this tree
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

type Failed = Box<dyn std::error::Error>;

/// Runs `bench-harness full-disk`.
pub(crate) fn run(options: &Options) -> ExitCode {
    let place = std::env::temp_dir().join(format!("mainstay-full-disk-{}", std::process::id()));
    let outcome = match Disk::mount(&place) {
        Ok(disk) => check(options, &disk.mounted),
        Err(why) => {
            println!(
                "skipped: no small disk to be had here ({why}); root, mkfs.ext4 and loop devices are needed"
            );
            return ExitCode::SUCCESS;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-harness full-disk: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::disallowed_methods)] // measures how long a real member takes
fn check(options: &Options, disk: &Path) -> Result<(), Failed> {
    let mut cluster_options = ClusterOptions::new(program::find(options.program.as_deref())?, 1);
    cluster_options.directory = Some(disk.join("data"));
    let mut cluster = LocalCluster::start(cluster_options, PATIENCE)?;
    let mut writer = client(&cluster.endpoints(), WRITE_PATIENCE);
    let mut acknowledged_count = 0_u32;
    let refusal = loop {
        match writer.put(format!("key-{acknowledged_count}"), vec![7; VALUE_BYTES]) {
            Ok(_) => acknowledged_count += 1,
            Err(refusal) => break refusal,
        }
        if acknowledged_count > 1_000 {
            return Err("a gigabyte went onto a disk that is not that large".into());
        }
    };
    println!("{acknowledged_count} writes of 1 MiB were acknowledged, then: {refusal}");
    let mut reader = client(&cluster.endpoints(), PATIENCE);
    reader.get("key-0")?;
    println!("reads go on");
    let log = cluster.members[0].log_end();
    if !log.contains("free some space") {
        return Err(format!("the log does not say what to do; its end:\n{log}").into());
    }
    println!("the log says what to do");
    std::fs::remove_file(disk.join("ballast"))?;
    let began = Instant::now();
    while let Err(refusal) = writer.put("after", "space is back") {
        if began.elapsed() > PATIENCE {
            return Err(format!("space is back, and still: {refusal}").into());
        }
    }
    println!("writes go on {} ms after space was freed", began.elapsed().as_millis());
    for number in 0..acknowledged_count {
        if !is_there(&mut reader, &format!("key-{number}"))? {
            return Err(format!("key-{number} was acknowledged and is gone").into());
        }
    }
    cluster.end(PATIENCE);
    println!("all {acknowledged_count} acknowledged writes are there");
    Ok(())
}

/// A small file system of its own; unmounted and removed when dropped.
struct Disk {
    place: PathBuf,
    mounted: PathBuf,
    is_mounted: bool,
}

impl Disk {
    fn mount(place: &Path) -> Result<Self, Failed> {
        let mut disk = Self { place: place.to_owned(), mounted: place.join("mounted"), is_mounted: false };
        std::fs::create_dir_all(&disk.mounted)?;
        let image = place.join("image");
        std::fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
        succeed(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk.mounted))?;
        disk.is_mounted = true;
        // Takes what a third segment would need, until it is removed.
        let ballast = std::fs::File::create(disk.mounted.join("ballast"))?;
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, 40 * 1_024 * 1_024)?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A member that has just ended keeps its files for as long as the kernel takes its ring down.
        let is_unmounted = !self.is_mounted
            || (0..UNMOUNT_TRIES).any(|_| {
                let unmounted = succeed(Command::new("umount").arg(&self.mounted));
                if unmounted.is_err() {
                    std::thread::park_timeout(Duration::from_millis(100));
                }
                unmounted.is_ok()
            });
        if !is_unmounted {
            eprintln!(
                "bench-harness full-disk: {} stays mounted; unmount it by hand",
                self.mounted.display()
            );
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.place) {
            eprintln!("bench-harness full-disk: {} stays: {error}", self.place.display());
        }
    }
}

fn succeed(command: &mut Command) -> Result<(), Failed> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}
