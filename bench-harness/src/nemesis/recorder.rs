//! What all clients did and were told, written down as it happens.
//!
//! What always holds: an invocation is on the record before anything of it is sent, and an answer only after it came, on one
//! line of time; with a file, whatever ends this program leaves a file that `judge-history` reads. What it leaves
//! out: what any of it means.

use mainstay::check::{Answer, Call, Operation, answer_line, invoke_line};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A history as it grows.
#[derive(Debug)]
pub(super) struct Recorder {
    epoch: Instant,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    history: Vec<Operation>,
    file: Option<File>,
    /// Why the file has an end before the history does.
    broken: Option<io::Error>,
}

impl Recorder {
    /// An empty history, which is written to `file`, if there is to be one, line by line.
    pub(super) fn new(file: Option<&Path>) -> io::Result<Self> {
        let file = file.map(File::create).transpose()?;
        let record = Mutex::new(Record { history: Vec::new(), file, broken: None });
        Ok(Self { epoch: super::now(), record })
    }

    /// Writes an invocation down; returns the number of the operation.
    pub(super) fn invoke(&self, client: u32, call: Call) -> usize {
        let mut record = self.record();
        let op = record.history.len();
        let operation =
            Operation { client, invoked: self.micros(), completed: None, call, answer: Answer::Unknown };
        record.write(|| invoke_line(op, &operation));
        record.history.push(operation);
        op
    }

    /// Writes down how operation `op` ended.
    pub(super) fn end(&self, op: usize, answer: Answer) {
        let mut record = self.record();
        let at = self.micros();
        record.write(|| answer_line(op, at, &answer));
        let operation = &mut record.history[op];
        operation.completed = (answer != Answer::Unknown).then_some(at);
        operation.answer = answer;
    }

    /// The history so far.
    pub(super) fn history(&self) -> Vec<Operation> {
        self.record().history.clone()
    }

    /// Why the file is not whole, if there is one and it is not.
    pub(super) fn broken(&self) -> Option<io::Error> {
        self.record().broken.take()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // A client that panicked left whole operations behind.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Record {
    fn write(&mut self, line: impl FnOnce() -> String) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = writeln!(file, "{}", line()) {
            self.file = None;
            self.broken = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recorder;
    use mainstay::check::{Answer, Call, from_lines};
    use mainstay::kv::{KeyRange, Query, Range};

    #[test]
    fn the_file_says_what_the_memory_holds() {
        let path = std::env::temp_dir().join(format!("mainstay-recorder-{}.jsonl", std::process::id()));
        let recorder = Recorder::new(Some(&path)).expect("a file");
        let query = Query::Range(Range::new(KeyRange::Key("k".into())));
        let read = || Call::Read { query: query.clone(), is_linearizable: true };
        let (first, second) = (recorder.invoke(1, read()), recorder.invoke(2, read()));
        recorder.end(second, Answer::NotDone);
        let text = std::fs::read_to_string(&path).expect("written");
        assert_eq!(
            from_lines(&text),
            Ok(recorder.history()),
            "an operation that has not ended is there, too"
        );
        recorder.end(first, Answer::Unknown);
        let text = std::fs::read_to_string(&path).expect("written");
        assert_eq!(from_lines(&text), Ok(recorder.history()));
        assert!(recorder.broken().is_none());
        std::fs::remove_file(path).expect("removed");
    }
}
