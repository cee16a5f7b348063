use super::*;
use crate::plan::Plan;
use crate::settings::{
    AlertSettings, InhibitSettings, ReceiverKind, ReceiverSettings, RouteSettings,
};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;

fn notifier(change: impl FnOnce(&mut RouteSettings)) -> Notifier {
    let mut receiver = ReceiverSettings::new("r", ReceiverKind::Slack);
    receiver.secret_env = Some("S".into());
    let mut route = RouteSettings::new(&["severity>=low"], &["r"]);
    change(&mut route);
    let settings = AlertSettings {
        receivers: vec![receiver],
        routes: vec![route],
        inhibit: vec![InhibitSettings {
            source: vec!["severity>=critical".into()],
            target: vec!["severity<=medium".into()],
            equal: vec!["entity".into()],
            seconds: 600,
        }],
        ..AlertSettings::default()
    };
    let mut plan = Plan::check(&settings).unwrap();
    let (_, routes) = plan.receivers.remove(0);
    Notifier::new(routes, plan.inhibitions, BTreeMap::new())
}

fn alert(id: &str, rule: &str, user: &str, severity: Severity, seconds: i64) -> Alert {
    Alert {
        tenant: "acme".into(),
        id: id.into(),
        rule_id: rule.into(),
        user: Some(user.into()),
        severity,
        ingest_time: seconds * SECOND,
        time: seconds * SECOND,
        ..Alert::default()
    }
}

fn medium(id: &str, user: &str, seconds: i64) -> Alert {
    alert(id, "rule", user, Severity::Medium, seconds)
}

const SENT: Decision = Decision::Notify { suppressed: 0 };

fn of(id: &str) -> Decision {
    Decision::Duplicate { of: id.into() }
}

#[test]
fn the_same_within_the_window_is_counted() {
    let mut n = notifier(|_| {});
    let mut decide = |alert: Alert| n.decide(&alert, &[], false, 0);
    assert_eq!(decide(medium("a", "alice", 0)), SENT);
    assert_eq!(decide(medium("b", "alice", 10)), of("a"));
    assert_eq!(decide(medium("c", "bob", 10)), SENT);
    assert_eq!(decide(alert("d", "other", "alice", Severity::Medium, 10)), SENT);
    let foreign = Alert { tenant: "other".into(), ..medium("e", "alice", 11) };
    assert_eq!(decide(foreign), SENT);
    assert_eq!(decide(medium("f", "alice", 3599)), of("a"));
    // The window is over: the next one tells how many there were.
    assert_eq!(decide(medium("g", "alice", 3600)), Decision::Notify { suppressed: 2 });
    assert_eq!(decide(medium("h", "alice", 3700)), of("g"));
    // Worse than what was told.
    let worse = alert("i", "rule", "alice", Severity::High, 3800);
    assert_eq!(decide(worse), Decision::Notify { suppressed: 1 });
    assert_eq!(decide(medium("j", "alice", 3900)), of("i"));
    // A later revision of what was told is the same.
    assert_eq!(decide(Alert { revision: 1, ..medium("i", "alice", 3901) }), of("i"));
}

#[test]
fn without_a_window_all_are_sent_and_nothing_is_remembered() {
    let mut n = notifier(|route| route.window_seconds = 0);
    for id in ["a", "b", "c"] {
        assert_eq!(n.decide(&medium(id, "alice", 0), &[], false, 0), SENT);
    }
    assert_eq!(n.remembered(), 0);
}

#[test]
fn routes_choose_by_conditions_tenants_and_age() {
    let mut n = notifier(|route| {
        route.matchers = vec!["severity>=high".into()];
        route.tenants = vec!["acme".into()];
    });
    let high = |id: &str| alert(id, "rule", id, Severity::High, 0);
    assert_eq!(n.decide(&medium("a", "a", 0), &[], false, 0), Decision::NoRoute);
    let foreign = Alert { tenant: "other".into(), ..high("b") };
    assert_eq!(n.decide(&foreign, &[], false, 0), Decision::NoRoute);
    let old = Alert { historical: true, ..high("c") };
    assert_eq!(n.decide(&old, &[], false, 0), Decision::Historical);
    let loaded = Alert { domain: Some("load-1".into()), ..high("d") };
    assert_eq!(n.decide(&loaded, &[], false, 0), Decision::Historical);
    let live = Alert { domain: Some("live".into()), ..high("e") };
    assert_eq!(n.decide(&live, &[], false, 0), SENT);
    let mut n = notifier(|route| route.historical = true);
    assert_eq!(n.decide(&old, &[], false, 0), SENT);
    assert_eq!(n.decide(&loaded, &[], false, 0), SENT);
}

#[test]
fn silences_are_asked_at_the_time_on_the_wall() {
    let mut n = notifier(|_| {});
    let silence = Silence::new("s1", "acme", &["user=alice".into()], 100, 200).unwrap();
    let silences = [silence];
    let silenced = Decision::Silenced { silence: "s1".into() };
    assert_eq!(n.decide(&medium("a", "alice", 0), &silences, false, 150), silenced);
    // What was silenced opens no window.
    assert_eq!(n.decide(&medium("b", "alice", 1), &silences, false, 200), SENT);
    assert_eq!(n.decide(&medium("c", "bob", 1), &silences, false, 150), SENT);
}

#[test]
fn a_worse_alert_about_the_same_entity_mutes_until_its_time_is_over_or_it_is_retracted() {
    let mut n = notifier(|_| {});
    let mut decide = |alert: &Alert, told| n.decide(alert, &[], told, 0);
    let critical = alert("c", "bad", "alice", Severity::Critical, 10);
    assert_eq!(decide(&critical, false), SENT);
    let by = Decision::Inhibited { by: "c".into() };
    assert_eq!(decide(&medium("m1", "Alice", 20), false), by);
    assert_eq!(decide(&medium("m2", "bob", 20), false), SENT);
    let high = alert("h", "rule2", "alice", Severity::High, 20);
    assert_eq!(decide(&high, false), SENT, "only targets are muted");
    // By another entity that both have.
    let source = Alert { src_ip: Some("10.0.0.1".into()), user: None, ..critical.clone() };
    let source = Alert { id: "c2".into(), ..source };
    assert_eq!(decide(&source, false), SENT);
    let target = Alert { src_ip: Some("10.0.0.1".into()), ..medium("m3", "carol", 30) };
    assert_eq!(decide(&target, false), Decision::Inhibited { by: "c2".into() });
    assert_eq!(decide(&medium("m4", "alice", 609), false), by);
    assert_eq!(decide(&medium("m5", "alice", 610), false), SENT);
    // Muted until it is taken back.
    let again = Alert { id: "c3".into(), ..alert("", "bad2", "dave", Severity::Critical, 700) };
    assert_eq!(decide(&again, false), SENT);
    let by = Decision::Inhibited { by: "c3".into() };
    assert_eq!(decide(&medium("m6", "dave", 701), false), by);
    let retraction =
        Alert { state: State::Retracted, revision: 1, ingest_time: 702 * SECOND, ..again };
    assert_eq!(decide(&retraction, true), SENT);
    assert_eq!(decide(&medium("m7", "dave", 703), false), SENT);
}

#[test]
fn retractions_go_to_whom_was_told() {
    let mut n = notifier(|_| {});
    let silence = Silence::new("s", "acme", &["user=alice".into()], 0, 100).unwrap();
    let first = medium("a", "alice", 0);
    assert_eq!(n.decide(&first, &[], false, 0), SENT);
    let back = Alert { state: State::Retracted, revision: 1, ..first };
    assert_eq!(n.decide(&back, &[], false, 0), Decision::NotTold);
    assert_eq!(n.decide(&back, &[silence], true, 50), SENT);
    // Also when it lost what its route asks for.
    let other = Alert { severity: Severity::Informational, ..back };
    assert_eq!(n.decide(&other, &[], true, 0), SENT);
    let mut n = notifier(|route| route.retractions = false);
    let back = Alert { severity: Severity::Medium, ..other };
    assert_eq!(n.decide(&back, &[], true, 0), Decision::NotTold);
}

#[test]
fn memory_is_bounded_and_ends() {
    let mut n = notifier(|_| {});
    for index in 0..MAX_MEMORY + 500 {
        let id = index.to_string();
        n.decide(&medium(&id, &id, 0), &[], false, 0);
        assert!(n.remembered() <= MAX_MEMORY);
    }
    n.take_changes();
    n.decide(&medium("x", "x", 10_000), &[], false, 0);
    assert_eq!(n.remembered(), 1);
    let changes = n.take_changes();
    assert_eq!(changes.iter().filter(|(_, entry)| entry.is_none()).count(), MAX_MEMORY);
    assert!(n.take_changes().is_empty());
}

proptest! {
    /// Stored and taken up again after any alert, the decisions are the same; and in every window a
    /// group is notified once for each severity at most.
    #[test]
    fn a_restart_changes_no_decision(
        alerts in prop::collection::vec((0u8..4, 0u8..3, 1usize..5, 0i64..900, any::<bool>()), 1..80),
        restarts in prop::collection::btree_set(0usize..80, 0..10),
    ) {
        let mut straight = notifier(|_| {});
        let mut broken = notifier(|_| {});
        let mut stored: BTreeMap<String, Memory> = BTreeMap::new();
        let mut clock = 0;
        for (index, (user, rule, severity, step, retracted)) in alerts.into_iter().enumerate() {
            clock += step;
            let id = format!("{}", if retracted { index / 2 } else { index });
            let state = if retracted { State::Retracted } else { State::Open };
            let severity = Severity::ALL[severity];
            let alert = alert(&id, &format!("r{rule}"), &format!("u{user}"), severity, clock);
            let alert = Alert { state, ..alert };
            let expected = straight.decide(&alert, &[], index % 2 == 0, 0);
            let decision = broken.decide(&alert, &[], index % 2 == 0, 0);
            prop_assert_eq!(&decision, &expected);
            for (key, entry) in broken.take_changes() {
                match entry {
                    Some(entry) => {
                        // As the catalog keeps it.
                        let text = serde_json::to_string(&entry).unwrap();
                        stored.insert(key, serde_json::from_str(&text).unwrap());
                    }
                    None => { stored.remove(&key); }
                }
            }
            if restarts.contains(&index) {
                let fresh = notifier(|_| {});
                broken = Notifier::new(fresh.routes, fresh.inhibitions, stored.clone());
            }
        }
    }
}
