//! How a script writes positions, logs and messages; what is printed can be pasted back into `inject`.
//!
//! A position is `index@term`, a log is `1..3@1,4@2`, nothing is `none`. Values that the core draws at random
//! (sessions, read requests) are given names in the order in which they first appear, `s1`, `s2`, `q1`, …, so that
//! recorded results do not depend on the random numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ids::{LogIndex, MemberId, Term};
use crate::raft::{
    AppendReply, AppendRequest, AppendResult, Entry, FillReply, FillRequest, Message, Position, PreVoteReply,
    PreVoteRequest, ReadIndexReply, ReadIndexRequest, RoleName, SnapshotChunk, SnapshotName, SnapshotReply,
    TimeoutNow, VoteReply, VoteRequest,
};

/// The size of every entry a script names without saying a size.
pub(super) const ENTRY_BYTES: u32 = 100;

/// One command line: its words, and its `name=value` arguments.
pub(super) struct Line {
    words: Vec<String>,
    arguments: BTreeMap<String, Vec<String>>,
}

impl Line {
    /// Splits a line at white space.
    pub(super) fn parse(line: &str) -> Self {
        let mut parsed = Self { words: Vec::new(), arguments: BTreeMap::new() };
        for token in line.split_whitespace() {
            match token.split_once('=') {
                Some((name, value)) => {
                    parsed.arguments.entry(name.to_owned()).or_default().push(value.to_owned());
                }
                None => parsed.words.push(token.to_owned()),
            }
        }
        parsed
    }

    /// The word at this place; 0 is the command itself.
    pub(super) fn word(&self, place: usize) -> Result<&str, String> {
        self.words.get(place).map(String::as_str).ok_or_else(|| format!("word {place} is missing"))
    }

    /// All words from this place on.
    pub(super) fn words_from(&self, place: usize) -> &[String] {
        self.words.get(place..).unwrap_or(&[])
    }

    /// Whether this word stands anywhere behind the command.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words_from(1).iter().any(|found| found == word)
    }

    /// The last value given to `name`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    /// Every value given to `name`, in order.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.arguments.get(name).map_or(&[], Vec::as_slice)
    }

    /// The number given to `name`, or `default`.
    pub(super) fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        self.value(name).map_or(Ok(default), number)
    }

    /// The position given to `name`, or the start of the log.
    pub(super) fn position(&self, name: &str) -> Result<Position, String> {
        self.value(name).map_or(Ok(Position::START), position)
    }

    /// The entries given to `name`, or none.
    pub(super) fn entries(&self, name: &str) -> Result<Vec<Entry>, String> {
        self.value(name).map_or(Ok(Vec::new()), entries)
    }

    /// Whether `name=yes`.
    fn is_yes(&self, name: &str) -> bool {
        self.value(name) == Some("yes")
    }

    fn term(&self) -> Result<Term, String> {
        self.number("term", 0).map(Term)
    }
}

/// A number.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a number, found {text}"))
}

/// A member, as `1`.
pub(super) fn member(text: &str) -> Result<MemberId, String> {
    number(text).map(MemberId)
}

/// Members, as `1,2,3`.
pub(super) fn members(text: &str) -> Result<Vec<MemberId>, String> {
    text.split(',').map(member).collect()
}

/// A duration in microseconds, from `300ms` or `+300ms`.
pub(super) fn micros(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('+').unwrap_or(text).strip_suffix("ms");
    let digits = digits.ok_or_else(|| format!("expected a duration such as 300ms, found {text}"))?;
    Ok(number(digits)? * 1_000)
}

/// A position, as `3@1`.
pub(super) fn position(text: &str) -> Result<Position, String> {
    let (index, term) = text.split_once('@').ok_or_else(|| format!("expected index@term, found {text}"))?;
    Ok(Position { index: LogIndex(number(index)?), term: Term(number(term)?) })
}

/// Entries, as `1..3@1,4@2` or `none`.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    if text == "none" {
        return Ok(entries);
    }
    for run in text.split(',') {
        let (range, term) = run.split_once('@').ok_or_else(|| format!("expected index@term, found {run}"))?;
        let (first, last) = range.split_once("..").unwrap_or((range, range));
        let term = Term(number(term)?);
        for index in number(first)?..=number(last)? {
            entries.push(Entry { index: LogIndex(index), term, bytes_count: ENTRY_BYTES });
        }
    }
    Ok(entries)
}

/// A position as scripts write it.
pub(super) fn show_position(position: Position) -> String {
    format!("{}@{}", position.index, position.term)
}

/// Positions of consecutive entries as scripts write them.
pub(super) fn show_log(log: &[Position]) -> String {
    let mut text = String::new();
    let mut rest = log;
    while let Some(first) = rest.first() {
        let same_term = rest.iter().take_while(|position| position.term == first.term).count();
        let last = rest[same_term - 1];
        let comma = if text.is_empty() { "" } else { "," };
        let written = if same_term == 1 {
            write!(text, "{comma}{}@{}", first.index, first.term)
        } else {
            write!(text, "{comma}{}..{}@{}", first.index, last.index, first.term)
        };
        written.expect("writing to a string cannot fail");
        rest = &rest[same_term..];
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

/// Entries as scripts write them.
pub(super) fn show_entries(entries: &[Entry]) -> String {
    let positions: Vec<Position> = entries.iter().map(Entry::position).collect();
    show_log(&positions)
}

/// A member that may be nobody.
pub(super) fn show_member(member: Option<MemberId>) -> String {
    member.map_or_else(|| "none".to_owned(), |member| member.0.to_string())
}

/// A fact, as `yes` or `no`.
pub(super) fn show_yes(fact: bool) -> &'static str {
    if fact { "yes" } else { "no" }
}

/// A role, as scripts name it.
pub(super) fn show_role(role: RoleName) -> &'static str {
    match role {
        RoleName::Follower => "follower",
        RoleName::PreCandidate => "pre-candidate",
        RoleName::Candidate => "candidate",
        RoleName::Leader => "leader",
    }
}

/// The kind of a message, as scripts name it.
pub(super) fn kind(message: &Message) -> &'static str {
    match message {
        Message::PreVoteRequest(_) => "pre_vote",
        Message::PreVoteReply(_) => "pre_vote_reply",
        Message::VoteRequest(_) => "vote",
        Message::VoteReply(_) => "vote_reply",
        Message::AppendRequest(_) => "append",
        Message::AppendReply(_) => "append_reply",
        Message::TimeoutNow(_) => "timeout_now",
        Message::ReadIndexRequest(_) => "read_index",
        Message::ReadIndexReply(_) => "read_index_reply",
        Message::FillRequest(_) => "fill",
        Message::FillReply(_) => "fill_reply",
        Message::SnapshotChunk(_) => "chunk",
        Message::SnapshotReply(_) => "chunk_reply",
    }
}

/// Names for the values the core draws.
#[derive(Default)]
pub(super) struct Names {
    sessions: Vec<u64>,
    requests: Vec<(MemberId, u64)>,
    /// Reads of each member in its current boot; `None` once it is over.
    reads: Vec<Option<(MemberId, u64)>>,
}

impl Names {
    /// The name of a replication session.
    pub(super) fn session(&mut self, session: u64) -> String {
        let place = self.sessions.iter().position(|known| *known == session).unwrap_or_else(|| {
            self.sessions.push(session);
            self.sessions.len() - 1
        });
        format!("s{}", place + 1)
    }

    /// The name of a read at `owner`, as that member numbers it.
    pub(super) fn read(&mut self, owner: MemberId, read: u64) -> String {
        let known = self.reads.iter().position(|known| *known == Some((owner, read)));
        let place = known.unwrap_or_else(|| {
            self.reads.push(Some((owner, read)));
            self.reads.len() - 1
        });
        format!("r{}", place + 1)
    }

    /// A member begins to number its reads anew.
    pub(super) fn restarted(&mut self, owner: MemberId) {
        let of_owner =
            |known: &&mut Option<(MemberId, u64)>| known.is_some_and(|(member, _)| member == owner);
        self.reads.iter_mut().filter(of_owner).for_each(|known| *known = None);
    }

    /// The name of a request for a read index that `owner` sent.
    pub(super) fn request(&mut self, owner: MemberId, request: u64) -> String {
        let known = self.requests.iter().position(|known| *known == (owner, request));
        let place = known.unwrap_or_else(|| {
            self.requests.push((owner, request));
            self.requests.len() - 1
        });
        format!("q{}", place + 1)
    }

    /// The session of this name; a name not seen yet is a session nobody drew.
    fn session_named(&self, name: &str) -> Result<u64, String> {
        let place = number(name.trim_start_matches('s'))?;
        let known = usize::try_from(place).ok().and_then(|place| self.sessions.get(place.wrapping_sub(1)));
        Ok(known.copied().unwrap_or(u64::MAX - place))
    }

    /// The read request of this name; a name not seen yet is a request nobody made.
    fn request_named(&self, name: &str) -> Result<u64, String> {
        let place = number(name.trim_start_matches('q'))?;
        let known = usize::try_from(place).ok().and_then(|place| self.requests.get(place.wrapping_sub(1)));
        Ok(known.map_or(u64::MAX - place, |(_, request)| *request))
    }

    /// A message as scripts write it, without its sender and receiver.
    pub(super) fn show(&mut self, from: MemberId, to: MemberId, message: &Message) -> String {
        let kind = kind(message);
        let fields = match message {
            Message::PreVoteRequest(m) => format!("term={} last={}", m.term, show_position(m.last)),
            Message::PreVoteReply(m) => {
                format!("term={} asked={} granted={}", m.term, m.asked, show_yes(m.is_granted))
            }
            Message::VoteRequest(m) => {
                let transfer = if m.is_transfer { " transfer=yes" } else { "" };
                format!("term={} last={}{transfer}", m.term, show_position(m.last))
            }
            Message::VoteReply(m) => format!("term={} granted={}", m.term, show_yes(m.is_granted)),
            Message::AppendRequest(m) => format!(
                "term={} session={} previous={} entries={} commit={} round={}",
                m.term,
                self.session(m.session),
                show_position(m.previous),
                show_entries(&m.entries),
                m.commit,
                m.round
            ),
            Message::AppendReply(m) => {
                let session = self.session(m.session);
                format!("term={} session={session} round={} {}", m.term, m.round, show_result(m.result))
            }
            Message::TimeoutNow(m) => format!("term={} last={}", m.term, m.last),
            Message::ReadIndexRequest(m) => {
                format!("term={} request={}", m.term, self.request(from, m.request))
            }
            Message::ReadIndexReply(m) => {
                let index = m.index.map_or_else(|| "none".to_owned(), |index| index.to_string());
                format!("term={} request={} index={index}", m.term, self.request(to, m.request))
            }
            Message::FillRequest(m) => format!(
                "term={} previous={} last={}",
                m.term,
                show_position(m.previous),
                show_position(m.last)
            ),
            Message::FillReply(m) => format!(
                "term={} last={} previous={} entries={}",
                m.term,
                show_position(m.last),
                show_position(m.previous),
                show_entries(&m.entries)
            ),
            Message::SnapshotChunk(m) => format!(
                "term={} session={} {} offset={} bytes={}",
                m.term,
                self.session(m.session),
                show_snapshot(m.snapshot),
                m.offset,
                m.bytes_count
            ),
            Message::SnapshotReply(m) => format!(
                "term={} session={} {} offset={} upto={}",
                m.term,
                self.session(m.session),
                show_snapshot(m.snapshot),
                m.offset,
                m.upto
            ),
        };
        format!("{kind} {fields}")
    }

    /// The message that a line such as `inject 1->2 append_reply term=2 session=s1 matched=3` describes.
    pub(super) fn message(&self, kind: &str, line: &Line) -> Result<Message, String> {
        let term = line.term()?;
        Ok(match kind {
            "pre_vote" => Message::PreVoteRequest(PreVoteRequest { term, last: line.position("last")? }),
            "pre_vote_reply" => Message::PreVoteReply(PreVoteReply {
                term,
                asked: Term(line.number("asked", 0)?),
                is_granted: line.is_yes("granted"),
            }),
            "vote" => Message::VoteRequest(VoteRequest {
                term,
                last: line.position("last")?,
                is_transfer: line.is_yes("transfer"),
            }),
            "vote_reply" => Message::VoteReply(VoteReply { term, is_granted: line.is_yes("granted") }),
            "append" => Message::AppendRequest(AppendRequest {
                term,
                session: self.session_named(line.value("session").unwrap_or("s0"))?,
                previous: line.position("previous")?,
                entries: line.entries("entries")?,
                commit: LogIndex(line.number("commit", 0)?),
                round: line.number("round", 0)?,
            }),
            "append_reply" => Message::AppendReply(AppendReply {
                term,
                session: self.session_named(line.value("session").unwrap_or("s0"))?,
                round: line.number("round", 0)?,
                result: parse_result(line)?,
            }),
            "timeout_now" => {
                Message::TimeoutNow(TimeoutNow { term, last: LogIndex(line.number("last", 0)?) })
            }
            "read_index" => {
                let request = self.request_named(line.value("request").unwrap_or("q0"))?;
                Message::ReadIndexRequest(ReadIndexRequest { term, request })
            }
            "read_index_reply" => {
                let request = self.request_named(line.value("request").unwrap_or("q0"))?;
                let index = line.value("index").filter(|index| *index != "none").map(number).transpose()?;
                Message::ReadIndexReply(ReadIndexReply { term, request, index: index.map(LogIndex) })
            }
            "fill" => Message::FillRequest(FillRequest {
                term,
                previous: line.position("previous")?,
                last: line.position("last")?,
            }),
            "fill_reply" => Message::FillReply(FillReply {
                term,
                last: line.position("last")?,
                previous: line.position("previous")?,
                entries: line.entries("entries")?,
            }),
            "chunk" => Message::SnapshotChunk(SnapshotChunk {
                term,
                session: self.session_named(line.value("session").unwrap_or("s0"))?,
                snapshot: parse_snapshot(line)?,
                offset: line.number("offset", 0)?,
                bytes_count: u32::try_from(line.number("bytes", 0)?).map_err(|_| "a chunk is small")?,
            }),
            "chunk_reply" => Message::SnapshotReply(SnapshotReply {
                term,
                session: self.session_named(line.value("session").unwrap_or("s0"))?,
                snapshot: parse_snapshot(line)?,
                offset: line.number("offset", 0)?,
                upto: line.number("upto", 0)?,
            }),
            unknown => return Err(format!("no message is called {unknown}")),
        })
    }
}

/// A snapshot as `snapshot=5@1 of=100`: where it ends, and of how many bytes it is.
fn show_snapshot(snapshot: SnapshotName) -> String {
    format!("snapshot={} of={}", show_position(snapshot.position), snapshot.bytes_count)
}

fn parse_snapshot(line: &Line) -> Result<SnapshotName, String> {
    let position = line.position("snapshot")?;
    Ok(SnapshotName { position, bytes_count: line.number("of", 0)?, hash: position.index.0 })
}

fn show_result(result: AppendResult) -> String {
    match result {
        AppendResult::Matched { upto } => format!("matched={upto}"),
        AppendResult::Conflict { rejected, hint } => {
            format!("rejected={rejected} hint={}", show_position(hint))
        }
    }
}

fn parse_result(line: &Line) -> Result<AppendResult, String> {
    if let Some(upto) = line.value("matched") {
        return Ok(AppendResult::Matched { upto: LogIndex(number(upto)?) });
    }
    let rejected = LogIndex(line.number("rejected", 0)?);
    Ok(AppendResult::Conflict { rejected, hint: line.position("hint")? })
}
