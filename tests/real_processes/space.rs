//! A keyspace that uses up its quota, and gets room again.

use crate::support::{PATIENCE, options, pause, run, text};
use mainstay::cli::cluster::LocalCluster;
use std::time::Instant;

#[test]
fn a_full_keyspace_says_so_refuses_puts_and_takes_them_when_there_is_room() {
    let mut options = options(3);
    options.arguments = vec!["--quota-bytes".to_owned(), "300000".to_owned()];
    let cluster = LocalCluster::start(options, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let at = cluster.endpoints().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let ask = |arguments: &[&str]| {
        let output = run(&[arguments, &["--endpoints", &at]].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let value = "x".repeat(50_000);
    let began = Instant::now();
    let mut count = 0;
    let refused = loop {
        let (code, _, problem) = ask(&["put", "large", &value]);
        if code != Some(0) {
            break problem;
        }
        count += 1;
        assert!(count < 50 && began.elapsed() < PATIENCE, "it is full some time");
    };
    assert!(refused.contains("no-space") && refused.contains("alarm"), "{refused}");
    assert!(count >= 5, "the quota is for memory, not for requests: {count} puts");
    assert_eq!(ask(&["alarm", "list"]).1, "NOSPACE\n");
    let (code, shown, _) = ask(&["status"]);
    assert_eq!(code, Some(1), "it is something to warn of");
    assert!(shown.contains("quota"), "{shown}");

    assert_eq!(ask(&["del", "large"]).0, Some(0));
    let revision = format!("{}", count + 2);
    assert_eq!(ask(&["compact", &revision]).0, Some(0));
    while ask(&["put", "small", "1"]).0 != Some(0) {
        assert!(began.elapsed() < PATIENCE, "the alarm goes by itself");
        pause();
    }
    assert_eq!(ask(&["alarm", "list"]).1, "");
    assert_eq!(ask(&["alarm", "disarm"]).1, "the space alarm is off\n");
}
