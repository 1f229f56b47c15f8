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
use mainstay::api::{EncodedCommand, Otherwise, ReadMode, Refusal, Request, Response, Stamp};
use mainstay::ids::{KeyspaceId, Revision, SessionId};
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
        let read = |key, mode| Request::Read { keyspace, query: Query::Range(whole(key)), mode };
        let put = |key| Put::new(key, self.material.value(operation).clone());
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
            Act::Get => read(key, ReadMode::Linearizable),
            Act::GetSerializable => read(key, ReadMode::Serializable),
            Act::GetMaxAge(max_age_ms) => {
                read(key, ReadMode::MaxAge { max_age_ms, otherwise: Otherwise::AskLeader })
            }
            Act::GetMinRevision => {
                read(key, ReadMode::MinRevision { revision: Revision(1), otherwise: Otherwise::AskLeader })
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
            Response::Applied(applied) | Response::Aged { applied, .. } => match applied.outcome {
                Outcome::Refused(refusal) => Err(Cow::from(format!("store: {refusal:?}"))),
                Outcome::Put(_)
                | Outcome::DeleteRange(_)
                | Outcome::Txn(_)
                | Outcome::Range(_)
                | Outcome::Compacted
                | Outcome::Lease(_)
                | Outcome::SpaceAlarm(_) => Ok(()),
            },
            Response::Refused(refusal) => Err(Cow::from(word(refusal))),
            Response::SessionOpened { .. }
            | Response::SessionClosed
            | Response::Status(_)
            | Response::Snapshot(_)
            | Response::Users { .. }
            | Response::Watch(_) => Err(Cow::from("an answer of another kind")),
        };
        Ok(Answer { number: frame.request, result })
    }
}

impl Conversation for NativeConversation {
    fn begin(&mut self, out: &mut Vec<u8>) {
        let hello = ClientHello {
            version_min: VERSION,
            version_max: VERSION,
            features: Features::KNOWN,
            cluster: None,
        };
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

fn whole(key: Bytes) -> Range {
    Range::new(KeyRange::Key(key))
}

/// The stable word for a refusal, without whom it names.
fn word(refusal: Refusal) -> String {
    let words = format!("{refusal:?}");
    words.split([' ', '{', '(']).next().unwrap_or(&words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        Act, Answer, Broken, BytesMut, Conversation, Features, Frame, Material, NativeConversation,
        Operation, Receiver, Refusal, Request, Response, ServerHello, SessionId, VERSION, decode_frame,
    };
    use mainstay::api::native::{decode_request, encode_refusal_frame, encode_response_frame};
    use mainstay::ids::{ClusterId, MemberId};
    use mainstay::kv::{Applied, Command, Outcome, PutResult};

    fn hello() -> ServerHello {
        ServerHello {
            version: VERSION,
            cluster: ClusterId(1),
            member: MemberId(2),
            features: Features(0),
            request_bytes_max: 1 << 20,
            response_bytes_max: 1 << 20,
            key_bytes_max: 1 << 10,
            txn_operations_max: 8,
            requests_in_flight_max: 2,
            sequence_window: 4,
        }
    }

    fn heard(
        conversation: &mut NativeConversation,
        bytes: &[u8],
    ) -> Result<(Vec<Frame>, Vec<Answer>), Broken> {
        let (mut out, mut answers) = (Vec::new(), Vec::new());
        conversation.receive(&mut BytesMut::from(bytes), &mut out, &mut answers)?;
        Ok((frames_in(&out), answers))
    }

    fn frames_in(bytes: &[u8]) -> Vec<Frame> {
        let mut bytes = BytesMut::from(bytes);
        std::iter::from_fn(|| decode_frame(&mut bytes, Receiver::Server).expect("frames of ours")).collect()
    }

    fn ready() -> NativeConversation {
        let mut conversation = NativeConversation::new(Material::new(256), true);
        conversation.begin(&mut Vec::new());
        let said = heard(&mut conversation, &hello().encode_frame()).expect("it goes on").0;
        let asked = decode_request(&said[0]).expect("a request");
        assert!(matches!(asked, Request::OpenSession { .. }) && !conversation.is_ready());
        let opened = Response::SessionOpened { session: SessionId(77) };
        heard(&mut conversation, &encode_response_frame(said[0].request, &opened)).expect("it goes on");
        assert!(conversation.is_ready());
        conversation
    }

    fn send(conversation: &mut NativeConversation, number: u64, answered_up_to: u64, act: Act) -> Request {
        let mut out = Vec::new();
        conversation.send(&Operation { number, act, key: 5, answered_up_to }, &mut out);
        decode_request(&frames_in(&out)[0]).expect("a request")
    }

    #[test]
    fn writes_carry_the_stamp_of_the_connections_session() {
        let mut conversation = ready();
        match send(&mut conversation, 9, 6, Act::Put) {
            Request::Write { stamp: Some(stamp), command, .. } => {
                assert_eq!((stamp.session, stamp.sequence, stamp.low_water), (SessionId(77), 9, 6));
                assert!(matches!(command.command(), Command::Put(put) if put.key == "k00000005"));
            }
            other => panic!("a stamped write was expected: {other:?}"),
        }
        assert!(matches!(send(&mut conversation, 10, 6, Act::Get), Request::Read { .. }));
    }

    #[test]
    fn no_more_is_sent_than_the_member_and_the_session_allow() {
        let mut conversation = ready();
        assert!(conversation.has_room(4, 0) && !conversation.has_room(5, 0), "the window is 4");
        send(&mut conversation, 1, 0, Act::Put);
        assert!(conversation.has_room(2, 0));
        send(&mut conversation, 2, 0, Act::Put);
        assert!(!conversation.has_room(3, 2), "two may be in flight");
    }

    #[test]
    fn answers_are_told_from_refusals_and_a_refused_connection_ends() {
        let mut conversation = ready();
        let applied =
            Applied { revision: super::Revision(3), outcome: Outcome::Put(PutResult { previous: None }) };
        let mut bytes = encode_response_frame(4, &Response::Applied(applied)).to_vec();
        let refusal = Refusal::NotLeader { leader: Some(MemberId(1)) };
        bytes.extend_from_slice(&encode_response_frame(3, &Response::Refused(refusal)));
        let answers = heard(&mut conversation, &bytes).expect("it goes on").1;
        assert_eq!(answers[0], Answer { number: 4, result: Ok(()) });
        assert_eq!(answers[1], Answer { number: 3, result: Err("NotLeader".into()) });
        let end = encode_refusal_frame(0, Refusal::Malformed, "no");
        assert!(heard(&mut conversation, &end).is_err());
        assert!(heard(&mut conversation, b"GET / HTTP/1.1\r\n\r\n        ").is_err());
    }
}
