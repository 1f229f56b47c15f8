//! What a run came to, for programs (one line of JSON) and for people.
//!
//! What always holds: a figure per operation divides by what was acknowledged while it was counted; what was not
//! measured is `null`. What it leaves out: judging.

use super::options::{LoadArgs, Protocol};
use super::tally::Tally;
use super::watchers::Deliveries;
use crate::machine;
use crate::observer::Usage;
use crate::target::System;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What was asked for, and where.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) system: System,
    pub(crate) protocol: Protocol,
    pub(crate) args: LoadArgs,
    machine: Value,
    commit: Value,
}

/// What one member cost.
#[derive(Clone, Debug)]
pub(crate) struct MemberCost {
    pub(crate) name: String,
    pub(crate) is_leader: bool,
    pub(crate) usage: Usage,
}

/// What everybody cost.
#[derive(Debug)]
pub(crate) struct Costs {
    /// The members started for the run; none if they ran already.
    pub(crate) members: Vec<MemberCost>,
    /// CPU of the thread that makes the load.
    pub(crate) own_cpu: Duration,
    /// CPU that anybody on this machine used, interrupts and the kernel's own threads included.
    pub(crate) machine_cpu_micros: u64,
    /// How late a napping thread woke, in nanoseconds.
    pub(crate) hiccups: Option<Histogram<u64>>,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) setting: Setting,
    pub(crate) tally: Tally,
    pub(crate) costs: Costs,
    /// Durable writes on the same disk just before, in nanoseconds.
    pub(crate) raw_dsync: Option<Histogram<u64>>,
    /// What watchers were told, if there were any.
    pub(crate) deliveries: Option<Deliveries>,
    pub(crate) is_leader_changed: bool,
}

impl Setting {
    /// What was asked for; `disk` is where the members' data was.
    pub(crate) fn of(args: &LoadArgs, system: System, protocol: Protocol, disk: Option<&Path>) -> Self {
        let machine = machine::describe(disk.unwrap_or(Path::new(".")));
        Self { system, protocol, args: args.clone(), machine, commit: machine::commit() }
    }
}

impl Measured {
    /// Acknowledgements a second.
    pub(crate) fn ops_per_s(&self) -> f64 {
        ratio(self.tally.acknowledged, self.setting.args.seconds)
    }

    /// The latency that this share of operations did not exceed, in milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        ratio(self.tally.latencies.value_at_quantile(quantile) / 1_000, 1_000)
    }

    /// CPU of all members for one operation, in microseconds.
    pub(crate) fn server_cpu_us_per_op(&self) -> Option<f64> {
        let usage = self.servers()?;
        Some(self.per_op(usage.cpu_micros))
    }

    /// What was asked for, in words.
    pub(crate) fn asked(&self) -> String {
        let args = &self.setting.args;
        let pace = match args.rate {
            0 => "as fast as answered".to_owned(),
            rate => format!("{rate} a second"),
        };
        format!(
            "{} over {}: {} of {} bytes, {} connections x {}, {pace}, {} s",
            self.setting.system.name(),
            self.setting.protocol.name(),
            args.op.name(),
            args.value_bytes,
            args.connections,
            args.depth,
            args.seconds
        )
    }

    /// The machine and the commit, in words.
    pub(crate) fn machine_in_words(&self) -> String {
        format!("{:#}\ncommit {}", self.setting.machine, self.setting.commit)
    }

    /// A run that never was, for tests.
    #[cfg(test)]
    pub(crate) fn made_up(acknowledged: u64) -> Self {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: LoadArgs,
        }
        let args = Line::parse_from(["load", "--seconds", "1"]).args;
        let mut tally = Tally::new(0..1_000_000_000);
        for number in 0..acknowledged {
            tally.served(number, number * 10_000 + 1_000);
        }
        let costs =
            Costs { members: Vec::new(), own_cpu: Duration::ZERO, machine_cpu_micros: 0, hiccups: None };
        let setting = Setting::of(&args, System::Mainstay, Protocol::Native, None);
        Self { setting, tally, costs, raw_dsync: None, deliveries: None, is_leader_changed: false }
    }

    fn servers(&self) -> Option<Usage> {
        let usages = self.costs.members.iter().map(|member| member.usage);
        usages.reduce(Usage::plus)
    }

    fn per_op(&self, count: u64) -> f64 {
        ratio(count, self.tally.acknowledged)
    }

    fn own_cpu_us_per_op(&self) -> f64 {
        self.per_op(u64::try_from(self.costs.own_cpu.as_micros()).unwrap_or(u64::MAX))
    }

    /// Everything, as one value.
    pub(crate) fn to_json(&self) -> Value {
        let args = &self.setting.args;
        let servers = self.servers();
        let members = self.costs.members.iter().map(|member| {
            json!({
                "name": member.name,
                "role": role(member),
                "cpu_us_per_op": self.per_op(member.usage.cpu_micros),
                "context_switches_per_op": self.per_op(member.usage.switches),
            })
        });
        json!({
            "target": self.setting.system.name(),
            "protocol": self.setting.protocol.name(),
            "op": args.op.name(),
            "members": self.costs.members.len(),
            "connections": args.connections,
            "depth": args.depth,
            "rate": args.rate,
            "seconds": args.seconds,
            "value_bytes": args.value_bytes,
            "keys": args.keys,
            "ops_per_s": self.ops_per_s(),
            "acknowledged": self.tally.acknowledged,
            "errors": self.tally.errors_count(),
            "errors_by_kind": self.tally.errors,
            "unsent": self.tally.unsent,
            "latency_ms": latency_json(&self.tally.latencies),
            "sent_late_ms": latency_json(&self.tally.lateness),
            "server_cpu_us_per_op": self.server_cpu_us_per_op(),
            "server_system_cpu_us_per_op": servers.map(|usage| self.per_op(usage.system_micros)),
            "server_context_switches_per_op": servers.map(|usage| self.per_op(usage.switches)),
            "by_member": members.collect::<Vec<_>>(),
            "leader_changed": self.is_leader_changed,
            "client_cpu_us_per_op": self.own_cpu_us_per_op(),
            "machine_cpu_us_per_op": self.per_op(self.costs.machine_cpu_micros),
            "scheduler_hiccup_us": self.costs.hiccups.as_ref().map(micros_json),
            "watch": self.deliveries.map(|deliveries| json!({
                "watches": deliveries.watches,
                "deliveries_per_s": ratio(deliveries.counted, args.seconds),
                "deliveries": deliveries.total,
                "lost": deliveries.lost,
                "repeated": deliveries.repeated,
                "client_cpu_ms": u64::try_from(deliveries.own_cpu.as_millis()).unwrap_or(u64::MAX),
            })),
            "raw_dsync_us": self.raw_dsync.as_ref().map(micros_json),
            "machine": self.setting.machine,
            "commit": self.setting.commit,
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.asked())?;
        writeln!(f, "  {:>10.0} ops/s, {} errors", self.ops_per_s(), self.tally.errors_count())?;
        for (kind, count) in &self.tally.errors {
            writeln!(f, "  {count:>10} times: {kind}")?;
        }
        if self.tally.unsent > 0 {
            writeln!(f, "  {:>10} were due and found no room until the end", self.tally.unsent)?;
        }
        let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|at| self.latency_ms(at));
        writeln!(
            f,
            "  latency    p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
        )?;
        if let Some(deliveries) = &self.deliveries {
            let per_s = ratio(deliveries.counted, self.setting.args.seconds);
            let Deliveries { watches, total, lost, repeated, .. } = deliveries;
            writeln!(
                f,
                "  watches    {per_s:.0} deliveries/s to {watches}; {total} in all, {lost} lost, {repeated} twice"
            )?;
        }
        if let Some(usage) = self.servers() {
            let (cpu, system) = (self.per_op(usage.cpu_micros), self.per_op(usage.system_micros));
            let switches = self.per_op(usage.switches);
            writeln!(
                f,
                "  servers    {cpu:.2} us of CPU an operation ({system:.2} in the kernel), {switches:.3} switches"
            )?;
        }
        for member in &self.costs.members {
            let (name, role, cpu) = (&member.name, role(member), self.per_op(member.usage.cpu_micros));
            let switches = self.per_op(member.usage.switches);
            writeln!(f, "    {name} {role:<9} {cpu:.2} us, {switches:.3} switches")?;
        }
        let (own, all) = (self.own_cpu_us_per_op(), self.per_op(self.costs.machine_cpu_micros));
        writeln!(f, "  this load  {own:.2} us of CPU an operation; the whole machine {all:.2} us")?;
        let noises = [("naps late", self.costs.hiccups.as_ref()), ("raw disk", self.raw_dsync.as_ref())];
        for (name, noise) in noises {
            if let Some(noise) = noise {
                let [p50, p99, max] = [0.5, 0.99, 1.0].map(|at| noise.value_at_quantile(at) / 1_000);
                writeln!(f, "  {name:<10} p50 {p50}  p99 {p99}  max {max} us")?;
            }
        }
        if self.is_leader_changed {
            writeln!(f, "  the leader changed meanwhile")?;
        }
        Ok(())
    }
}

const fn role(member: &MemberCost) -> &'static str {
    if member.is_leader { "leader" } else { "follower" }
}

fn latency_json(nanos: &Histogram<u64>) -> Value {
    let millis = |quantile: f64| ratio(nanos.value_at_quantile(quantile) / 1_000, 1_000);
    json!({ "p50": millis(0.5), "p90": millis(0.9), "p99": millis(0.99), "p999": millis(0.999), "max": millis(1.0) })
}

fn micros_json(nanos: &Histogram<u64>) -> Value {
    let micros = |quantile: f64| nanos.value_at_quantile(quantile) / 1_000;
    json!({ "p50": micros(0.5), "p99": micros(0.99), "max": micros(1.0) })
}

/// `part` for each of `whole`; 0 of none.
#[allow(clippy::cast_precision_loss)] // a figure for people, with more digits than it deserves
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
