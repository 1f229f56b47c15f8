//! Nothing that depends on a write leaves before that write was synced: judged from the members' own records of
//! their rings, line by line, by rules that know nothing of how the server works.

use crate::support::{Load, PATIENCE, binary};
use mainstay::cli::cluster::{ClusterOptions, LocalCluster};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Writes acknowledged while the record runs.
const WRITES: usize = 100;

/// What one write to the log would make durable.
#[derive(Clone, Copy, Default)]
struct Held {
    is_synced: bool,
    term: u64,
    vote: u64,
    last: u64,
}

/// Why a record is evidence against its member, or how many lines of it depended on the disk.
fn judge(record: &str, is_alone: bool) -> Result<usize, String> {
    let mut in_flight = BTreeMap::new();
    let mut held = Held::default();
    let mut judged_count = 0;
    for line in record.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let field = |name: &str| {
            let value = rest.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
        };
        let number = rest.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        let is_covered = match word {
            "write" => {
                let is_synced = field("synced") == 1;
                in_flight.insert(
                    number,
                    Held { is_synced, term: field("term"), vote: field("vote"), last: field("last") },
                );
                continue;
            }
            "durable" => {
                let write: Held = in_flight.remove(&number).ok_or("a completion of no write")?;
                // A write that names no group says nothing new about one; one that is not synced holds nothing.
                if write.is_synced && write.term > 0 {
                    held = write;
                }
                continue;
            }
            "vote" => held.term > field("term") || (held.term, held.vote) == (field("term"), field("for")),
            "matched" => field("upto") <= held.last,
            "answer" if is_alone => field("applied") <= held.last,
            _ => continue,
        };
        judged_count += 1;
        if !is_covered {
            return Err(format!(
                "`{line}` left while the disk held term {} and entries up to {}",
                held.term, held.last
            ));
        }
    }
    Ok(judged_count)
}

/// A cluster under load that records its rings; the judgement on every member's record, by name.
fn judged(
    program: PathBuf,
    members_count: u16,
    variables: &[(&str, &str)],
) -> Vec<(String, Result<usize, String>)> {
    // Stories run side by side in one process.
    let story = std::thread::current().name().unwrap_or_default().replace("::", "-");
    let directory = std::env::temp_dir().join(format!("mainstay-record-{story}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a place for the records");
    let mut options = ClusterOptions::new(program, members_count).with_generous_timeouts();
    let place = directory.to_string_lossy().into_owned();
    options.variables.push(("MAINSTAY_RING_RECORD".to_owned(), place));
    options.variables.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut cluster = match LocalCluster::start(options, PATIENCE) {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error}"),
    };
    let load = Load::start(&cluster, "record");
    load.wait_for(WRITES);
    load.stop();
    let names: Vec<String> = cluster.members.iter().map(|member| member.name.clone()).collect();
    cluster.end(PATIENCE);
    let judged = names.into_iter().map(|name| {
        let record = read(&directory.join(format!("{name}.record")));
        (name, judge(&record, members_count == 1))
    });
    let judged = judged.collect();
    std::fs::remove_dir_all(&directory).expect("the records are removed");
    judged
}

fn read(path: &Path) -> String {
    let path: PathBuf = path.to_owned();
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn no_acknowledgement_leaves_before_its_sync() {
    for members_count in [1, 3] {
        let mut judged_count = 0;
        for (name, judgement) in judged(binary(), members_count, &[]) {
            judged_count += judgement.unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        assert!(judged_count >= WRITES / 10, "only {judged_count} lines depended on the disk");
    }
}

#[test]
fn an_acknowledgement_without_a_sync_is_found_out() {
    let honest = "write 1 synced=1 term=1 vote=1 last=5\ndurable 1\nmatched upto=5";
    assert_eq!(judge(honest, false), Ok(1));
    let early = "write 1 synced=1 term=1 vote=1 last=5\nmatched upto=5\ndurable 1";
    assert!(judge(early, false).is_err());
    let unsynced = "write 1 synced=0 term=1 vote=1 last=5\ndurable 1\nmatched upto=5";
    assert!(judge(unsynced, false).is_err());
}

/// Needs a program in which bugs can be planted (`cargo build --release --features planted`), named by `MAINSTAY_WITH_BUGS`.
#[test]
fn a_planted_member_that_does_not_sync_is_found_out() {
    let Some(program) = std::env::var_os("MAINSTAY_WITH_BUGS").map(PathBuf::from) else {
        println!("skipped: MAINSTAY_WITH_BUGS names no program in which bugs can be planted");
        return;
    };
    let judged = judged(program, 1, &[("MAINSTAY_PLANTED", "42")]);
    assert!(judged.iter().all(|(_, judgement)| judgement.is_err()), "a member without syncs was believed");
}
