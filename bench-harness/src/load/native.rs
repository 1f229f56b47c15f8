//! The native protocol as a load speaks it: hello, one session a connection if it writes, then requests side by side.
//!
//! Writes carry the stamps that real clients put on them: the sequence of a write is its operation's number, and the
//! low-water mark is the number up to which everything was answered. What it leaves out: retries. A refusal is the end
//! of its operation, and is counted.

use super::conversation::{Act, Answer, Broken, Conversation, Material, Operation, key};
use bytes::{Bytes, BytesMut};
use mainstay::api::native::{
    ClientHello, Features, Frame, Receiver, ServerHello, VERSION, decode_frame, decode_response_frame,
    encode_request_frame, kind,
};
use mainstay::api::{EncodedCommand, ReadMode, Refusal, Request, Response, Stamp};
use mainstay::ids::{KeyspaceId, LeaseId, Revision, SessionId};
use mainstay::kv::{
    Command, Compare, CompareOperator, CompareTarget, KeyRange, Operation as Step, Outcome, Put, Query,
    Range, Txn,
};
use std::borrow::Cow;
use std::rc::Rc;

/// The request that opens the session; operations count from 1 and never get here.
const OPENING: u64 = u64::MAX;

/// No key is ever at this revision.
const NEVER: Revision = Revision(1 << 62);

/// A native connection without its socket.
pub(crate) struct NativeConversation {
    material: Rc<Material>,
    stage: Stage,
    needs_session: bool,
    window: u64,
    in_flight: u64,
    in_flight_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    OpeningSession,
    Ready { session: Option<SessionId> },
}

impl NativeConversation {
    /// A conversation that opens a session if it is to write.
    pub(crate) fn new(material: Rc<Material>, needs_session: bool) -> Self {
        Self {
            material,
            stage: Stage::Greeting,
            needs_session,
            window: u64::MAX,
            in_flight: 0,
            in_flight_max: 1,
        }
    }

    fn request(&self, operation: &Operation) -> Request {
        let keyspace = KeyspaceId::FIRST;
        let key = Bytes::copy_from_slice(&key(operation.key));
        let put = |key| Put {
            key,
            value: self.material.value(operation).clone(),
            lease: LeaseId(0),
            wants_previous: false,
        };
        match operation.act {
            Act::Put => self.write(operation, &Command::Put(put(key))),
            Act::TxnCas => {
                let range = KeyRange::Key(key.clone());
                let target = CompareTarget::Mod(NEVER);
                let compare = Compare { range, operator: CompareOperator::NotEqual, target };
                let success = vec![Step::Put(put(key.clone()))];
                let failure = vec![Step::Range(whole(key))];
                self.write(operation, &Command::Txn(Txn { compares: vec![compare], success, failure }))
            }
            Act::Get => {
                Request::Read { keyspace, query: Query::Range(whole(key)), mode: ReadMode::Linearizable }
            }
            Act::GetSerializable => {
                Request::Read { keyspace, query: Query::Range(whole(key)), mode: ReadMode::Serializable }
            }
        }
    }

    fn write(&self, operation: &Operation, command: &Command) -> Request {
        let session = match self.stage {
            Stage::Ready { session } => session,
            Stage::Greeting | Stage::OpeningSession => None,
        };
        let stamp = session.map(|session| Stamp {
            session,
            sequence: operation.number,
            low_water: operation.answered_up_to,
        });
        let command = EncodedCommand::encode(command).expect("the length of values was checked at the start");
        Request::Write { keyspace: KeyspaceId::FIRST, stamp, command }
    }

    fn greeted(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), Broken> {
        if frame.kind == kind::REFUSED {
            return Err(Broken(format!("the member refuses the connection: {:?}", answer_of(frame)?)));
        }
        let hello = ServerHello::decode(frame).map_err(|malformed| Broken(malformed.to_string()))?;
        self.window = u64::from(hello.sequence_window);
        self.in_flight_max = u64::from(hello.requests_in_flight_max);
        self.stage = Stage::Ready { session: None };
        if self.needs_session {
            self.stage = Stage::OpeningSession;
            let request = Request::OpenSession { keyspace: KeyspaceId::FIRST };
            out.extend_from_slice(&encode_request_frame(OPENING, &request));
        }
        Ok(())
    }

    fn opened(&mut self, frame: &Frame) -> Result<(), Broken> {
        match answer_of(frame)? {
            Response::SessionOpened { session } => {
                self.stage = Stage::Ready { session: Some(session) };
                Ok(())
            }
            other => Err(Broken(format!("no session was opened: {other:?}"))),
        }
    }

    fn answered(&mut self, frame: &Frame) -> Result<Answer, Broken> {
        if frame.request == 0 {
            return Err(Broken(format!("the member ends the connection: {:?}", answer_of(frame)?)));
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let result = match answer_of(frame)? {
            Response::Applied(applied) => match applied.outcome {
                Outcome::Refused(refusal) => Err(Cow::from(format!("store: {refusal:?}"))),
                Outcome::Put(_) | Outcome::DeleteRange(_) | Outcome::Txn(_) | Outcome::Range(_) => Ok(()),
            },
            Response::Refused(refusal) => Err(Cow::from(word(refusal))),
            Response::SessionOpened { .. } | Response::SessionClosed | Response::Status(_) => {
                Err(Cow::from("an answer of another kind"))
            }
        };
        Ok(Answer { number: frame.request, result })
    }
}

impl Conversation for NativeConversation {
    fn begin(&mut self, out: &mut Vec<u8>) {
        let hello =
            ClientHello { version_min: VERSION, version_max: VERSION, features: Features(0), cluster: None };
        out.extend_from_slice(&hello.encode_frame());
    }

    fn is_ready(&self) -> bool {
        match self.stage {
            Stage::Ready { .. } => true,
            Stage::Greeting | Stage::OpeningSession => false,
        }
    }

    fn has_room(&self, number: u64, answered_up_to: u64) -> bool {
        self.in_flight < self.in_flight_max && number - answered_up_to <= self.window
    }

    fn send(&mut self, operation: &Operation, out: &mut Vec<u8>) {
        self.in_flight += 1;
        out.extend_from_slice(&encode_request_frame(operation.number, &self.request(operation)));
    }

    fn receive(
        &mut self,
        received: &mut BytesMut,
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Broken> {
        while let Some(frame) =
            decode_frame(received, Receiver::Client).map_err(|damage| Broken(damage.to_string()))?
        {
            match self.stage {
                Stage::Greeting => self.greeted(&frame, out)?,
                Stage::OpeningSession => self.opened(&frame)?,
                Stage::Ready { .. } => answers.push(self.answered(&frame)?),
            }
        }
        Ok(())
    }
}

fn answer_of(frame: &Frame) -> Result<Response, Broken> {
    decode_response_frame(frame).map_err(|malformed| Broken(malformed.to_string()))
}

const fn whole(key: Bytes) -> Range {
    Range { range: KeyRange::Key(key), limit: 0, revision: Revision(0), keys_only: false, count_only: false }
}

/// The stable word for a refusal, without whom it names.
fn word(refusal: Refusal) -> String {
    let words = format!("{refusal:?}");
    words.split([' ', '{', '(']).next().unwrap_or(&words).to_owned()
}
