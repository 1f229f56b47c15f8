//! How a cluster comes into being, and why a wiped disk cannot vote (DESIGN §8).
//!
//! A member that starts on an empty directory writes a random *directory id* first. It counts for nothing until every
//! other initial member has answered, to this very id, either "empty too, and my id is x" or "founded, and your
//! id is on record"; then it records all ids durably, as the group's first configuration, and only after that
//! does it vote or acknowledge. So a member whose disk was wiped finds at least one member that has its old
//! id on record, and stays out until it is added again (catalogue 48). An answer is worth something only if the
//! replier's *record of ids* is what it speaks from, never the mere emptiness of its log (catalogue 53).
//!
//! Always: what is recorded never changes here; a record that some founded member already holds is adopted whole
//! rather than rebuilt from what was heard. Left out: durability, which the shard sees to, and later changes
//! of the configuration.

use crate::ids::{BootMicros, ClusterId, DirectoryId, MemberId};
use crate::{planted, sometimes};
use std::collections::BTreeMap;

/// The directory id of every initial member.
pub(super) type Record = BTreeMap<MemberId, DirectoryId>;

/// What one member says of itself; question and answer have the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// The speaker's directory id.
    pub(super) directory: DirectoryId,
    /// The listener's directory id as the speaker has heard it; 0 for not yet.
    pub(super) your_directory: DirectoryId,
    /// The speaker's durable record, if it is founded.
    pub(super) record: Option<Record>,
}

/// The state of a member that is not founded yet.
#[derive(Debug)]
pub(super) struct Bootstrap {
    me: MemberId,
    directory: DirectoryId,
    /// What each other initial member last said.
    heard: BTreeMap<MemberId, Option<Heard>>,
    next_hello: BootMicros,
    hello_micros: u64,
}

/// Where the founding stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not every initial member has answered yet.
    WaitingFor(Vec<MemberId>),
    /// A founded member knows this one under another directory id: its disk was wiped, or it is somebody else.
    Foreign {
        /// Who says so.
        by: MemberId,
    },
    /// Founded members disagree on the record, or it names other members; a person must look.
    Disagreement,
    /// Everything is known: this record may be made durable.
    Complete(Record),
}

impl Bootstrap {
    /// Starts from a directory that has an id and no record.
    pub(super) fn new(
        me: MemberId,
        directory: DirectoryId,
        members: &[MemberId],
        now: BootMicros,
        hello_micros: u64,
    ) -> Self {
        let heard = members.iter().filter(|member| **member != me).map(|member| (*member, None)).collect();
        Self { me, directory, heard, next_hello: now, hello_micros }
    }

    /// Takes in what `from` said. A stranger's word is dropped.
    pub(super) fn hear(&mut self, from: MemberId, heard: Heard) {
        if let Some(slot) = self.heard.get_mut(&from) {
            *slot = Some(heard);
        }
    }

    /// The members to say hello to now, each with the directory id we know it by.
    pub(super) fn hellos_due(&mut self, now: BootMicros) -> Vec<(MemberId, DirectoryId)> {
        if now < self.next_hello {
            return Vec::new();
        }
        self.next_hello = now.after(self.hello_micros);
        self.heard
            .iter()
            .map(|(member, heard)| (*member, heard.as_ref().map_or(DirectoryId(0), |heard| heard.directory)))
            .collect()
    }

    /// When `hellos_due` has something to say again.
    pub(super) fn deadline(&self) -> BootMicros {
        self.next_hello
    }

    /// Where the founding stands, from all that was heard.
    pub(super) fn progress(&self) -> Progress {
        let mut waiting = Vec::new();
        let mut built = Record::from([(self.me, self.directory)]);
        let mut adopted: Option<&Record> = None;
        for (member, heard) in &self.heard {
            let Some(heard) = heard else {
                waiting.push(*member);
                continue;
            };
            built.insert(*member, heard.directory);
            if let Some(record) = &heard.record {
                if record.get(&self.me) != Some(&self.directory) && !planted!(48) {
                    sometimes!(WipedMemberRefused);
                    return Progress::Foreign { by: *member };
                }
                let is_of_the_same_members = record.len() == self.heard.len() + 1
                    && self.heard.keys().all(|id| record.contains_key(id));
                if adopted.is_some_and(|other| other != record) || !is_of_the_same_members {
                    return Progress::Disagreement;
                }
                adopted = Some(record);
            }
            if heard.your_directory != self.directory && heard.record.is_none() {
                waiting.push(*member);
            }
        }
        if !waiting.is_empty() {
            return Progress::WaitingFor(waiting);
        }
        if adopted.is_some() {
            sometimes!(FounderAdoptedRecord);
        }
        Progress::Complete(adopted.cloned().unwrap_or(built))
    }
}

/// The cluster id that follows from a record: the same on every member, different for every founding.
pub(super) fn cluster_id(record: &Record) -> ClusterId {
    let mut hash = 0x6d61_696e_7374_6179_u64;
    for (member, directory) in record {
        for word in [member.0, directory.0] {
            hash = mix(hash ^ word);
        }
    }
    ClusterId(hash.max(1))
}

/// A bijective scramble of 64 bits (the finaliser of the `SplitMix64` generator), so that near inputs give far outputs.
pub(super) fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];

    fn first() -> Bootstrap {
        Bootstrap::new(MemberId(1), DirectoryId(11), &MEMBERS, BootMicros(0), 1_000)
    }

    fn empty(directory: u64, yours: u64) -> Heard {
        Heard { directory: DirectoryId(directory), your_directory: DirectoryId(yours), record: None }
    }

    fn founded(directory: u64, record: [(u64, u64); 3]) -> Heard {
        let record = record.into_iter().map(|(member, id)| (MemberId(member), DirectoryId(id))).collect();
        Heard { directory: DirectoryId(directory), your_directory: DirectoryId(0), record: Some(record) }
    }

    #[test]
    fn an_answer_to_another_id_counts_for_nothing() {
        let mut bootstrap = first();
        bootstrap.hear(MemberId(2), empty(22, 11));
        bootstrap.hear(MemberId(3), empty(33, 99));
        assert_eq!(bootstrap.progress(), Progress::WaitingFor(vec![MemberId(3)]));
    }

    #[test]
    fn all_answers_make_the_same_record_everywhere() {
        let mut bootstrap = first();
        bootstrap.hear(MemberId(2), empty(22, 11));
        bootstrap.hear(MemberId(3), empty(33, 11));
        let mut other = Bootstrap::new(MemberId(2), DirectoryId(22), &MEMBERS, BootMicros(0), 1_000);
        other.hear(MemberId(1), empty(11, 22));
        other.hear(MemberId(3), founded(33, [(1, 11), (2, 22), (3, 33)]));
        let (Progress::Complete(one), Progress::Complete(two)) = (bootstrap.progress(), other.progress())
        else {
            panic!("both have every answer");
        };
        assert_eq!(one, two);
        assert_eq!(cluster_id(&one), cluster_id(&two));
    }

    #[test]
    fn a_wiped_member_is_told_that_it_is_foreign() {
        let mut bootstrap = first();
        bootstrap.hear(MemberId(2), empty(22, 11));
        bootstrap.hear(MemberId(3), founded(33, [(1, 10), (2, 22), (3, 33)]));
        assert_eq!(bootstrap.progress(), Progress::Foreign { by: MemberId(3) });
    }

    #[test]
    fn a_single_member_founds_alone() {
        let bootstrap = Bootstrap::new(MemberId(1), DirectoryId(11), &[MemberId(1)], BootMicros(0), 1_000);
        assert!(matches!(bootstrap.progress(), Progress::Complete(_)));
    }
}
