//! How a cluster comes into being, and why a wiped disk cannot vote (DESIGN §8).
//!
//! A member that starts on an empty directory writes a random *directory id* first. It counts for nothing until every
//! other initial member has answered, to this very id, either "empty too, and I know these ids" or "founded, and your
//! id is on record"; then it records all ids durably, as the group's first configuration, and only after that
//! does it vote or acknowledge. So a member whose disk was wiped finds at least one member that has its old
//! id on record, and stays out until it is added again (catalogue 48). An answer is worth something only if the
//! replier's *record of ids* is what it speaks from, never the mere emptiness of its log (catalogue 53).
//!
//! As long as nobody is founded, all must know the same ids. Otherwise a disk that is lost while some are founded
//! and others are not would split the members by which of its two ids they had heard. With this rule nobody can be
//! split off: whoever records a set of ids has heard every other say that it knows this very set. If two recorded
//! different sets, each would have known the other's before its own, and so one of them would have gone from the newer
//! id of some member back to an older one. It cannot have, because nothing that a member said in an earlier life is
//! heard after what it says in a later one: connections end with the life of either end, and who connects again is no
//! longer heard on an older connection (`server/peers.rs`).
//!
//! Always: what is recorded never changes here; a record that some founded member already holds is adopted whole
//! rather than rebuilt from what was heard. Left out: durability, which the shard sees to, and later changes
//! of the configuration.

use crate::ids::{BootMicros, ClusterId, DirectoryId, MemberId};
use crate::{planted, sometimes};
use std::collections::BTreeMap;
use wal_format::{Configuration, Member, MemberKind};

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
    /// If it is not: the ids it knows, its own among them.
    pub(super) known: Record,
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
    /// Not every initial member has answered yet, or not all know the same ids.
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

    /// Takes in what `from` said. A stranger's word is dropped. Whoever learns of an id tells the others at once.
    pub(super) fn hear(&mut self, from: MemberId, heard: Heard) {
        if let Some(slot) = self.heard.get_mut(&from) {
            if slot.as_ref().map(|known| known.directory) != Some(heard.directory) {
                self.next_hello = BootMicros(0);
            }
            *slot = Some(heard);
        }
    }

    /// The ids of all members heard, and our own.
    pub(super) fn known(&self) -> Record {
        let heard =
            self.heard.iter().filter_map(|(member, heard)| Some((*member, heard.as_ref()?.directory)));
        heard.chain([(self.me, self.directory)]).collect()
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
        let known = self.known();
        let mut adopted: Option<&Record> = None;
        for (member, heard) in &self.heard {
            let Some(heard) = heard else {
                waiting.push(*member);
                continue;
            };
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
        if waiting.is_empty() && adopted.is_none() && !planted!(106) {
            let knows_others = |heard: &Heard| heard.known != known;
            let others = self.heard.iter().filter(|(_, heard)| heard.as_ref().is_some_and(knows_others));
            waiting.extend(others.map(|(member, _)| *member));
        }
        if !waiting.is_empty() {
            return Progress::WaitingFor(waiting);
        }
        if adopted.is_some() {
            sometimes!(FounderAdoptedRecord);
        }
        Progress::Complete(adopted.cloned().unwrap_or(known))
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

/// The configuration that a founding makes: it stands before the first entry of the log.
pub(super) fn first_configuration(record: &Record) -> Configuration {
    let mut configuration = Configuration::default();
    for (member, directory) in record {
        configuration.members.push(Member {
            id: member.0,
            directory: directory.0,
            kind: MemberKind::Voter,
            name: String::new(),
            address: String::new(),
        });
    }
    configuration
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];

    fn first() -> Bootstrap {
        Bootstrap::new(MemberId(1), DirectoryId(11), &MEMBERS, BootMicros(0), 1_000)
    }

    fn ids(directories: &[u64]) -> Record {
        (1..).zip(directories).map(|(member, id)| (MemberId(member), DirectoryId(*id))).collect()
    }

    /// Of a member that is not founded and knows these ids of members 1, 2 and 3.
    fn empty(directory: u64, yours: u64, known: &[u64]) -> Heard {
        Heard {
            directory: DirectoryId(directory),
            your_directory: DirectoryId(yours),
            record: None,
            known: ids(known),
        }
    }

    fn founded(directory: u64, record: &[u64]) -> Heard {
        Heard {
            directory: DirectoryId(directory),
            your_directory: DirectoryId(0),
            record: Some(ids(record)),
            known: Record::new(),
        }
    }

    #[test]
    fn an_answer_to_another_id_counts_for_nothing() {
        let mut bootstrap = first();
        bootstrap.hear(MemberId(2), empty(22, 11, &[11, 22, 33]));
        bootstrap.hear(MemberId(3), empty(33, 99, &[99, 22, 33]));
        assert_eq!(bootstrap.progress(), Progress::WaitingFor(vec![MemberId(3)]));
    }

    #[test]
    fn all_answers_make_the_same_record_everywhere() {
        let mut bootstrap = first();
        bootstrap.hear(MemberId(2), empty(22, 11, &[11, 22, 33]));
        bootstrap.hear(MemberId(3), empty(33, 11, &[11, 22, 33]));
        let mut other = Bootstrap::new(MemberId(2), DirectoryId(22), &MEMBERS, BootMicros(0), 1_000);
        other.hear(MemberId(1), empty(11, 22, &[11]));
        other.hear(MemberId(3), founded(33, &[11, 22, 33]));
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
        bootstrap.hear(MemberId(2), empty(22, 11, &[11, 22]));
        bootstrap.hear(MemberId(3), founded(33, &[10, 22, 33]));
        assert_eq!(bootstrap.progress(), Progress::Foreign { by: MemberId(3) });
    }

    #[test]
    fn a_disk_lost_while_some_are_founded_splits_nobody_off() {
        // Member 1 has heard all; then the disk of 3 is lost, and it is heard under another id.
        let mut bootstrap = first();
        bootstrap.hear(MemberId(3), empty(33, 11, &[11, 22, 33]));
        bootstrap.hear(MemberId(3), empty(34, 11, &[11, 22, 34]));
        // What 2 said before it was founded comes only now. It knew the old disk.
        bootstrap.hear(MemberId(2), empty(22, 11, &[11, 22, 33]));
        assert_eq!(bootstrap.progress(), Progress::WaitingFor(vec![MemberId(2)]));
        bootstrap.hear(MemberId(2), founded(22, &[11, 22, 33]));
        assert_eq!(bootstrap.progress(), Progress::Complete(ids(&[11, 22, 33])));
    }

    #[test]
    fn a_new_id_is_told_at_once() {
        let mut bootstrap = first();
        assert_eq!(bootstrap.hellos_due(BootMicros(0)).len(), 2);
        bootstrap.hear(MemberId(2), empty(22, 11, &[11, 22]));
        assert_eq!(bootstrap.hellos_due(BootMicros(1)).len(), 2);
        bootstrap.hear(MemberId(2), empty(22, 11, &[11, 22, 33]));
        assert_eq!(bootstrap.hellos_due(BootMicros(2)), []);
    }

    #[test]
    fn a_single_member_founds_alone() {
        let bootstrap = Bootstrap::new(MemberId(1), DirectoryId(11), &[MemberId(1)], BootMicros(0), 1_000);
        assert!(matches!(bootstrap.progress(), Progress::Complete(_)));
    }
}
