//! When each operation is due, and which connection may send one now. A pure calculation: the time is handed in.
//!
//! In an open loop operation `n` is due at `n / rate`, whatever became of the ones before it, and goes to lane
//! `n % lanes`. A lane has at most `depth` operations unanswered; what is due beyond that waits, and **its latency
//! counts from when it was due**. So a server that stands still for a second is seen by every operation of that second
//! and not by `depth` of them alone (coordinated omission). In a closed loop a lane's next operation is due as soon
//! as it has room for one. What always holds: nothing is taken before it is due, and nothing due is skipped.

/// Nanoseconds since the start of the load.
pub(crate) type Nanos = u64;

const SECOND: u128 = 1_000_000_000;

/// How operations become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Whenever a lane has room.
    Closed,
    /// So many a second over all lanes, evenly.
    Open {
        /// Operations a second.
        rate: u64,
    },
}

/// The schedule of one load.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    depth: u64,
    start: Nanos,
    /// Operations that have become due over all lanes; open loops only.
    released: u64,
    lanes: Vec<Lane>,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    released: u64,
    taken: u64,
    in_flight: u64,
}

impl Pacer {
    /// A schedule for `lanes_count` connections that begins at `start`.
    pub(crate) fn new(pace: Pace, lanes_count: usize, depth: u64, start: Nanos) -> Self {
        assert!(lanes_count > 0 && depth > 0, "somebody sends something");
        Self { pace, depth, start, released: 0, lanes: vec![Lane::default(); lanes_count] }
    }

    /// Notes what has become due by `now` and names each lane concerned, once for every operation.
    pub(crate) fn release(&mut self, now: Nanos, mut each: impl FnMut(usize)) {
        while self.next_due().is_some_and(|due| due <= now) {
            let lane = self.lane_of(self.released);
            self.lanes[lane].released += 1;
            self.released += 1;
            each(lane);
        }
    }

    /// When the next operation becomes due; `None` in a closed loop.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        match self.pace {
            Pace::Closed => None,
            Pace::Open { rate } => Some(self.due(self.released, rate)),
        }
    }

    /// Takes one operation for `lane`, if one is due and there is room: when it was due, from which its latency counts.
    pub(crate) fn take(&mut self, lane: usize, now: Nanos) -> Option<Nanos> {
        let lanes_count = self.lanes.len() as u64;
        let state = &self.lanes[lane];
        if state.in_flight >= self.depth {
            return None;
        }
        let due = match self.pace {
            Pace::Closed => now,
            Pace::Open { .. } if state.taken == state.released => return None,
            Pace::Open { rate } => self.due(state.taken * lanes_count + lane as u64, rate),
        };
        let state = &mut self.lanes[lane];
        state.taken += 1;
        state.in_flight += 1;
        self.assert_invariants(lane);
        Some(due)
    }

    /// `count` operations of `lane` have come to an end, well or badly.
    pub(crate) fn ended(&mut self, lane: usize, count: u64) {
        self.lanes[lane].in_flight -= count;
    }

    /// When each operation was due that is due and was not taken.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Nanos> + '_ {
        let lanes_count = self.lanes.len() as u64;
        self.lanes.iter().enumerate().flat_map(move |(lane, state)| {
            (state.taken..state.released).filter_map(move |number| match self.pace {
                Pace::Closed => None,
                Pace::Open { rate } => Some(self.due(number * lanes_count + lane as u64, rate)),
            })
        })
    }

    fn due(&self, number: u64, rate: u64) -> Nanos {
        let after = u128::from(number) * SECOND / u128::from(rate);
        self.start + Nanos::try_from(after).unwrap_or(Nanos::MAX / 2)
    }

    fn lane_of(&self, number: u64) -> usize {
        usize::try_from(number % self.lanes.len() as u64).expect("a remainder is below the number of lanes")
    }

    fn assert_invariants(&self, lane: usize) {
        let state = &self.lanes[lane];
        assert!(state.in_flight <= self.depth, "a lane has at most `depth` operations unanswered");
        assert!(
            self.pace == Pace::Closed || state.taken <= state.released,
            "nothing is taken before it is due"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Nanos, Pace, Pacer};
    use hdrhistogram::Histogram;

    const MS: Nanos = 1_000_000;

    /// Runs a made-up server that answers after 1 ms, except that it stands still between 1 s and 2 s of three.
    fn latencies_over_a_stall(pace: Pace) -> Histogram<u64> {
        let mut pacer = Pacer::new(pace, 4, 2, 0);
        let mut latencies = Histogram::new(3).expect("three digits");
        let mut in_flight: Vec<(usize, Nanos, Nanos)> = Vec::new();
        for now in (0..3_000 * MS).step_by(100_000) {
            pacer.release(now, |_| ());
            let stands = (1_000 * MS..2_000 * MS).contains(&now);
            in_flight.retain(|&(lane, due, sent)| {
                let is_answered = !stands && now >= sent + MS;
                if is_answered {
                    latencies.record(now - due).expect("it resizes");
                    pacer.ended(lane, 1);
                }
                !is_answered
            });
            for lane in 0..4 {
                while let Some(due) = pacer.take(lane, now) {
                    in_flight.push((lane, due, now));
                }
            }
        }
        latencies
    }

    #[test]
    fn every_operation_of_a_stall_sees_it_in_an_open_loop() {
        let latencies = latencies_over_a_stall(Pace::Open { rate: 1_000 });
        // A third of all operations was due while the server stood, and they waited half a second on average.
        assert!(latencies.len() >= 2_990, "{} operations", latencies.len());
        assert!(latencies.value_at_quantile(0.5) < 200 * MS);
        assert!(latencies.value_at_quantile(0.85) > 400 * MS);
        assert!(latencies.value_at_quantile(0.98) > 900 * MS);
    }

    #[test]
    fn a_closed_loop_hides_the_same_stall_which_is_why_there_is_an_open_one() {
        let latencies = latencies_over_a_stall(Pace::Closed);
        assert!(latencies.value_at_quantile(0.99) < 2 * MS);
        assert!(latencies.max() > 900 * MS);
    }

    #[test]
    fn operations_are_due_evenly_and_go_round_the_lanes() {
        let mut pacer = Pacer::new(Pace::Open { rate: 3 }, 2, 10, 500);
        let mut lanes = Vec::new();
        pacer.release(500 + 1_000 * MS, |lane| lanes.push(lane));
        assert_eq!(lanes, [0, 1, 0, 1]);
        assert_eq!(pacer.next_due(), Some(500 + 1_333_333_333));
        let dues: Vec<_> = [0, 1, 0, 1].map(|lane| pacer.take(lane, 0)).into_iter().flatten().collect();
        assert_eq!(dues, [500, 500 + 333_333_333, 500 + 666_666_666, 500 + 1_000 * MS]);
        assert_eq!(pacer.take(0, Nanos::MAX), None, "nothing more is due");
    }

    #[test]
    fn what_is_due_and_finds_no_room_waits_and_is_not_forgotten() {
        let mut pacer = Pacer::new(Pace::Open { rate: 1_000 }, 1, 1, 0);
        pacer.release(3 * MS, |_| ());
        assert_eq!(pacer.take(0, 3 * MS), Some(0));
        assert_eq!(pacer.take(0, 3 * MS), None, "one is unanswered");
        assert_eq!(pacer.waiting().collect::<Vec<_>>(), [MS, 2 * MS, 3 * MS]);
        pacer.ended(0, 1);
        assert_eq!(pacer.take(0, 9 * MS), Some(MS));
    }
}
