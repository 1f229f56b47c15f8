//! The service `Maintenance`: how a member is, and what little there is to do about it.

use super::leader::{Answers, while_led};
use super::parts::Parts;
use super::{dump, refused, stubs};
use crate::api::ReadMode;
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Fault, Wish};
use crate::ids::{MemberId, Revision};
use crate::kv::{Applied, Command, KeyRange, Outcome, Query, Range, SpaceAlarm};
use crate::server::gateway::Gate;
use bytes::Bytes;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(in super::super) struct MaintenanceService(pub(super) Arc<Gate>);

/// The pairs of one revision, hashed.
struct Hashed {
    standing: etcd::Standing,
    newest: Revision,
    of: Revision,
    hash: u32,
}

impl MaintenanceService {
    /// The hash of this member's pairs as `revision` saw them (0: the newest). They are read part after part, so that others
    /// are served in between.
    async fn hashed(&self, revision: i64) -> Result<Hashed, Status> {
        let revision = Revision(u64::try_from(revision).unwrap_or(0));
        let range = Range { revision, ..Range::new(KeyRange::From(Bytes::new())) };
        let mut parts = Parts::new(&self.0, range, ReadMode::Serializable);
        let mut hash = 0;
        while let Some(part) = parts.next().await? {
            hash = etcd::pairs_hash(hash, &part.pairs);
            if part.is_last {
                return Ok(Hashed { standing: part.standing, newest: part.newest, of: part.of, hash });
            }
        }
        Err(refused(Fault::Unexpected))
    }
}

impl MaintenanceService {
    /// Waits until this member has everything that was committed.
    async fn read(&self, range: Range) -> Result<(), Status> {
        let wish = Wish::Read(Query::Range(range), ReadMode::Linearizable);
        self.0.wish(wish).await.map(|_| ()).map_err(refused)
    }

    /// Raises an alarm, or calls it off.
    async fn space_alarm(&self, alarm: SpaceAlarm) -> Result<(), Status> {
        let wish = Wish::Write(Command::SpaceAlarm(alarm));
        match self.0.wish(wish).await.map_err(refused)? {
            (_, Applied { outcome: Outcome::SpaceAlarm(_), .. }) => Ok(()),
            (_, Applied { outcome: Outcome::Refused(refusal), .. }) => Err(refused(refusal.into())),
            _ => Err(refused(Fault::Unexpected)),
        }
    }
}

impl MaintenanceService {
    /// Calls off what is raised for a member; the answer names what was (etcd's rule). The alarm that goes by the bytes that are
    /// used is each member's, because any of them tells it as its own.
    async fn call_off(
        &self,
        status: &crate::api::Status,
        member_id: u64,
    ) -> Result<Vec<pb::AlarmMember>, Status> {
        let is_by_hand = status
            .counters
            .iter()
            .any(|counter| counter.name == "space_alarm_by_hand" && counter.value == member_id);
        if is_by_hand {
            self.space_alarm(SpaceAlarm { by_hand: Some(member_id), is_raised: false }).await?;
        }
        let is_member = status.members.iter().any(|member| member.id.0 == member_id);
        let is_by_bytes = is_member && etcd::counter(status, "space_alarm_by_bytes") > 0;
        if is_by_bytes {
            self.space_alarm(SpaceAlarm::by_bytes(false)).await?;
        }
        let alarm = pb::AlarmMember { member_id, alarm: pb::AlarmType::Nospace.into() };
        Ok((is_by_hand || is_by_bytes).then_some(alarm).into_iter().collect())
    }
}

#[tonic::async_trait]
impl stubs::maintenance_server::Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction;
        let request = request.into_inner();
        let Ok(action) = AlarmAction::try_from(request.action) else {
            return Err(refused(Fault::UnknownEnumeration));
        };
        let Ok(kind) = pb::AlarmType::try_from(request.alarm) else {
            return Err(refused(Fault::UnknownEnumeration));
        };
        self.0.only_root().await.map_err(refused)?;
        // Alarms are told of as they are, not as this member may have seen them some time ago.
        self.read(Range {
            limit: 1,
            count_only: true,
            ..Range::new(KeyRange::Key(Bytes::from_static(b"\0")))
        })
        .await?;
        let (standing, status) = self.0.status().await.map_err(refused)?;
        let header = Some(standing.header(status.revision));
        let raised = etcd::alarms(&status);
        let alarms = match (action, kind) {
            (AlarmAction::Get, pb::AlarmType::None | pb::AlarmType::Nospace) => raised,
            (AlarmAction::Activate, pb::AlarmType::Nospace) => {
                self.space_alarm(SpaceAlarm { by_hand: Some(request.member_id), is_raised: true }).await?;
                vec![pb::AlarmMember { member_id: request.member_id, alarm: request.alarm }]
            }
            (AlarmAction::Deactivate, pb::AlarmType::Nospace) => {
                self.call_off(&status, request.member_id).await?
            }
            (AlarmAction::Activate, pb::AlarmType::Corrupt) => {
                return Err(refused(Fault::NotBuilt("mainstay: only the alarm NOSPACE can be raised")));
            }
            // There is none of that kind.
            (AlarmAction::Get, pb::AlarmType::Corrupt)
            | (AlarmAction::Activate, pb::AlarmType::None)
            | (AlarmAction::Deactivate, _) => Vec::new(),
        };
        Ok(Response::new(pb::AlarmResponse { header, alarms }))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let (standing, status) = self.0.status().await.map_err(refused)?;
        Ok(Response::new(etcd::status_answer(standing, &status)))
    }

    /// Nothing is ever fragmented, so this is done at once.
    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.0.only_root().await.map_err(refused)?;
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        self.0.only_root().await.map_err(refused)?;
        let Hashed { standing, newest, hash, .. } = self.hashed(0).await?;
        Ok(Response::new(pb::HashResponse { header: Some(standing.header(newest)), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.0.only_root().await.map_err(refused)?;
        let Hashed { standing, newest, of, hash } = self.hashed(request.into_inner().revision).await?;
        let (_, status) = self.0.status().await.map_err(refused)?;
        // etcd says -1 before the first compaction.
        let compacted = match etcd::counter(&status, "compacted_revision") {
            0 => -1,
            revision => etcd::number(Revision(revision)),
        };
        Ok(Response::new(pb::HashKvResponse {
            header: Some(standing.header(newest)),
            hash,
            compact_revision: compacted,
            hash_revision: etcd::number(of),
        }))
    }

    type SnapshotStream = Answers<pb::SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.0.only_root().await.map_err(refused)?;
        let (metadata, _, _) = request.into_parts();
        Ok(Response::new(while_led(&self.0, &metadata, dump::stream(&self.0))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.0.only_root().await.map_err(refused)?;
        let to = MemberId(request.into_inner().target_id);
        let (_, status) = self.0.status().await.map_err(refused)?;
        if status.leader != Some(status.member) {
            return Err(refused(Fault::NotLeader));
        }
        if status.members.iter().all(|member| member.id != to) {
            return Err(refused(Fault::BadTransferee));
        }
        if to != status.member {
            self.0.hand_over(to).await.map_err(refused)?;
        }
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(refused(Fault::NotBuilt("mainstay: there is no version to go back to")))
    }
}
