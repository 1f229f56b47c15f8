//! Who leads an election, or holds a lock, one after the other.
//!
//! Always: whoever led at any revision since the first answer is told, in order, also one that led for an instant, and so
//! is each change of what a leader proclaims; a connection that is lost takes nothing away. Only what was compacted while
//! nobody served the watch may be passed over. Left out: who leads while nobody does; that is not told.

use super::blocking::Client;
use super::lock::{NotHeld, by_age, is_candidate, under};
use super::watcher::{WatchEvent, Watcher};
use crate::kv::{Event, KeyValue, Range, SortOrder};
use crate::watch::{Interest, WatchSpec};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The leaders of one election, as they follow each other.
#[derive(Debug)]
pub struct Observer {
    line: Line,
    watcher: Watcher,
    /// Leaders that are not told yet.
    next: VecDeque<KeyValue>,
}

/// The candidates of one election at one revision.
#[derive(Debug)]
struct Line {
    name: Bytes,
    candidates: BTreeMap<Bytes, KeyValue>,
    /// Who led last, while somebody does.
    leader: Option<KeyValue>,
}

impl Client {
    /// Begins to observe an election or a lock: who leads now is the first that is told.
    ///
    /// # Errors
    /// The read was not served.
    pub fn observe(&mut self, name: &Bytes) -> Result<Observer, NotHeld> {
        let (line, watcher, next) = self.read_line(name)?;
        Ok(Observer { line, watcher, next: next.into_iter().collect() })
    }

    fn read_line(&mut self, name: &Bytes) -> Result<(Line, Watcher, Option<KeyValue>), NotHeld> {
        let range = Range { sort: Some(by_age(SortOrder::Ascending)), ..Range::new(under(name)) };
        let (revision, found) = self.candidates(name, &range, usize::MAX)?;
        let candidates = found.into_iter().map(|pair| (pair.key.clone(), pair)).collect();
        let mut line = Line { name: name.clone(), candidates, leader: None };
        let next = line.next_leader();
        let interest = Interest::all(under(name));
        Ok((line, self.watch(WatchSpec { interest, start: revision.next(), wants_progress: false }), next))
    }
}

impl Observer {
    /// Who leads next, or what the leader proclaims next: the pair of its key. Awaited `patience` at the most; `None` if
    /// nothing changed.
    ///
    /// # Errors
    /// The cluster refuses to tell, or, after a compaction that passed something over, the read was not served.
    pub fn next(&mut self, client: &mut Client, patience: Duration) -> Result<Option<KeyValue>, NotHeld> {
        if let Some(leader) = self.next.pop_front() {
            return Ok(Some(leader));
        }
        match self.watcher.next(patience).map_err(NotHeld::Unserved)? {
            Some(WatchEvent::Told(told)) => self.next.extend(self.line.follow(told.events)),
            Some(WatchEvent::Compacted { .. }) => {
                let told = self.line.leader.take();
                let (line, watcher, next) = client.read_line(&self.line.name)?;
                (self.line, self.watcher) = (line, watcher);
                self.next.extend(next.filter(|leader| Some(leader) != told.as_ref()));
            }
            // It goes on elsewhere.
            Some(WatchEvent::At { .. } | WatchEvent::Lost { .. }) | None => {}
        }
        Ok(self.next.pop_front())
    }
}

impl Line {
    /// Takes in whole revisions of events; who leads after each of them, where that is new.
    fn follow(&mut self, events: Vec<Event>) -> Vec<KeyValue> {
        let mut leaders = Vec::new();
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            let revision = event.pair.mod_revision;
            if !event.is_deletion && is_candidate(&self.name, &event.pair) {
                self.candidates.insert(event.pair.key.clone(), event.pair);
            } else {
                self.candidates.remove(&event.pair.key);
            }
            // All that one revision changes is one step.
            if events.peek().is_none_or(|next| next.pair.mod_revision != revision) {
                leaders.extend(self.next_leader());
            }
        }
        leaders
    }

    /// Who leads, if that is another, or proclaims something else, than before.
    fn next_leader(&mut self) -> Option<KeyValue> {
        let leader = self.candidates.values().min_by_key(|pair| pair.create_revision).cloned();
        let is_new = leader != self.leader;
        self.leader.clone_from(&leader);
        leader.filter(|_| is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaseId, Revision};

    fn pair(lease: u64, created: u64, changed: u64, value: &'static str) -> KeyValue {
        KeyValue {
            key: Bytes::from(format!("post/{lease:x}")),
            value: value.into(),
            create_revision: Revision(created),
            mod_revision: Revision(changed),
            version: 1,
            lease: LeaseId(lease),
        }
    }

    fn put(pair: KeyValue) -> Event {
        Event { pair, is_deletion: false, previous: None }
    }

    fn end(lease: u64, revision: u64) -> Event {
        let pair = KeyValue { lease: LeaseId(0), value: Bytes::new(), ..pair(lease, 0, revision, "") };
        Event { pair, is_deletion: true, previous: None }
    }

    fn led(line: &mut Line, events: Vec<Event>) -> Vec<Bytes> {
        line.follow(events).into_iter().map(|leader| leader.value).collect()
    }

    fn empty() -> Line {
        Line { name: "post".into(), candidates: BTreeMap::new(), leader: None }
    }

    #[test]
    fn whoever_led_for_an_instant_is_told_and_a_proclamation_too() {
        let mut line = empty();
        let events = vec![
            put(pair(10, 2, 2, "ten")),
            put(pair(7, 3, 3, "seven")),
            put(pair(10, 2, 4, "still ten")),
            end(10, 5),
            end(7, 6),
            put(pair(8, 7, 7, "eight")),
        ];
        assert_eq!(led(&mut line, events), ["ten", "still ten", "seven", "eight"]);
        assert!(led(&mut line, vec![put(pair(9, 8, 8, "nine")), end(9, 9)]).is_empty(), "it only waited");
    }

    #[test]
    fn what_one_revision_changes_is_one_step() {
        let mut line = empty();
        led(
            &mut line,
            vec![put(pair(1, 2, 2, "one")), put(pair(2, 3, 3, "two")), put(pair(3, 4, 4, "three"))],
        );
        assert_eq!(led(&mut line, vec![end(1, 5), end(2, 5)]), ["three"], "two was never the oldest");
    }

    #[test]
    fn a_key_that_is_not_called_after_its_lease_is_no_candidate() {
        let mut line = empty();
        let stranger = KeyValue { key: "post/more".into(), ..pair(1, 2, 2, "stranger") };
        assert_eq!(led(&mut line, vec![put(stranger), put(pair(2, 3, 3, "two"))]), ["two"]);
    }
}
