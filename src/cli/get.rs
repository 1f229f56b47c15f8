//! `mainstay get`: reads one key or a range of keys, and the words of a range that del has too.
//!
//! Always: linearizable unless asked otherwise. Left out: nothing.

use super::client_args::{ClientArgs, parse_duration};
use super::output::{Format, Shown, finish_aged, usage};
use super::put::bytes_of;
use crate::api::{Otherwise, ReadMode};
use crate::ids::Revision;
use crate::kv::{Filter, KeyRange, Query, Range, Sort, SortBy, SortOrder};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay get config/limit
  mainstay get config/limit --print-value-only
  mainstay get config/ --prefix --limit 10
  mainstay get a m                             keys from a up to, and without, m
  mainstay get a --from-key --keys-only        keys from a to the last
  mainstay get config/ --prefix --count-only --json
  mainstay get config/ --prefix --sort-by modify --order descend --limit 1     what was changed last
  mainstay get config/ --prefix --min-mod-rev 12   what was changed since revision 12
  mainstay get config/limit --rev 7            as it was at revision 7
  mainstay get config/limit --consistency s    from this member alone: perhaps old, needs no quorum
  mainstay get config/limit --max-age 500ms --json    from any member that lacks nothing older; says how old
  mainstay get config/limit --min-revision 12 --or-ask-leader     what was written at 12, or later, is seen

A key that does not exist prints nothing, and is no error. With JSON, keys and values are in base64, as etcdctl's are.
Exit codes: 0 read; 1 not served; 2 the arguments were not understood.";

/// Which keys, on a command line and in a transaction.
#[derive(Args, Clone, Debug)]
pub(super) struct RangeWords {
    /// The key, or where the range begins
    key: OsString,

    /// Where the range ends; this key is not in it
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<OsString>,

    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,

    /// All keys from KEY on
    #[arg(long)]
    from_key: bool,
}

impl RangeWords {
    pub(super) fn range(self) -> KeyRange {
        let key = bytes_of(self.key);
        match self.range_end.map(bytes_of) {
            // etcd's way to say "to the end".
            Some(end) if end.as_ref() == b"\0" => KeyRange::From(key),
            Some(end) => KeyRange::Span { start: key, end },
            None if self.from_key => KeyRange::From(key),
            None if self.prefix => prefixed(key),
            None => KeyRange::Key(key),
        }
    }
}

/// The keys that begin with `prefix`.
fn prefixed(prefix: Bytes) -> KeyRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(above) = last.checked_add(1) {
            end.push(above);
            return KeyRange::Span { start: prefix, end: end.into() };
        }
    }
    // Nothing is above it, so what is not below it begins with it.
    KeyRange::From(prefix)
}

/// The words of a read, on a command line and in a transaction.
#[derive(Args, Clone, Debug)]
pub(super) struct GetWords {
    #[command(flatten)]
    range: RangeWords,

    /// At most this many pairs; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,

    /// As of this revision; 0 for the current one
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: u64,

    /// What the pairs are sorted by
    #[arg(long, value_enum, ignore_case = true, value_name = "WHAT")]
    sort_by: Option<SortWord>,

    /// Smallest first or largest first
    #[arg(long, value_enum, ignore_case = true, value_name = "ORDER")]
    order: Option<OrderWord>,

    /// Only pairs last changed at this revision or later
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    min_mod_rev: u64,

    /// Only pairs last changed at this revision or earlier; 0 for any
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    max_mod_rev: u64,

    /// Only pairs created at this revision or later
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    min_create_rev: u64,

    /// Only pairs created at this revision or earlier; 0 for any
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    max_create_rev: u64,

    /// Without the values
    #[arg(long, conflicts_with = "count_only")]
    keys_only: bool,

    /// The count alone
    #[arg(long)]
    count_only: bool,
}

/// What pairs are sorted by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortWord {
    Key,
    Version,
    Create,
    #[value(alias = "mod")]
    Modify,
    Value,
}

/// Which way.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderWord {
    #[value(alias = "ascending")]
    Ascend,
    #[value(alias = "descending")]
    Descend,
}

impl GetWords {
    pub(super) fn range(self) -> Range {
        Range {
            sort: self.sort(),
            filter: Filter {
                mod_min: Revision(self.min_mod_rev),
                mod_max: Revision(self.max_mod_rev),
                create_min: Revision(self.min_create_rev),
                create_max: Revision(self.max_create_rev),
            },
            range: self.range.range(),
            limit: self.limit,
            revision: Revision(self.rev),
            keys_only: self.keys_only,
            count_only: self.count_only,
            part_bytes_max: None,
        }
    }

    /// A sort of which only one half is said is by key, or ascending.
    fn sort(&self) -> Option<Sort> {
        if self.sort_by.is_none() && self.order.is_none() {
            return None;
        }
        let by = match self.sort_by.unwrap_or(SortWord::Key) {
            SortWord::Key => SortBy::Key,
            SortWord::Version => SortBy::Version,
            SortWord::Create => SortBy::Create,
            SortWord::Modify => SortBy::Mod,
            SortWord::Value => SortBy::Value,
        };
        let order = match self.order.unwrap_or(OrderWord::Ascend) {
            OrderWord::Ascend => SortOrder::Ascending,
            OrderWord::Descend => SortOrder::Descending,
        };
        Some(Sort { by, order })
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Consistency {
    /// Linearizable: the latest
    #[value(name = "l", alias = "linearizable")]
    Linearizable,
    /// Serializable: what the member has, perhaps old
    #[value(name = "s", alias = "serializable")]
    Serializable,
}

/// The arguments of `mainstay get`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct GetArgs {
    #[command(flatten)]
    words: GetWords,

    /// Print values and not their keys
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    print_value_only: bool,

    /// Linearizable or serializable
    #[arg(long, value_enum, default_value = "l")]
    consistency: Consistency,

    /// What a member has applied, if it lacks nothing committed longer ago than this, such as 500ms; a member that cannot
    /// promise that refuses, and the next is tried until --timeout
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "consistency")]
    max_age: Option<Duration>,

    /// What a member has applied, if that is at this revision or later; one that has not come so far refuses, and the
    /// next is tried until --timeout
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["consistency", "max_age"])]
    min_revision: Option<u64>,

    /// With --max-age or --min-revision: a member that cannot promise that asks the leader instead of refusing
    #[arg(long)]
    or_ask_leader: bool,

    #[command(flatten)]
    client: ClientArgs,
}

impl GetArgs {
    fn mode(&self) -> Result<ReadMode, &'static str> {
        let otherwise = if self.or_ask_leader { Otherwise::AskLeader } else { Otherwise::Refuse };
        match (self.max_age, self.min_revision) {
            (Some(age), _) => {
                let max_age_ms =
                    u32::try_from(age.as_millis()).map_err(|_| "--max-age is 49 days at the most")?;
                Ok(ReadMode::MaxAge { max_age_ms, otherwise })
            }
            (None, Some(revision)) => Ok(ReadMode::MinRevision { revision: Revision(revision), otherwise }),
            (None, None) if self.or_ask_leader => {
                Err("--or-ask-leader goes with --max-age or --min-revision")
            }
            (None, None) => Ok(match self.consistency {
                Consistency::Linearizable => ReadMode::Linearizable,
                Consistency::Serializable => ReadMode::Serializable,
            }),
        }
    }
}

/// Runs what was asked for.
pub(super) fn run(arguments: GetArgs) -> ExitCode {
    let format = arguments.client.format_or(Format::Simple);
    if arguments.print_value_only && format != Format::Simple {
        return usage("--print-value-only is for the simple format");
    }
    let mut client = match arguments.client.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let mode = match arguments.mode() {
        Ok(mode) => mode,
        Err(problem) => return usage(problem),
    };
    let shown = Shown { values_only: arguments.print_value_only, count_only: arguments.words.count_only };
    let result = client.read_aged(Query::Range(arguments.words.range()), mode);
    finish_aged(format, shown, &client, result)
}

#[cfg(test)]
mod tests {
    use super::prefixed;
    use crate::kv::KeyRange;
    use bytes::Bytes;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        let span = |start: &'static [u8], end: &'static [u8]| KeyRange::Span {
            start: Bytes::from_static(start),
            end: Bytes::from_static(end),
        };
        assert_eq!(prefixed(Bytes::from_static(b"ab")), span(b"ab", b"ac"));
        assert_eq!(prefixed(Bytes::from_static(b"a\xff\xff")), span(b"a\xff\xff", b"b"));
        assert_eq!(prefixed(Bytes::from_static(b"\xff")), KeyRange::From(Bytes::from_static(b"\xff")));
        assert_eq!(prefixed(Bytes::new()), KeyRange::From(Bytes::new()));
    }
}
