//! The way to a broken truth, told in the words of the scenario scripts (`raft/script.rs`), a line a step.
//!
//! Behind each step stands what its member is afterwards. It is told and not recorded: a script's links are queues,
//! while here any message may arrive, and old ones again.

use super::member::{Event, Letter, Member, Timers};
use super::world::World;
use crate::raft::{AppendResult, Entry, Message, Position};
use core::any::Any;

/// The line that begins a script.
pub(super) fn beginning(world: &World) -> String {
    let member = |(id, (term, vote, terms)): (u32, (u64, Option<u64>, &[u64]))| {
        let vote = vote.map_or("none".to_owned(), |vote| vote.to_string());
        format!("member {id} term={term} vote={vote} log={}", log((1..).zip(terms.iter().copied())))
    };
    let members: Vec<String> = (1..).zip(world.disks).map(member).collect();
    let prelude = if world.prelude.is_empty() { String::new() } else { format!("\n# {:?}", world.prelude) };
    format!("cluster voters=1,2,3\n{}{prelude}", members.join("\n"))
}

/// What happened.
pub(super) fn event(id: u8, event: Event, letter: Option<&Letter>) -> String {
    match event {
        Event::Deliver { is_late, .. } => {
            let way = letter.map_or(String::new(), |letter| {
                format!("deliver {}->{id} {}", letter.from.0, message(&letter.message))
            });
            way + if is_late { "   # no leader heard for an election timeout" } else { "" }
        }
        Event::Tick(Timers::Due) => format!("tick {id}   # its timer has run out"),
        Event::Tick(Timers::Stalled) => format!("tick {id}   # its disk has owed an answer for too long"),
        Event::Tick(Timers::Late) => format!("tick {id}   # nobody was heard for an election timeout"),
        Event::Tick(Timers::Silent(_)) => format!("tick {id}   # one follower was not heard for long"),
        Event::Propose => format!("propose {id}"),
        Event::Read(_) => format!("read {id}"),
        Event::Transfer(to) => format!("transfer {id}->{to}"),
        Event::Sync => format!("sync {id}"),
        Event::Crash { has_landed: false } => format!("crash {id}, restart {id}"),
        Event::Crash { has_landed: true } => format!("crash {id} landed, restart {id}"),
    }
}

/// What a member is after a step.
pub(super) fn member(member: &Member) -> String {
    let (node, disk) = (&member.node, &member.disk);
    let pair = |entry: &Entry| (entry.index.0, entry.term.0);
    let state = node.hard_state();
    let all = node.log.range(crate::ids::LogIndex(1), node.last().index);
    format!(
        "    {}: {:?} term={} vote={} commit={} log={} disk: term={} vote={} log={}{}",
        node.id.0,
        node.role(),
        state.term.0,
        state.vote.map_or(0, |vote| vote.0),
        state.commit.0,
        log(all.map(pair)),
        disk.hard_state.term.0,
        disk.hard_state.vote.map_or(0, |vote| vote.0),
        log(disk.entries.iter().map(pair)),
        if member.writing.is_some() { " writing" } else { "" },
    )
}

fn log(entries: impl Iterator<Item = (u64, u64)>) -> String {
    let entries: Vec<String> = entries.map(|(index, term)| format!("{index}@{term}")).collect();
    if entries.is_empty() { "none".to_owned() } else { entries.join(",") }
}

fn position(position: Position) -> String {
    format!("{}@{}", position.index.0, position.term.0)
}

fn message(message: &Message) -> String {
    let term = message.term().0;
    match message {
        Message::PreVoteRequest(request) => {
            format!("pre_vote_request term={term} last={}", position(request.last))
        }
        Message::PreVoteReply(reply) => {
            format!("pre_vote_reply term={term} asked={} granted={}", reply.asked.0, reply.is_granted)
        }
        Message::VoteRequest(request) => format!("vote_request term={term} last={}", position(request.last)),
        Message::VoteReply(reply) => format!("vote_reply term={term} granted={}", reply.is_granted),
        Message::AppendRequest(request) => format!(
            "append term={term} previous={} entries={} commit={} round={}",
            position(request.previous),
            log(request.entries.iter().map(|entry| (entry.index.0, entry.term.0))),
            request.commit.0,
            request.round,
        ),
        Message::AppendReply(reply) => match reply.result {
            AppendResult::Matched { upto } => {
                format!("append_reply term={term} matched={} round={}", upto.0, reply.round)
            }
            AppendResult::Conflict { rejected, hint } => {
                format!("append_reply term={term} rejected={} hint={}", rejected.0, position(hint))
            }
        },
        Message::TimeoutNow(order) => format!("timeout_now term={term} last={}", order.last.0),
        Message::ReadIndexRequest(request) => {
            format!("read_index_request term={term} request={}", request.request)
        }
        Message::ReadIndexReply(reply) => {
            let index = reply.index.map_or("none".to_owned(), |index| index.0.to_string());
            format!("read_index_reply term={term} request={} index={index}", reply.request)
        }
        Message::FillRequest(_) => format!("fill_request term={term}"),
        Message::FillReply(_) => format!("fill_reply term={term}"),
        Message::SnapshotChunk(_) => format!("chunk term={term}"),
        Message::SnapshotReply(_) => format!("chunk_reply term={term}"),
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
