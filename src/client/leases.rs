//! Leases through the client: granted, renewed, asked about, listed, revoked.
//!
//! Always: a lease counts for its holder from when the request that granted or renewed it was *sent*, so a holder that
//! counts so stops before the cluster does. What the store refused is an outcome, not a failure, as everywhere. Left out:
//! a thread that renews by itself: whoever holds a lease decides whether it still should.

use super::blocking::{Client, unfitting};
use super::failure::Failure;
use super::retry::Nature;
use crate::api::{ReadMode, Request, Response};
use crate::ids::LeaseId;
use crate::kv::{Applied, Command, Grant, LeaseCommand, Query, Revoke};
use std::time::Duration;

impl Client {
    /// Makes a lease under `lease`, or under an id that the store chooses if that is 0.
    ///
    /// # Errors
    /// As `write`.
    pub fn grant_lease(&mut self, lease: LeaseId, ttl: Duration) -> Result<Applied, Failure> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.write(&Command::Lease(LeaseCommand::Grant(Grant { lease, ttl_ms })))
    }

    /// Ends a lease, and deletes its keys.
    ///
    /// # Errors
    /// As `write`.
    pub fn revoke_lease(&mut self, lease: LeaseId) -> Result<Applied, Failure> {
        self.revoke_lease_within(lease, self.timeout())
    }

    /// As `revoke_lease`, within `patience` if that is less than a call may take.
    pub(super) fn revoke_lease_within(
        &mut self,
        lease: LeaseId,
        patience: Duration,
    ) -> Result<Applied, Failure> {
        self.write_within(&Command::Lease(LeaseCommand::Revoke(Revoke { lease })), patience)
    }

    /// Makes a lease last for all of its time again.
    ///
    /// # Errors
    /// No member served it. It may have been renewed all the same; doing so again is safe.
    pub fn keep_lease_alive(&mut self, lease: LeaseId) -> Result<Applied, Failure> {
        self.keep_lease_alive_within(lease, self.timeout())
    }

    /// As `keep_lease_alive`, within `patience` if that is less than a call may take.
    pub(super) fn keep_lease_alive_within(
        &mut self,
        lease: LeaseId,
        patience: Duration,
    ) -> Result<Applied, Failure> {
        let keyspace = self.keyspace();
        self.ask(&Request::KeepAlive { keyspace, lease }, patience)
    }

    /// How a lease stands.
    ///
    /// # Errors
    /// No member served it.
    pub fn lease_time_to_live(&mut self, lease: LeaseId, wants_keys: bool) -> Result<Applied, Failure> {
        let keyspace = self.keyspace();
        self.ask(&Request::TimeToLive { keyspace, lease, wants_keys }, self.timeout())
    }

    /// The ids of all leases.
    ///
    /// # Errors
    /// As `read`.
    pub fn leases(&mut self) -> Result<Applied, Failure> {
        self.read(Query::Leases, ReadMode::Linearizable)
    }

    fn ask(&mut self, request: &Request, patience: Duration) -> Result<Applied, Failure> {
        match self.perform_within(request, Nature::Read, patience)? {
            Response::Applied(applied) => Ok(applied),
            other => Err(unfitting(Nature::Read, &other)),
        }
    }
}
