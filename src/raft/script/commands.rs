//! The commands of scripts: one function each, from a line to steps of the cluster. `script.rs` documents them.

use super::cluster::{Cluster, Fate, Link, Settings, log_of};
use super::disk::Disk;
use super::notation::{
    Line, entries, kind, member, members, micros, number, position, show_entries, show_log, show_member,
    show_position, show_role, show_yes,
};
use super::walk::Chances;
use crate::ids::{LogIndex, MemberId, Term};
use crate::raft::{HardState, Island, Message, Node, Position, ReadRefused, RoleName, TransferRefused};

const KINDS: [&str; 13] = [
    "pre_vote",
    "pre_vote_reply",
    "vote",
    "vote_reply",
    "append",
    "append_reply",
    "timeout_now",
    "read_index",
    "read_index_reply",
    "fill",
    "fill_reply",
    "chunk",
    "chunk_reply",
];

/// Runs the lines of one script, one after the other.
#[derive(Default)]
pub(super) struct Interpreter {
    cluster: Option<Cluster>,
}

impl Interpreter {
    /// Runs one line and gives what it did; an error ends the script.
    pub(super) fn run(&mut self, text: &str) -> (Vec<String>, Result<(), String>) {
        let line = Line::parse(text);
        let result = self.dispatch(&line);
        let report = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.report));
        (report.unwrap_or_default(), result)
    }

    fn dispatch(&mut self, line: &Line) -> Result<(), String> {
        let command = line.word(0)?;
        if command == "cluster" {
            return self.make_cluster(line);
        }
        let cluster = self.cluster.as_mut().ok_or("a script begins with `cluster`")?;
        let is_long = matches!(command, "settle" | "run");
        cluster.is_quiet = (is_long && !line.has("loud")) || line.has("quiet");
        if command == "member" {
            let disk = disk(line)?;
            return cluster.replace_disk(member(line.word(1)?)?, disk);
        }
        cluster.boot_once()?;
        match command {
            "tick" => cluster.tick(member(line.word(1)?)?, micros(line.word(2)?)?),
            "advance" => cluster.advance(micros(line.word(1)?)?, false),
            "run" => cluster.advance(micros(line.word(1)?)?, true),
            "settle" => cluster.settle(),
            "campaign" => campaign(cluster, line),
            "deliver" => on_messages(cluster, line, Cluster::receive),
            "drop" => on_messages(cluster, line, |_, _, _| Ok(())),
            "duplicate" => duplicate(cluster, line),
            "hold" => on_messages(cluster, line, |cluster, link, message| {
                cluster.held.entry(link).or_default().push_back(message);
                Ok(())
            }),
            "release" => release(cluster, line),
            "reorder" => reorder(cluster, line),
            "partition" => partition(cluster, line),
            "cut" => links(cluster, line)?.into_iter().try_for_each(|link| {
                cluster.cut_link(link);
                Ok(())
            }),
            "heal" => {
                cluster.cut.clear();
                Ok(())
            }
            "sync" => sync(cluster, line),
            "stall" => each_member(cluster, line, |cluster, id| {
                cluster.member(id)?.is_stalled = true;
                Ok(())
            }),
            "unstall" => each_member(cluster, line, |cluster, id| {
                cluster.member(id)?.is_stalled = false;
                Ok(())
            }),
            "crash" => crash(cluster, line),
            "rot" => rot(cluster, line),
            "restart" => each_member(cluster, line, Cluster::restart),
            "snapshot" => snapshot(cluster, line),
            "trim" => trim(cluster, line),
            "store" => store(cluster, line),
            "propose" => propose(cluster, line),
            "read" => read(cluster, line),
            "transfer" => transfer(cluster, line),
            "inject" => inject(cluster, line),
            "show" => show(cluster, line),
            "assert" => assert_fact(cluster, line),
            unknown => Err(format!("no command is called {unknown}")),
        }
    }

    /// What could happen next, for a walk.
    pub(super) fn chances(&self) -> Chances {
        let cluster = self.cluster.as_ref().expect("a walk begins with a cluster");
        let waiting = cluster.queues.iter().filter(|(_, queue)| !queue.is_empty());
        let running = |id: &MemberId| cluster.node(*id).is_ok();
        let (up, down): (Vec<MemberId>, Vec<MemberId>) = cluster.ids().into_iter().partition(running);
        let writers = up.iter().filter(|id| cluster.has_write(**id)).map(|id| id.0).collect();
        let storing = up.iter().filter(|id| cluster.is_storing(**id)).map(|id| id.0).collect();
        let leads = |id: &&MemberId| cluster.node(**id).is_ok_and(|node| node.role() == RoleName::Leader);
        let leading = up.iter().filter(leads).map(|id| id.0).collect();
        let rotting = cluster.members.values().next().filter(|member| member.node.is_none());
        Chances {
            links: waiting.map(|((from, to), _)| format!("{}->{}", from.0, to.0)).collect(),
            writers,
            leading,
            up: up.into_iter().map(|id| id.0).collect(),
            down: down.into_iter().map(|id| id.0).collect(),
            storing,
            rotting_base: rotting.map_or(0, |member| member.disk.base.index.0),
            rotting_end: rotting.map_or(0, |member| member.disk.last().index.0),
        }
    }

    fn make_cluster(&mut self, line: &Line) -> Result<(), String> {
        let voters = members(line.value("voters").ok_or("cluster needs voters=")?)?;
        let duration = |name, default| line.value(name).map_or(Ok(default), micros);
        let settings = Settings {
            election_micros: duration("election", 300_000)?,
            heartbeat_micros: duration("heartbeat", 50_000)?,
            lease_micros: duration("lease", 0)?,
            seed: line.number("seed", 1)?,
            chunk_bytes: line.number("chunk", 40)?,
        };
        self.cluster = Some(Cluster::new(&voters, &disk(line)?, settings));
        Ok(())
    }
}

/// A disk from `term=3 vote=1 commit=1 log=1@1,2@1 island=3@2:4@2,5@3`.
fn disk(line: &Line) -> Result<Disk, String> {
    let vote = line.value("vote").filter(|vote| *vote != "none").map(member).transpose()?;
    let mut islands = Vec::new();
    for island in line.values("island") {
        let (predecessor, held) = island.split_once(':').ok_or("an island is written 3@1:4@1,5@1")?;
        islands.push(Island { predecessor: position(predecessor)?, entries: entries(held)? });
    }
    let hard_state =
        HardState { term: Term(line.number("term", 0)?), vote, commit: LogIndex(line.number("commit", 0)?) };
    Ok(Disk { hard_state, entries: line.entries("log")?, islands, ..Disk::default() })
}

/// The members a command names; all of them if it names none.
fn chosen(cluster: &Cluster, line: &Line) -> Result<Vec<MemberId>, String> {
    let words = line.words_from(1).iter().filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let named: Vec<MemberId> = words.map(|word| member(word)).collect::<Result<_, _>>()?;
    Ok(if named.is_empty() { cluster.ids() } else { named })
}

fn each_member(
    cluster: &mut Cluster,
    line: &Line,
    act: impl Fn(&mut Cluster, MemberId) -> Result<(), String>,
) -> Result<(), String> {
    chosen(cluster, line)?.into_iter().try_for_each(|id| act(cluster, id))
}

/// The links that `1->2`, `1->*` or `*->2` names, with each other member for the star.
fn links(cluster: &Cluster, line: &Line) -> Result<Vec<Link>, String> {
    let text = line.word(1)?;
    let (from, to) = text.split_once("->").ok_or_else(|| format!("expected a link 1->2, found {text}"))?;
    let side = |text: &str| {
        if text == "*" { Ok(cluster.ids()) } else { members(text) }
    };
    let (from, to) = (side(from)?, side(to)?);
    let pairs = from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)));
    Ok(pairs.filter(|(from, to)| from != to).collect())
}

fn wanted_kind(line: &Line) -> Option<&str> {
    KINDS.into_iter().find(|kind| line.has(kind))
}

/// Takes messages from the links a command names: the first of each, or with `all` those waiting now.
fn on_messages(
    cluster: &mut Cluster,
    line: &Line,
    act: impl Fn(&mut Cluster, Link, Message) -> Result<(), String>,
) -> Result<(), String> {
    let wanted = wanted_kind(line);
    let mut found = false;
    for link in links(cluster, line)? {
        let waiting = cluster.queues.get(&link).map_or(0, |queue| {
            queue.iter().filter(|message| wanted.is_none_or(|wanted| kind(message) == wanted)).count()
        });
        let count = if line.has("all") { waiting } else { waiting.min(1) };
        for _ in 0..count {
            found = true;
            if let Some(message) = cluster.take_message(link, wanted) {
                act(cluster, link, message)?;
            }
        }
    }
    if found { Ok(()) } else { Err("no such message waits".to_owned()) }
}

/// The first message of a link arrives twice: its copy goes to the end of the queue.
fn duplicate(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let wanted = wanted_kind(line);
    for link in links(cluster, line)? {
        let queue = cluster.queues.entry(link).or_default();
        let found = queue.iter().find(|message| wanted.is_none_or(|wanted| kind(message) == wanted));
        let copy = found.cloned().ok_or("no such message waits")?;
        queue.push_back(copy);
    }
    Ok(())
}

/// Held messages go to the end of their queues.
fn release(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    for link in links(cluster, line)? {
        let held = cluster.held.remove(&link).unwrap_or_default();
        cluster.queues.entry(link).or_default().extend(held);
    }
    Ok(())
}

/// What waits on a link will arrive in the opposite order.
fn reorder(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    for link in links(cluster, line)? {
        let queue = cluster.queues.entry(link).or_default();
        queue.make_contiguous().reverse();
    }
    Ok(())
}

fn partition(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let words = line.words_from(1).iter().filter(|word| *word != "|");
    let groups = words.map(|word| members(word)).collect::<Result<Vec<_>, _>>()?;
    cluster.partition(&groups);
    Ok(())
}

fn campaign(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let id = member(line.word(1)?)?;
    let waited = cluster.campaign(id)?;
    cluster.report.push(format!("{} campaigned after {}ms", id.0, waited / 1_000));
    Ok(())
}

/// Completes the write in flight of each member named, or with `all` its writes until it has none.
fn sync(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let is_for_all = line.has("all");
    each_member(cluster, line, |cluster, id| {
        if !is_for_all {
            return cluster.sync(id);
        }
        while cluster.has_write(id) {
            cluster.sync(id)?;
        }
        Ok(())
    })
}

/// A member takes a snapshot of its state, at an index or of all that it committed.
fn snapshot(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let id = member(line.word(1)?)?;
    let commit = cluster.node(id)?.commit();
    let index = line.word(2).map_or(Ok(commit), |index| number(index).map(LogIndex))?;
    if index == LogIndex(0) {
        return Ok(());
    }
    cluster.take_snapshot(id, index, line.number("size", 100)?)
}

/// A member forgets its log up to an index, or as far as it may.
fn trim(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let id = member(line.word(1)?)?;
    let upto = line.word(2).map_or(Ok(u64::MAX), number)?;
    let base = cluster.trim(id, LogIndex(upto))?;
    cluster.report.push(format!("{}: log starts above {}", id.0, show_position(base)));
    Ok(())
}

/// The chunk on its way to a member's temporary file arrives.
fn store(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let fate = match (line.has("switched"), line.has("refused")) {
        (true, _) => Fate::Switched,
        (_, true) => Fate::Refused,
        (false, false) => Fate::Installed,
    };
    cluster.store(member(line.word(1)?)?, fate)
}

fn crash(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let has_landed = line.has("landed");
    each_member(cluster, line, |cluster, id| cluster.crash(id, has_landed))
}

/// Part of the contiguous log of a member that is down becomes unreadable.
fn rot(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let id = member(line.word(1)?)?;
    let (first, last) = line.word(2)?.split_once("..").ok_or("entries are written 3..4")?;
    cluster.rot(id, LogIndex(number(first)?), LogIndex(number(last)?))
}

fn propose(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let id = member(line.word(1)?)?;
    let count = line.number("n", 1)?;
    let size = u32::try_from(line.number("size", 100)?).map_err(|_| "an entry is at most 4 GiB")?;
    let sizes: Vec<u32> = (0..count).map(|_| size).collect();
    let place = cluster.report.len();
    let shown = match cluster.step(id, |node, now, _| node.propose(now, &sizes))? {
        Ok(first) => {
            let last = first.index.0 + count - 1;
            format!("{}: proposed {}..{last}@{}", id.0, first.index, first.term)
        }
        Err(refused) => {
            format!("{}: refused, not the leader; leader is {}", id.0, show_member(refused.leader))
        }
    };
    cluster.report.insert(place, shown);
    Ok(())
}

/// Several reads are asked in one turn.
fn read(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let id = member(line.word(1)?)?;
    let count = line.number("n", 1)?;
    let place = cluster.report.len();
    let results = cluster.read(id, count)?;
    for (offset, result) in results.into_iter().enumerate() {
        let shown = match result {
            Ok(request) => format!("{}: read {} asked", id.0, cluster.names.read(id, request)),
            Err(ReadRefused::NotLeader(refused)) => {
                format!("{}: read refused, not the leader; leader is {}", id.0, show_member(refused.leader))
            }
            Err(ReadRefused::TooMany) => format!("{}: read refused, too many wait", id.0),
        };
        cluster.report.insert(place + offset, shown);
    }
    Ok(())
}

fn transfer(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    for (from, to) in links(cluster, line)? {
        let result = cluster.step(from, |node, now, out| node.transfer(now, to, out))?;
        let shown = match result {
            Ok(()) => continue,
            Err(TransferRefused::NotLeader(refused)) => {
                format!("refused, not the leader; leader is {}", show_member(refused.leader))
            }
            Err(TransferRefused::NoSuchVoter) => "refused, no such voter".to_owned(),
        };
        cluster.report.push(format!("{}: transfer {shown}", from.0));
    }
    Ok(())
}

/// A message nobody sent, or sent long ago, arrives.
fn inject(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let message = cluster.names.message(line.word(2)?, line)?;
    links(cluster, line)?.into_iter().try_for_each(|link| cluster.receive(link, message.clone()))
}

fn show(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    if line.has("messages") {
        show_messages(cluster);
        return Ok(());
    }
    for id in chosen(cluster, line)? {
        let shown = if line.has("disk") {
            format!("{} disk {}", id.0, cluster.member(id)?.disk.show())
        } else {
            cluster.show(id)?
        };
        cluster.report.push(shown);
    }
    Ok(())
}

fn show_messages(cluster: &mut Cluster) {
    for ((from, to), queue) in &cluster.queues {
        for message in queue {
            let shown = cluster.names.show(*from, *to, message);
            cluster.report.push(format!("{}->{} {shown}", from.0, to.0));
        }
    }
}

/// A fact the script is about. Says what was found instead.
fn assert_fact(cluster: &mut Cluster, line: &Line) -> Result<(), String> {
    let (expected, found) = match line.word(1)? {
        "committed-everywhere" => {
            let upto = line.number("upto", cluster.commit().0)?;
            let reached = |id| cluster.node(id).map_or(0, |node| node.commit().0);
            let lowest = cluster.ids().into_iter().map(reached).min().unwrap_or(0);
            ("yes".to_owned(), show_yes(lowest >= upto).to_owned())
        }
        "committed" => (line.word(2)?.to_owned(), cluster.commit().to_string()),
        "leader" => (line.word(2)?.to_owned(), show_leaders(cluster)),
        "log" => {
            let log = log_of(cluster.node(member(line.word(2)?)?)?);
            (show_entries(&entries(line.word(3)?)?), show_log(&log))
        }
        "same-logs" => {
            let nodes = cluster.ids().into_iter().map(|id| cluster.node(id));
            let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
            // What one has trimmed is not compared.
            let base = nodes.iter().map(|node| node.base().index).max().unwrap_or_default();
            let above = |node: &&Node| -> Vec<Position> {
                log_of(node).into_iter().filter(|position| position.index > base).collect()
            };
            let is_same = nodes
                .windows(2)
                .all(|pair| above(&pair[0]) == above(&pair[1]) && pair[0].last() == pair[1].last());
            ("yes".to_owned(), show_yes(is_same).to_owned())
        }
        "role" => {
            let role = cluster.node(member(line.word(2)?)?)?.role();
            (line.word(3)?.to_owned(), show_role(role).to_owned())
        }
        "term" => {
            let state = cluster.node(member(line.word(2)?)?)?.hard_state();
            (line.word(3)?.to_owned(), state.term.to_string())
        }
        "vote" => {
            let state = cluster.node(member(line.word(2)?)?)?.hard_state();
            (line.word(3)?.to_owned(), show_member(state.vote))
        }
        "commit" => {
            let node = cluster.node(member(line.word(2)?)?)?;
            (line.word(3)?.to_owned(), node.commit().to_string())
        }
        "hole" => {
            let node = cluster.node(member(line.word(2)?)?)?;
            (line.word(3)?.to_owned(), show_yes(node.has_hole()).to_owned())
        }
        "last-on-disk" => {
            let disk = &cluster.member(member(line.word(2)?)?)?.disk;
            (show_position(position(line.word(3)?)?), show_position(disk.vote_position()))
        }
        "messages" => (number(line.value("count").unwrap_or("0"))?.to_string(), count(cluster, line)?),
        unknown => return Err(format!("no assertion is called {unknown}")),
    };
    if expected == found { Ok(()) } else { Err(format!("asserted {expected}, found {found}")) }
}

/// Messages of a kind that wait on the links `on=1->2` names.
fn count(cluster: &Cluster, line: &Line) -> Result<String, String> {
    let named = Line::parse(&format!("on {}", line.word(2)?));
    let wanted = wanted_kind(line);
    let mut count = 0;
    for link in links(cluster, &named)? {
        let queue = cluster.queues.get(&link).into_iter().flatten();
        count += queue.filter(|message| wanted.is_none_or(|wanted| kind(message) == wanted)).count();
    }
    Ok(count.to_string())
}

fn show_leaders(cluster: &Cluster) -> String {
    let leads = |id: &MemberId| cluster.node(*id).is_ok_and(|node| node.role() == RoleName::Leader);
    let leaders: Vec<String> =
        cluster.ids().iter().filter(|id| leads(id)).map(|id| id.0.to_string()).collect();
    if leaders.is_empty() { "none".to_owned() } else { leaders.join(",") }
}
