//! A watch that outlives its connections: it is created at one member, and anew at another when that one is lost.
//!
//! What always holds: nothing is told twice and nothing is left out (`resume`); a member that no longer hears a majority
//! is left for another, because it would be silent for as long as it is cut off, and nobody would know.
//!
//! How that is noticed: while nothing comes, the member is asked for a linearizable read now and then, on the same
//! connection. What it leaves out: threads of its own; whoever waits for the next event is the one who does all this.

use super::blocking::ClientOptions;
use super::clock::{BootInstant, now};
use super::connection::{Connection, Trouble};
use super::resume::{Resume, Told};
use crate::api::{ReadMode, Refusal, Request, Response, WatchAnswer, WatchRequest};
use crate::ids::{ClusterId, MemberId, Revision};
use crate::kv::{KeyRange, Query, Range};
use crate::limits::STATUS_MEMBERS_MAX;
use crate::watch::Ending;
use crate::watch::WatchSpec;
use bytes::Bytes;
use std::time::Duration;

/// How long nothing may come before a member is asked whether it still hears a majority.
///
/// Chosen: a read every two seconds costs nothing; a change of leader is over in less.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// How long a member may take to answer that, and to create a watch.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// The pause after every member was tried in vain.
const PAUSE: Duration = Duration::from_millis(100);

/// What a watch brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// It goes on, or begins, at this member.
    At {
        /// Who serves it.
        member: MemberId,
        /// Where: its native address.
        address: String,
    },
    /// Whole revisions of events, or how far it is.
    Told(Told),
    /// The member that served it is lost, and why; it will go on at another. Before it has begun: nobody serves it.
    Lost {
        /// In words.
        why: String,
    },
    /// What it would go on with is compacted: everything before this revision that was not told is lost to it. It goes on
    /// there; read the keys to know what they are.
    Compacted {
        /// The oldest revision that can still be told.
        revision: Revision,
    },
}

/// A watch over as many connections as it takes.
#[derive(Debug)]
pub struct Watcher {
    options: ClientOptions,
    endpoints: Vec<String>,
    /// The endpoint that serves it, or is tried next.
    at: usize,
    resume: Resume,
    serving: Option<Serving>,
    /// Whether any member has served it yet.
    has_begun: bool,
    /// Members tried in vain since one served last.
    failures_count: usize,
    /// What was wrong with the last of them.
    why: Option<String>,
}

#[derive(Debug)]
struct Serving {
    connection: Connection,
    watch: u64,
    is_created: bool,
    heard_at: BootInstant,
    /// A read that shows whether it hears a majority, and when it was asked.
    asked: Option<(u64, BootInstant)>,
}

impl Watcher {
    /// A watch. It connects when it is first asked for something.
    ///
    /// # Panics
    /// If there is no endpoint.
    pub fn new(options: ClientOptions, spec: WatchSpec) -> Self {
        assert!(!options.endpoints.is_empty(), "a watch is given at least one endpoint");
        Self {
            endpoints: options.endpoints.clone(),
            options,
            at: 0,
            resume: Resume::new(spec),
            serving: None,
            has_begun: false,
            failures_count: 0,
            why: None,
        }
    }

    /// The next thing that the watch brings, awaited at most `patience`; `None` if nothing came.
    ///
    /// # Errors
    /// The cluster refuses it for good, in words: it has no such keyspace, is another cluster, or serves as many watches
    /// as it may.
    pub fn next(&mut self, patience: Duration) -> Result<Option<WatchEvent>, String> {
        let deadline = now() + patience;
        loop {
            let Some(serving) = &mut self.serving else {
                if self.connect(deadline)? {
                    continue;
                }
                let why = self.why.take().filter(|_| !self.has_begun);
                return Ok(why.map(|why| WatchEvent::Lost { why }));
            };
            let wait = serving.wait(deadline);
            match serving.connection.receive_within(wait) {
                Ok((id, response)) => {
                    serving.heard_at = now();
                    if let Some(event) = self.heard(id, response)? {
                        return Ok(Some(event));
                    }
                }
                Err(Trouble::TimedOut) if now() >= deadline => return Ok(None),
                Err(Trouble::TimedOut) => {
                    if let Err(why) = serving.ask_if_quiet()
                        && let Some(lost) = self.lost(&why)
                    {
                        return Ok(Some(lost));
                    }
                }
                Err(trouble) => {
                    if let Some(lost) = self.lost(&trouble.to_string()) {
                        return Ok(Some(lost));
                    }
                }
            }
        }
    }

    /// The first revision not told yet, once it is known.
    pub const fn next_revision(&self) -> Option<Revision> {
        self.resume.next()
    }

    /// The cluster, once a member has named it.
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.options.cluster
    }

    /// Tries the next member. False if none could be had in time.
    fn connect(&mut self, deadline: BootInstant) -> Result<bool, String> {
        if self.failures_count > 0 && self.failures_count.is_multiple_of(self.endpoints.len()) {
            pause(PAUSE.min(deadline.saturating_duration_since(now())));
        }
        if now() >= deadline {
            return Ok(false);
        }
        let address = self.endpoints[self.at % self.endpoints.len()].clone();
        match self.create_at(&address, deadline) {
            Ok(serving) => {
                self.serving = Some(serving);
                Ok(true)
            }
            Err(Trouble::Refused(refusal @ (Refusal::WrongCluster | Refusal::NoCommonVersion))) => {
                Err(format!("{address} says: {refusal}"))
            }
            Err(trouble) => {
                self.why = Some(format!("{address}: {trouble}"));
                self.try_another();
                Ok(true)
            }
        }
    }

    fn create_at(&mut self, address: &str, deadline: BootInstant) -> Result<Serving, Trouble> {
        let patience = ANSWER_PATIENCE.min(deadline.saturating_duration_since(now()));
        let mut connection = Connection::open(address, self.options.cluster, patience)?;
        if connection.hello().cluster != ClusterId(0) {
            self.options.cluster = Some(connection.hello().cluster);
        }
        self.learn_members(&mut connection, patience);
        let request = WatchRequest::Create { keyspace: self.options.keyspace, spec: self.resume.spec() };
        let watch = connection.send(&Request::Watch(request))?;
        let heard_at = now();
        Ok(Serving { connection, watch, is_created: false, heard_at, asked: Some((watch, heard_at)) })
    }

    /// Asks a member who the others are, so that there are more to go on at than were named.
    fn learn_members(&mut self, connection: &mut Connection, patience: Duration) {
        let Ok(Response::Status(status)) = connection.call(&Request::Status, patience) else { return };
        for view in status.members {
            let is_new = !view.native.is_empty() && !self.endpoints.contains(&view.native);
            if is_new && self.endpoints.len() < 2 * STATUS_MEMBERS_MAX {
                self.endpoints.push(view.native);
            }
        }
    }

    fn heard(&mut self, id: u64, response: Response) -> Result<Option<WatchEvent>, String> {
        let Some(serving) = &mut self.serving else { return Ok(None) };
        if serving.asked.is_some_and(|(asked, _)| asked == id) {
            serving.asked = None;
        }
        match response {
            Response::Watch(WatchAnswer::Created { revision }) if id == serving.watch => {
                serving.is_created = true;
                self.resume.created(revision);
                self.failures_count = 0;
                self.has_begun = true;
                let member = serving.connection.hello().member;
                let address = self.endpoints[self.at % self.endpoints.len()].clone();
                Ok(Some(WatchEvent::At { member, address }))
            }
            Response::Watch(WatchAnswer::Told(batch)) if id == serving.watch => {
                Ok(self.resume.told(batch).map(WatchEvent::Told))
            }
            Response::Watch(WatchAnswer::Ended { why: Ending::NotPermitted }) if id == serving.watch => Err(
                "permissions count in this cluster now, and nobody may watch who has not said who they are"
                    .to_owned(),
            ),
            Response::Watch(WatchAnswer::Ended { why: Ending::Compacted(compacted) })
                if id == serving.watch =>
            {
                self.resume.skip_to(compacted);
                self.serving = None;
                Ok(Some(WatchEvent::Compacted { revision: compacted }))
            }
            Response::Refused(
                refusal @ (Refusal::NoSuchKeyspace | Refusal::Malformed | Refusal::Users(_)),
            ) => Err(refusal.to_string()),
            Response::Refused(refusal) => Ok(self.lost(&refusal.to_string())),
            Response::Applied(_) | Response::Aged { .. } => Ok(None),
            Response::Watch(_)
            | Response::SessionOpened { .. }
            | Response::SessionClosed
            | Response::Snapshot(_)
            | Response::Users { .. }
            | Response::Status(_) => Ok(self.lost("it answers what nobody asked")),
        }
    }

    /// The member does not serve it, or no more; which is news if one has served it before.
    fn lost(&mut self, why: &str) -> Option<WatchEvent> {
        let why = format!("{}: {why}", self.endpoints[self.at % self.endpoints.len()]);
        self.serving = None;
        self.try_another();
        if self.has_begun {
            return Some(WatchEvent::Lost { why });
        }
        self.why = Some(why);
        None
    }

    fn try_another(&mut self) {
        self.failures_count += 1;
        self.at = (self.at + 1) % self.endpoints.len();
    }
}

impl Serving {
    /// How long to wait for the next frame.
    fn wait(&self, deadline: BootInstant) -> Duration {
        let until = match self.asked {
            Some((_, asked_at)) => asked_at + ANSWER_PATIENCE,
            None => self.heard_at + QUIET_MAX,
        };
        until.min(deadline).saturating_duration_since(now())
    }

    /// Nothing has come for a while: the member is asked, or has not answered.
    fn ask_if_quiet(&mut self) -> Result<(), String> {
        if let Some((_, asked_at)) = self.asked {
            let is_late = now() >= asked_at + ANSWER_PATIENCE;
            return if is_late { Err("no answer in time".to_owned()) } else { Ok(()) };
        }
        if now() < self.heard_at + QUIET_MAX {
            return Ok(());
        }
        let range = Range { count_only: true, ..Range::new(KeyRange::Key(Bytes::from_static(b"\0"))) };
        let read = Request::Read {
            keyspace: crate::ids::KeyspaceId::FIRST,
            query: Query::Range(range),
            mode: ReadMode::Linearizable,
        };
        let asked = self.connection.send(&read).map_err(|trouble| trouble.to_string())?;
        self.asked = Some((asked, now()));
        Ok(())
    }
}

#[allow(clippy::disallowed_methods)] // the pause between two rounds of attempts
fn pause(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
    }
}
