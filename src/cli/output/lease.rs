//! How answers about leases look, but for `simple`, which names the lease that was asked about (`cli/lease.rs`).
//!
//! Always: times are in milliseconds. Ids are numbers in JSON, as etcd's are, and hexadecimal elsewhere.

use super::{base64, table};
use crate::kv::LeaseOutcome;
use serde::Serialize;

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum LeaseJson {
    Granted {
        id: u64,
        ttl_ms: u64,
    },
    Renewed {
        ttl_ms: u64,
    },
    Listed {
        leases: Vec<u64>,
    },
    TimeToLive {
        /// Null if there is no such lease.
        ttl_ms: Option<u64>,
        remaining_ms: Option<u64>,
        keys: Vec<String>,
    },
    Nothing {},
}

pub(super) fn json(outcome: &LeaseOutcome) -> LeaseJson {
    match outcome {
        LeaseOutcome::Granted(grant) => LeaseJson::Granted { id: grant.lease.0, ttl_ms: grant.ttl_ms },
        LeaseOutcome::Renewed(renewed) => LeaseJson::Renewed { ttl_ms: renewed.ttl_ms },
        LeaseOutcome::Listed(leases) => {
            LeaseJson::Listed { leases: leases.iter().map(|lease| lease.0).collect() }
        }
        LeaseOutcome::TimeToLive(known) => LeaseJson::TimeToLive {
            ttl_ms: known.as_ref().map(|known| known.ttl_ms),
            remaining_ms: known.as_ref().map(|known| known.remaining_ms),
            keys: known.iter().flat_map(|known| &known.keys).map(|key| base64(key)).collect(),
        },
        LeaseOutcome::Revoked | LeaseOutcome::Checkpointed => LeaseJson::Nothing {},
    }
}

pub(super) fn fields(outcome: &LeaseOutcome) -> String {
    match outcome {
        LeaseOutcome::Granted(grant) => {
            format!("\"ID\" : {:x}\n\"TTLms\" : {}\n", grant.lease.0, grant.ttl_ms)
        }
        LeaseOutcome::Renewed(renewed) => format!("\"TTLms\" : {}\n", renewed.ttl_ms),
        LeaseOutcome::Listed(leases) => {
            let ids: Vec<_> = leases.iter().map(|lease| format!("\"ID\" : {:x}\n", lease.0)).collect();
            ids.concat()
        }
        LeaseOutcome::TimeToLive(None) => "\"TTLms\" : -1\n".to_owned(),
        LeaseOutcome::TimeToLive(Some(known)) => {
            let keys: Vec<_> =
                known.keys.iter().map(|key| format!("\"Key\" : \"{}\"\n", key.escape_ascii())).collect();
            format!(
                "\"TTLms\" : {}\n\"RemainingMs\" : {}\n{}",
                known.ttl_ms,
                known.remaining_ms,
                keys.concat()
            )
        }
        LeaseOutcome::Revoked | LeaseOutcome::Checkpointed => String::new(),
    }
}

pub(super) fn in_table(outcome: &LeaseOutcome) -> String {
    match outcome {
        LeaseOutcome::Granted(grant) => {
            table(&["LEASE", "TTL_MS"], &[vec![format!("{:x}", grant.lease.0), grant.ttl_ms.to_string()]])
        }
        LeaseOutcome::Renewed(renewed) => table(&["TTL_MS"], &[vec![renewed.ttl_ms.to_string()]]),
        LeaseOutcome::Listed(leases) => {
            let rows: Vec<_> = leases.iter().map(|lease| vec![format!("{:x}", lease.0)]).collect();
            table(&["LEASE"], &rows)
        }
        LeaseOutcome::TimeToLive(known) => {
            let row = |known: &crate::kv::TimeToLive| {
                let keys: Vec<_> = known.keys.iter().map(|key| key.escape_ascii().to_string()).collect();
                vec![known.ttl_ms.to_string(), known.remaining_ms.to_string(), keys.join(" ")]
            };
            table(&["TTL_MS", "REMAINING_MS", "KEYS"], &known.iter().map(row).collect::<Vec<_>>())
        }
        LeaseOutcome::Revoked | LeaseOutcome::Checkpointed => table(&["LEASE"], &[vec!["ended".to_owned()]]),
    }
}
