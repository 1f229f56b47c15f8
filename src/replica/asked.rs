//! From what clients ask of a shard to the replica that serves it.
//!
//! Always: a shard that serves nothing yet, or nothing any more, says so. Left out: what is asked (`propose`, `read`,
//! `watching`, `users`).

use super::input::Asked;
use super::shard::Shard;
use super::{Output, group};
use crate::api::{Refusal, Request, Response, Status, UsersRequest, WatchRequest};
use crate::ids::{BootMicros, KeyspaceId};
use crate::watch::Place;

impl Shard {
    /// A request.
    pub(super) fn client(
        &mut self,
        now: BootMicros,
        asked: Asked,
        request: Request,
        outputs: &mut Vec<Output>,
    ) {
        let (ticket, _) = asked;
        let keyspace = match &request {
            Request::OpenSession { keyspace }
            | Request::CloseSession { keyspace, .. }
            | Request::Write { keyspace, .. }
            | Request::KeepAlive { keyspace, .. }
            | Request::TimeToLive { keyspace, .. }
            | Request::Snapshot { keyspace, .. }
            | Request::Read { keyspace, .. } => *keyspace,
            Request::Status | Request::Watch(_) => KeyspaceId::FIRST,
        };
        if let Some(waiting_for) = self.waiting_for() {
            let response = if matches!(request, Request::Status) {
                let status = Status { member: self.options.member, waiting_for, ..Status::default() };
                Response::Status(Box::new(status))
            } else {
                Response::Refused(Refusal::NotReady)
            };
            outputs.push(group::reply(ticket, response));
        } else if let Some(replica) = self.replicas.values_mut().find(|it| it.setup.keyspace == keyspace) {
            replica.request(now, asked, request, outputs);
        } else {
            outputs.push(group::reply(ticket, Response::Refused(Refusal::NoSuchKeyspace)));
        }
    }

    /// A request about watches. The one group of today has them all.
    pub(super) fn watch(
        &mut self,
        asked: Asked,
        place: Place,
        request: WatchRequest,
        outputs: &mut Vec<Output>,
    ) {
        let keyspace = match &request {
            WatchRequest::Create { keyspace, .. } => *keyspace,
            WatchRequest::Cancel { .. } | WatchRequest::Progress { .. } => KeyspaceId::FIRST,
        };
        let refusal = if self.waiting_for().is_some() { Refusal::NotReady } else { Refusal::NoSuchKeyspace };
        match self.replicas.values_mut().find(|it| it.setup.keyspace == keyspace) {
            Some(replica) if refusal == Refusal::NoSuchKeyspace => {
                replica.watch(asked, place, request, outputs);
            }
            Some(_) | None => outputs.push(group::reply(asked.0, Response::Refused(refusal))),
        }
    }

    /// A request about users. The one group of today has them all.
    pub(super) fn users(
        &mut self,
        now: BootMicros,
        asked: Asked,
        request: UsersRequest,
        outputs: &mut Vec<Output>,
    ) {
        let is_serving = self.waiting_for().is_none();
        match self.replicas.values_mut().next() {
            Some(replica) if is_serving => replica.users(now, asked, request, outputs),
            Some(_) | None => outputs.push(group::reply(asked.0, Response::Refused(Refusal::NotReady))),
        }
    }
}
