//! `mainstay txn`: compares, then one of two lists of operations, as one step; read from stdin as etcdctl's are.
//!
//! ```text
//! compares             mod("a") = "3"        targets: mod create version value lease; operators: = != > <
//! (empty line)
//! success operations   put a "new value"     put, get and del with the words they have on a command line
//! (empty line)
//! failure operations   get a
//! ```
//!
//! Always: the whole text is understood before anything is sent; a transaction that only reads does not go through
//! the log. Left out: questions to a person at a terminal; nested transactions.

use super::client_args::ClientArgs;
use super::del::DelWords;
use super::get::GetWords;
use super::output::{Format, Shown, finish, usage};
use super::put::PutWords;
use crate::api::ReadMode;
use crate::ids::{LeaseId, Revision};
use crate::kv::{Command, Compare, CompareOperator, CompareTarget, KeyRange, Operation, Query, Txn};
use crate::limits::REQUEST_BYTES_MAX;
use clap::{Args, Parser};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// Bytes of text that are read.
///
/// Derived: every byte of the largest request could be written as an escape of four letters.
const TEXT_BYTES_MAX: u64 = 4 * REQUEST_BYTES_MAX as u64;

pub(super) const EXAMPLES: &str = "\
The text on stdin: compares, an empty line, operations if all compares hold, an empty line, operations if not.
  compare      mod|create|version|value|lease (\"KEY\") =|!=|>|< \"VALUE\"
  operation    put, get or del with the words and flags of those commands
  in \"…\"       \\n \\t \\r \\0 \\\" \\\\ and \\xNN stand for a byte each; in '…' nothing does

Examples:
  mainstay txn < transaction.txt
  printf 'version(\"lock\") = \"0\"\\n\\nput lock me\\n\\nget lock\\n' | mainstay txn
  mainstay txn --json < transaction.txt

With JSON, keys and values are in base64, as etcdctl's are. Exit codes: 0 done, whichever list ran; 1 not done, or the
outcome is unknown (the message says which); 2 the text or the arguments were not understood.";

/// The arguments of `mainstay txn`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct TxnArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &TxnArgs) -> ExitCode {
    let mut client = match arguments.client.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let txn = match read_text().and_then(|text| parse(&text)) {
        Ok(txn) => txn,
        Err(problem) => return usage(&format!("the transaction on stdin: {problem}")),
    };
    // The text has no way to write a nested transaction.
    let is_read = |operation: &Operation| match operation {
        Operation::Range(_) => true,
        Operation::Put(_) | Operation::DeleteRange(_) | Operation::Txn(_) => false,
    };
    let result = if txn.success.iter().chain(&txn.failure).all(is_read) {
        client.read(Query::Txn(txn), ReadMode::Linearizable)
    } else {
        client.write(&Command::Txn(txn))
    };
    finish(arguments.client.format_or(Format::Simple), Shown::default(), &client, result)
}

fn read_text() -> Result<String, String> {
    let mut text = String::new();
    let count = std::io::stdin().lock().take(TEXT_BYTES_MAX + 1).read_to_string(&mut text);
    match count {
        Ok(count) if count as u64 > TEXT_BYTES_MAX => Err(format!("longer than {TEXT_BYTES_MAX} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

fn parse(text: &str) -> Result<Txn, String> {
    let mut lines = text.lines().map(str::trim).enumerate();
    let mut section = || -> Vec<(usize, &str)> {
        let lines = lines.by_ref().take_while(|(_, line)| !line.is_empty());
        lines.map(|(at, line)| (at + 1, line)).collect()
    };
    let (compares, success, failure) = (section(), section(), section());
    if let Some((at, line)) = lines.find(|(_, line)| !line.is_empty()) {
        return Err(format!("line {}: {line:?} comes after the third list", at + 1));
    }
    if compares.is_empty() && success.is_empty() && failure.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(Txn {
        compares: parsed(&compares, compare)?,
        success: parsed(&success, operation)?,
        failure: parsed(&failure, operation)?,
    })
}

fn parsed<T>(lines: &[(usize, &str)], parse: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let one = |(at, line): &(usize, &str)| parse(line).map_err(|fault| format!("line {at}: {fault}"));
    lines.iter().map(one).collect()
}

fn compare(line: &str) -> Result<Compare, String> {
    let expected = || format!("expected a compare such as mod(\"key\") > \"0\", found {line:?}");
    let (target, rest) = line.split_once('(').ok_or_else(expected)?;
    let (key, rest) = word(rest, is_end_of_key)?.ok_or_else(expected)?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(expected)?.trim_start();
    let (operator, rest) = operator(rest).ok_or_else(expected)?;
    let (value, rest) = word(rest, char::is_whitespace)?.ok_or_else(expected)?;
    if !rest.trim().is_empty() {
        return Err(expected());
    }
    let number = || {
        let digits = str::from_utf8(&value).ok();
        digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or_else(|| {
            format!(
                "{} is compared with a number, found {:?}",
                target.trim(),
                value.escape_ascii().to_string()
            )
        })
    };
    let target = match target.trim() {
        "ver" | "version" => CompareTarget::Version(number()?),
        "c" | "create" => CompareTarget::Create(Revision(number()?)),
        "m" | "mod" => CompareTarget::Mod(Revision(number()?)),
        "lease" => CompareTarget::Lease(LeaseId(number()?)),
        "val" | "value" => CompareTarget::Value(value.into()),
        other => return Err(format!("expected mod, create, version, value or lease, found {other:?}")),
    };
    Ok(Compare { range: KeyRange::Key(key.into()), operator, target })
}

fn is_end_of_key(letter: char) -> bool {
    letter.is_whitespace() || letter == ')'
}

fn operator(text: &str) -> Option<(CompareOperator, &str)> {
    let known = [
        ("!=", CompareOperator::NotEqual),
        ("=", CompareOperator::Equal),
        (">", CompareOperator::Greater),
        ("<", CompareOperator::Less),
    ];
    known.into_iter().find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?)))
}

/// One line of a list, with the words and flags of the command of that name.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum OperationLine {
    Put(PutWords),
    Get(GetWords),
    Del(DelWords),
}

fn operation(line: &str) -> Result<Operation, String> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some((word, behind)) = word(rest, char::is_whitespace)? {
        words.push(OsString::from_vec(word));
        rest = behind;
    }
    let parsed = OperationLine::try_parse_from(words).map_err(|error| {
        let told = error.to_string();
        let first = told.lines().next().unwrap_or_default();
        format!("{line:?}: {}", first.trim_start_matches("error: "))
    })?;
    Ok(match parsed {
        OperationLine::Put(words) => Operation::Put(words.put()),
        OperationLine::Get(words) => Operation::Range(words.range()),
        OperationLine::Del(words) => Operation::DeleteRange(words.delete_range()),
    })
}

/// The first word of `text` and what is behind it: quoted, or up to a letter that ends it.
fn word(text: &str, is_end: fn(char) -> bool) -> Result<Option<(Vec<u8>, &str)>, String> {
    let text = text.trim_start();
    if let Some(quoted) = text.strip_prefix('"') {
        return unescaped(quoted).map(Some);
    }
    if let Some(quoted) = text.strip_prefix('\'') {
        let (word, rest) = quoted.split_once('\'').ok_or("a ' is missing")?;
        return Ok(Some((word.as_bytes().to_vec(), rest)));
    }
    let (word, rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    Ok((!word.is_empty()).then(|| (word.as_bytes().to_vec(), rest)))
}

/// The bytes up to the closing quote, and what is behind it.
fn unescaped(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut word = Vec::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((word, text.get(at + 1..).unwrap_or_default())),
            '\\' => {
                let (_, escaped) = letters.next().ok_or("a \" is missing")?;
                word.push(match escaped {
                    'n' => b'\n',
                    't' => b'\t',
                    'r' => b'\r',
                    '0' => 0,
                    '\\' => b'\\',
                    '"' => b'"',
                    'x' => {
                        let digits: String = letters.by_ref().take(2).map(|(_, digit)| digit).collect();
                        let is_hex =
                            digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                        let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                        byte.ok_or_else(|| format!("\\x wants two hexadecimal digits, found {digits:?}"))?
                    }
                    other => return Err(format!("\\{other} stands for nothing")),
                });
            }
            plain => word.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err("a \" is missing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::ids::Revision;
    use crate::kv::{Compare, CompareOperator, CompareTarget, KeyRange, Operation, Put};
    use bytes::Bytes;

    fn put(key: &'static [u8], value: &'static [u8]) -> Operation {
        Operation::Put(Put::new(Bytes::from_static(key), Bytes::from_static(value)))
    }

    #[test]
    fn a_transaction_is_three_lists_with_empty_lines_between() {
        let txn =
            parse("mod(\"a\") > \"0\"\nvalue(\"b c\") != \"x\"\n\nput a \"new value\"\n\ndel a --prefix\n")
                .expect("it is one");
        let compare = |key: &'static [u8], operator, target| Compare {
            range: KeyRange::Key(Bytes::from_static(key)),
            operator,
            target,
        };
        assert_eq!(
            txn.compares,
            [
                compare(b"a", CompareOperator::Greater, CompareTarget::Mod(Revision(0))),
                compare(b"b c", CompareOperator::NotEqual, CompareTarget::Value(Bytes::from_static(b"x"))),
            ]
        );
        assert_eq!(txn.success, [put(b"a", b"new value")]);
        assert!(matches!(&txn.failure[..], [Operation::DeleteRange(_)]));
    }

    #[test]
    fn lists_may_be_empty() {
        let txn = parse("\nput a 1\nput b 2\n\n").expect("it is one");
        assert_eq!((txn.compares.len(), txn.success.len(), txn.failure.len()), (0, 2, 0));
        let txn = parse("create(a)=1\n\n\nget a\n").expect("it is one");
        assert_eq!((txn.compares.len(), txn.success.len(), txn.failure.len()), (1, 0, 1));
    }

    #[test]
    fn quotes_hold_any_bytes() {
        let txn = parse("\nput 'a \"b\"' \"\\xff\\n\\\"é\"\n").expect("it is one");
        assert_eq!(txn.success, [put(b"a \"b\"", b"\xff\n\"\xc3\xa9")]);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let wrong = [
            ("", "empty"),
            ("size(\"a\") = \"1\"\n\nput a 1", "line 1"),
            ("mod(\"a\") = \"x\"\n\nput a 1", "a number"),
            ("mod(\"a) = \"1\"\n\nput a 1", "line 1"),
            ("mod(\"a\") = \"1\" \"2\"\n\nput a 1", "line 1"),
            ("\nput a", "line 2"),
            ("\nput a \"1", "is missing"),
            ("\nput a \"\\q\"", "stands for nothing"),
            ("\nput a \"\\x+1\"", "hexadecimal"),
            ("\nwatch a", "line 2"),
            ("\nput a 1\n\nget a\n\nget b", "line 6"),
        ];
        for (text, expected) in wrong {
            let problem = parse(text).expect_err(text);
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
    }
}
