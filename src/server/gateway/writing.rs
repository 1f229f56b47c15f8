//! Writes of etcd clients: stamped by sessions of the gateway, and sent again until they are certain.
//!
//! Always: what is sent again carries its stamp, so it is applied once; once an attempt may have had an effect, no answer
//! says that nothing was done. Whoever gives up waiting is told that the outcome is unknown, as *unavailable*. Left out:
//! which stamp is the next (`stamps`).

use super::asking::asker;
use super::gate::{Gate, is_worth_a_retry};
use super::stamps::Taken;
use crate::api::etcd::{Fault, Standing};
use crate::api::{Certainty, EncodedCommand, Refusal, Request, Response, Stamp, UsersRequest};
use crate::auth::{AuthCommand, Who};
use crate::ids::{KeyspaceId, SessionId};
use crate::limits::{GATEWAY_PATIENCE_MILLIS, GATEWAY_RETRY_MILLIS};
use crate::replica::Input;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(GATEWAY_RETRY_MILLIS);

/// What is written.
#[derive(Clone, Debug)]
pub(super) enum Writing {
    Command(EncodedCommand),
    Users(AuthCommand),
}

/// A write that has a stamp, or none because no session has room. Dropped, nobody waits for it any more.
struct Stamped<'gate> {
    gate: &'gate Gate,
    stamp: Option<Stamp>,
}

impl Stamped<'_> {
    /// The stamp for the next attempt.
    fn stamp(&self) -> Option<Stamp> {
        self.stamp.map(|stamp| self.gate.stamps().renewed(stamp))
    }
}

impl Drop for Stamped<'_> {
    fn drop(&mut self) {
        if let Some(stamp) = self.stamp {
            self.gate.stamps().release(stamp);
        }
    }
}

/// Whoever was to open a session has gone, or is done: another may.
struct Opening<'gate> {
    gate: &'gate Gate,
    session: Option<SessionId>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.gate.stamps().opened(self.session);
        self.gate.stamps_changed.notify_waiters();
    }
}

/// What came of one attempt.
enum Attempt {
    Answered(Standing, Response),
    /// Another attempt may do better.
    Again,
    /// The session is gone, and nothing was done.
    SessionGone(SessionId),
}

/// What is known of a write while it is tried.
struct Outlook {
    /// Whether an attempt may have had an effect.
    is_doubtful: bool,
    /// What is said if patience ends now.
    last: Fault,
}

impl Outlook {
    /// What is said of `refusal`, if it is the end.
    fn fault(&self, refusal: Refusal) -> Fault {
        if self.is_doubtful { Fault::TimedOut } else { refusal.into() }
    }
}

impl Gate {
    /// Writes, once, and waits until that is certain or patience ends.
    pub(super) async fn write(
        &self,
        keyspace: KeyspaceId,
        writing: Writing,
    ) -> Result<(Standing, Response), Fault> {
        let mut outlook = Outlook { is_doubtful: false, last: Fault::TimedOut };
        let until_certain = async {
            loop {
                let stamped = self.stamped(keyspace).await?;
                if let Some(answered) = self.write_stamped(keyspace, &stamped, &writing, &mut outlook).await?
                {
                    return Ok(answered);
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_millis(GATEWAY_PATIENCE_MILLIS), until_certain).await;
        ended.unwrap_or(Err(outlook.last))
    }

    /// Tries under one stamp. None if the session is gone, and nothing was done.
    async fn write_stamped(
        &self,
        keyspace: KeyspaceId,
        stamped: &Stamped<'_>,
        writing: &Writing,
        outlook: &mut Outlook,
    ) -> Result<Option<(Standing, Response)>, Fault> {
        loop {
            match self.attempt(keyspace, stamped, writing, outlook).await? {
                Attempt::Answered(standing, response) => return Ok(Some((standing, response))),
                Attempt::Again => tokio::time::sleep(PAUSE).await,
                Attempt::SessionGone(session) => {
                    self.stamps().forget(session);
                    return Ok(None);
                }
            }
        }
    }

    async fn attempt(
        &self,
        keyspace: KeyspaceId,
        stamped: &Stamped<'_>,
        writing: &Writing,
        outlook: &mut Outlook,
    ) -> Result<Attempt, Fault> {
        let stamp = stamped.stamp();
        let sent = match writing {
            Writing::Command(command) => {
                self.send(Request::Write { keyspace, stamp, command: command.clone() })
            }
            Writing::Users(command) => {
                let (who, request) = (asker(), UsersRequest::Change { stamp, command: command.clone() });
                self.send_input(|ticket| Input::Users { ticket, who, request })
            }
        };
        let answer = sent.map_err(|fault| if outlook.is_doubtful { Fault::TimedOut } else { fault })?;
        // Until it is answered nobody knows what became of this attempt.
        let before = std::mem::replace(&mut outlook.last, Fault::TimedOut);
        let Ok((standing, response)) = answer.await else { return Err(Fault::Stopped) };
        let Response::Refused(refusal) = response else {
            return Ok(Attempt::Answered(standing, response));
        };
        if let (Refusal::SessionUnknown, Some(stamp), false) = (refusal, stamp, outlook.is_doubtful) {
            outlook.last = before;
            return Ok(Attempt::SessionGone(stamp.session));
        }
        let is_lost = matches!(refusal, Refusal::LeaderChanged | Refusal::ForwardLost);
        let can_repeat = is_worth_a_retry(refusal) || (is_lost && stamp.is_some());
        if !can_repeat {
            return Err(outlook.fault(refusal));
        }
        outlook.is_doubtful |= refusal.certainty() == Certainty::OutcomeUnknown;
        outlook.last = outlook.fault(refusal);
        Ok(Attempt::Again)
    }

    /// A stamp for a new write, from a session that is opened first if need be.
    async fn stamped(&self, keyspace: KeyspaceId) -> Result<Stamped<'_>, Fault> {
        loop {
            let changed = self.stamps_changed.notified();
            let taken = self.stamps().take();
            match taken {
                Taken::Stamp(stamp) => return Ok(Stamped { gate: self, stamp: Some(stamp) }),
                Taken::Full => return Ok(Stamped { gate: self, stamp: None }),
                Taken::Wait => changed.await,
                Taken::Open => {
                    let mut opening = Opening { gate: self, session: None };
                    opening.session = self.open_session(keyspace).await?;
                    if opening.session.is_none() {
                        return Ok(Stamped { gate: self, stamp: None });
                    }
                }
            }
        }
    }

    /// Opens a session. None if the members have no room for one.
    async fn open_session(&self, keyspace: KeyspaceId) -> Result<Option<SessionId>, Fault> {
        loop {
            // It is the gateway's own, whoever writes first.
            let (who, request) = (Who::Cluster, Request::OpenSession { keyspace });
            match self.send_input(|ticket| Input::Client { ticket, who, request })?.await {
                Err(_) => return Err(Fault::Stopped),
                Ok((_, Response::SessionOpened { session })) => return Ok(Some(session)),
                // One that was opened and not heard of expires.
                Ok((_, Response::Refused(refusal)))
                    if is_worth_a_retry(refusal)
                        || matches!(refusal, Refusal::LeaderChanged | Refusal::ForwardLost) =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok((_, Response::Refused(Refusal::TooManySessions))) => return Ok(None),
                Ok((_, Response::Refused(refusal))) => return Err(refusal.into()),
                Ok(_) => return Err(Fault::Unexpected),
            }
        }
    }
}
