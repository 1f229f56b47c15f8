//! Members as real processes on loopback: killed, stopped, fed with garbage and started wrongly.
//!
//! What always holds: ports are free ones, timeouts are generous (two starved cores must not make elections the subject
//! of every test), and every process that a test started is ended with it. What these leave out: many rounds, full
//! disks and what needs root, which are in bench-harness. A kill says nothing about syncing, because the kernel keeps
//! what it was given; `durability` judges the members' own records instead.
#![allow(missing_docs, clippy::disallowed_methods)] // these are clocks by trade

mod crashes;
mod durability;
mod garbage;
mod killed_leader;
mod leases;
mod loads;
mod mistakes;
mod programs;
mod recovery;
mod snapshots;
mod space;
mod support;
mod watches;
