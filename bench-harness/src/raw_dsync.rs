//! What the disk alone costs: concurrent writers, each making one durable write after another.
//!
//! It answers two questions before anything of mainstay is measured: how fast a durable write can be here at best,
//! and how noisy this machine is. Three writers stand for the three members of a cluster that share one machine.
//! What always holds: the files are zero-filled before the clock starts, as segments are (writing into a hole or past
//! the end would time the file system's journal instead); a short write is an error; the files are removed at the
//! end, whatever happened. What it leaves out: reads, and any batching.

use clap::Args;
use hdrhistogram::Histogram;
use rustix::fs::{Mode, OFlags};
use rustix::io::ReadWriteFlags;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// `O_DIRECT` wants addresses, offsets and lengths in whole blocks of the device; 4 KiB suits every device of today.
const BLOCK_BYTES: usize = 4_096;

/// The bounds of one measurement: more writers or larger files would time something else.
const WRITERS_MAX: i64 = 64;
const WRITE_KIB_MAX: i64 = 4_096;
const SECONDS_MAX: u64 = 600;

/// A latency is recorded as this one if it is longer: a minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// Bytes of each file: one segment of the write-ahead log.
const FILE_BYTES: u64 = 64 * 1_024 * 1_024;

/// The arguments of `bench-harness raw-dsync`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Directory on the disk to measure; it must exist, and needs 64 MiB a writer
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How long to write
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Writers at the same time, each with a file of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=WRITERS_MAX))]
    writers: u16,
    /// KiB of one write; a multiple of 4
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..=WRITE_KIB_MAX))]
    write_kib: u16,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(latencies) => {
            println!("{}", report(options, &latencies));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("raw-dsync in {}: {error}", options.dir.display());
            ExitCode::FAILURE
        }
    }
}

/// What one second of durable writes costs in `dir`, in words: what every other figure has to be read against.
pub(crate) fn noise_floor(dir: &Path) -> io::Result<String> {
    let options = three_members(dir);
    Ok(report(&options, &measure(&options)?).replace('\n', "; "))
}

/// The same as latencies in nanoseconds.
pub(crate) fn noise_floor_latencies(dir: &Path) -> io::Result<Histogram<u64>> {
    measure(&three_members(dir))
}

/// One second of three writers, each as a member writes a batch.
fn three_members(dir: &Path) -> Options {
    Options { dir: dir.to_owned(), seconds: 1, writers: 3, write_kib: 64, json: false }
}

/// The latency of every write of every writer, in nanoseconds.
fn measure(options: &Options) -> io::Result<Histogram<u64>> {
    let write_bytes = usize::from(options.write_kib) * 1_024;
    if !write_bytes.is_multiple_of(BLOCK_BYTES) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "--write-kib must be a multiple of 4"));
    }
    let targets = (0..options.writers)
        .map(|writer| Target::create(&options.dir, writer))
        .collect::<io::Result<Vec<_>>>()?;
    let duration = Duration::from_secs(options.seconds);
    thread::scope(|scope| {
        let writers: Vec<_> = targets
            .iter()
            .map(|target| scope.spawn(move || target.write_for(duration, write_bytes)))
            .collect();
        let mut all = new_histogram();
        for writer in writers {
            all += writer.join().expect("a writer returns its errors and never panics")?;
        }
        Ok(all)
    })
}

fn report(options: &Options, latencies: &Histogram<u64>) -> String {
    let micros = |quantile: f64| latencies.value_at_quantile(quantile) / 1_000;
    let writes = latencies.len();
    if options.json {
        return serde_json::json!({
            "p50_us": micros(0.5),
            "p90_us": micros(0.9),
            "p99_us": micros(0.99),
            "p999_us": micros(0.999),
            "max_us": latencies.max() / 1_000,
            "writes": writes,
            "writers": options.writers,
            "write_kib": options.write_kib,
            "seconds": options.seconds,
        })
        .to_string();
    }
    format!(
        "{writes} durable writes of {} KiB by {} writers in {} s\n\
         p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us",
        options.write_kib,
        options.writers,
        options.seconds,
        micros(0.5),
        micros(0.9),
        micros(0.99),
        micros(0.999),
        latencies.max() / 1_000,
    )
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("the bounds are constants in order")
}

/// One zero-filled file, removed when dropped.
struct Target {
    path: PathBuf,
    file: File,
}

impl Target {
    fn create(directory: &Path, writer: u16) -> io::Result<Self> {
        let path = directory.join(format!("raw-dsync-{}-{writer}", std::process::id()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?);
        let target = Self { path, file };
        let zeros = AlignedBytes::filled(1_024 * 1_024, 0);
        let mut offset = 0;
        while offset < FILE_BYTES {
            offset += target.write(offset, zeros.as_slice(), ReadWriteFlags::empty())?;
        }
        target.file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok(target)
    }

    /// Writes round and round the file until `duration` has passed; the latencies are in nanoseconds.
    #[allow(clippy::disallowed_methods)] // Measuring real time is what this command is for.
    fn write_for(&self, duration: Duration, write_bytes: usize) -> io::Result<Histogram<u64>> {
        let bytes = AlignedBytes::filled(write_bytes, 0xa5);
        let mut latencies = new_histogram();
        let mut offset = 0;
        let start = Instant::now();
        while start.elapsed() < duration {
            if offset + write_bytes as u64 > FILE_BYTES {
                offset = 0;
            }
            let before = Instant::now();
            offset += self.write(offset, bytes.as_slice(), ReadWriteFlags::DSYNC)?;
            let nanos = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
            latencies.saturating_record(nanos);
        }
        Ok(latencies)
    }

    /// Writes all of `bytes` at `offset` and returns how many they were.
    fn write(&self, offset: u64, bytes: &[u8], flags: ReadWriteFlags) -> io::Result<u64> {
        let written = rustix::io::pwritev2(&self.file, &[IoSlice::new(bytes)], offset, flags)?;
        if written != bytes.len() {
            let message = format!("a short write: {written} bytes of {} at offset {offset}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::WriteZero, message));
        }
        Ok(written as u64)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("{} stays behind: {error}", self.path.display());
        }
    }
}

/// Bytes whose address is a multiple of the block size, found inside a larger allocation.
struct AlignedBytes {
    allocation: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    fn filled(len: usize, byte: u8) -> Self {
        let allocation = vec![byte; len + BLOCK_BYTES];
        let start = allocation.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "every run of 4 KiB holds one address that is a multiple of 4 KiB");
        Self { allocation, start, len }
    }

    fn as_slice(&self) -> &[u8] {
        &self.allocation[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_bytes_are_aligned_whole_and_filled() {
        for len in [BLOCK_BYTES, 65_536] {
            let bytes = AlignedBytes::filled(len, 7);
            assert_eq!(bytes.as_slice().len(), len);
            assert_eq!(bytes.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0);
            assert!(bytes.as_slice().iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn the_report_in_json_has_the_quantiles_in_microseconds() {
        let options = Options { dir: ".".into(), seconds: 2, writers: 3, write_kib: 64, json: true };
        let mut latencies = new_histogram();
        for _ in 0..99 {
            latencies.saturating_record(200_000);
        }
        latencies.saturating_record(9_000_000);
        let report: serde_json::Value = serde_json::from_str(&report(&options, &latencies)).expect("JSON");
        assert_eq!(report["p50_us"], 200);
        assert_eq!(report["p99_us"], 200);
        assert!(report["max_us"].as_u64().expect("a number") >= 8_990);
        assert_eq!(report["writes"], 100);
    }
}
